"""What a check shows: rows on their way through the model, figures, and the learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from modules.optimization import Schedule
from pipelines.check import LOSS_TOLERANCE, Check, ShownRow
from pipelines.plots import lengths_png, schedule_png, schedule_text

SHOWN_TOKENS = 48   # Of a row; of a longer one the first and the last of each text.
CLASSES_SHOWN = 6
NAMES = 9           # Characters that the names of a row's lines take.
MARGIN = 14         # Characters left and right of what those lines show.


def show(check: Check, console: Console) -> None:
    """Prints rows, figures and the learning rate's plot, then the warnings."""
    def say(text: str = "") -> None:
        console.print(text, soft_wrap=True)

    for number, row in enumerate(check.shown, start=1):
        say(f"{number:<3}{row.label}")
        for line in _row_lines(row, check.classes, console.width):
            say(f"   {line}")
        say()
    table = Table.grid(padding=(0, 2, 0, 0))
    for name, text in facts(check):
        table.add_row(name, text)
    console.print(table)
    say()
    say(schedule_text(check.schedule, check.steps_per_epoch, width=min(72, console.width - 16)))
    say()
    for warning in check.warnings():
        say(f"warning: {warning}")


def write_plots(check: Check, folder: Path) -> list[Path]:
    """Writes `learning_rate.png` and `lengths.png` to a folder, which is made, and returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "learning_rate.png", folder / "lengths.png"]
    schedule_png(check.schedule, check.steps_per_epoch, paths[0])
    lengths_png(check.lengths, check.settings.model.max_length, paths[1])
    return paths


def facts(check: Check) -> list[tuple[str, str]]:
    """What is known of a run before it starts, as pairs of a name and a sentence."""
    settings, sample, rows = check.settings, check.sample, len(check.lengths)
    about = "" if sample.whole else "about "
    splits = ", ".join(f"{split} {about}{count:,}" for split, count in sample.estimates.items())
    read = "all rows were read" if sample.whole else f"the first {sample.read:,} rows were read"
    skipped = f"; {len(sample.bad):,} skipped" if sample.bad else ""
    frequent = sorted(check.classes, key=lambda name: -check.labels[name])
    labels = ", ".join(f"{name} {check.labels[name] / rows:.1%}" for name in frequent[:CLASSES_SHOWN])
    others = f" and {len(frequent) - CLASSES_SHOWN} more" if len(frequent) > CLASSES_SHOWN else ""
    epochs = f"{settings.training.epochs} epoch{'s' * (settings.training.epochs > 1)}"
    half, most = np.percentile(check.lengths, [50, 95])
    trained, frozen = check.parameters
    # Weights, gradients, two moments and the best weights so far, in float32 each.
    megabytes = (5 * trained + frozen) * 4 / 1e6
    verdict = "as it should be" if not check.problem() else "NOT as it should be"
    return [
        ("rows", f"{splits}; {read}{skipped}"),
        ("labels", f"{labels}{others}"),
        ("lengths", f"half of the texts have at most {half:.0f} tokens, 95% {most:.0f}, the longest "
                    f"{check.lengths.max():,}; model.max_length {settings.model.max_length} cuts {check.cut:.1%}"),
        ("unknown", f"{check.unknown:.2%} of the tokens are [UNK]"),
        ("loss", f"{check.loss:.3f} before training; equal scores for {len(check.classes)} classes would have "
                 f"ln({len(check.classes)}) = {check.chance:.3f}: {verdict} (within {LOSS_TOLERANCE})"),
        ("precision", f"{check.precision[0]}: {check.precision[1]}"),
        ("parameters", f"{trained:,} train, {frozen:,} do not; {megabytes:,.0f} MB with gradients and optimizer, "
                       "without activations"),
        ("steps", f"{about}{check.steps_per_epoch:,} an epoch, {about}{check.schedule.total_steps:,} in "
                  f"{epochs}, {check.schedule.warmup_steps:,} of them warmup"),
        ("learning rate", _schedule_fact(check.schedule)),
    ]


def _schedule_fact(schedule: Schedule) -> str:
    fall = {"linear": "falls evenly to 0", "cosine": "falls to 0 along a cosine", "constant": "stays"}[schedule.kind]
    return f"peak {schedule.peak:g}, then {fall}"


def _row_lines(row: ShownRow, classes: Sequence[str], width: int) -> list[str]:
    names = ("text a", "text b") if len(row.texts) == 2 else ("text",)
    lines = [f"{name:<{NAMES}}{shorten(text, width - MARGIN)}" for name, text in zip(names, row.texts, strict=True)]
    columns = _elided(list(zip(row.tokens, map(str, row.token_ids), map(str, row.segments), strict=True)))
    for block in _blocks(columns, width - MARGIN):
        for name, cells in zip(("tokens", "ids", "segments"), zip(*block, strict=True), strict=True):
            padded = (cell + " " * (max(map(cell_len, column)) - cell_len(cell))
                      for cell, column in zip(cells, block, strict=True))
            lines.append(f"{name:<{NAMES}}{'  '.join(padded)}".rstrip())
    order = sorted(zip(classes, row.logits, strict=True), key=lambda pair: -pair[1])
    logits = ", ".join(f"{name} {logit:+.3f}" for name, logit in order[:CLASSES_SHOWN])
    return [*lines, f"{'logits':<{NAMES}}{logits}{', …' if len(order) > CLASSES_SHOWN else ''}"]


def _elided(columns: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """All columns of a short row; of a longer one the first of each segment, an ellipsis and its last one."""
    if len(columns) <= SHOWN_TOKENS:
        return columns
    parts = [[column for column in columns if column[2] == segment] for segment in ("0", "1")]
    kept = SHOWN_TOKENS // (2 if parts[1] else 1)
    return [column for part in parts for column in (
        part if len(part) <= kept else [*part[:kept - 2], ("…", "…", "…"), part[-1]])]


def _blocks(columns: Sequence[tuple[str, ...]], width: int) -> list[list[tuple[str, ...]]]:
    """Columns in lines of at most `width` characters, two spaces between them."""
    blocks: list[list[tuple[str, ...]]] = [[]]
    used = 0
    for column in columns:
        size = max(map(cell_len, column)) + 2
        if used + size > width and blocks[-1]:
            blocks.append([])
            used = 0
        blocks[-1].append(column)
        used += size
    return blocks


def shorten(text: str, width: int) -> str:
    """One line of at most `width` characters."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[:width - 1] + "…"
