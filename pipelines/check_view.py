"""What a check shows: rows on their way through the model, figures, and the learning rate.

Here is what all shapes have in common; each has a module of its own beside this one, with `row_lines`, `facts` and
`write_plots`.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from modules.optimization import Schedule
from pipelines.check import Check
from pipelines.plots import peak_of, schedule_png, schedule_text

VIEWS = {shape: f"pipelines.check_{shape}_view" for shape in ("classification", "translation", "pretraining")}
SHOWN_TOKENS = 48   # Of a row; of a longer one the first and the last of each text.
NAMES = 9           # Characters that the names of a row's lines take.
MARGIN = 14         # Characters left and right of what those lines show.


def show(check: Check, console: Console) -> None:
    """Prints rows, figures and the learning rate's plot, then the warnings."""
    def say(text: str = "") -> None:
        console.print(text, soft_wrap=True)

    for number, (title, lines) in enumerate(_view(check).row_lines(check, console.width), start=1):
        say(f"{number:<3}{title}".rstrip())
        for line in lines:
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


def write_plots(check: Check, folder: Path, destination: str) -> list[Path]:
    """Writes `learning_rate.png` and the shape's own plots.

    Args:
        check: what was found.
        folder: for the plots; it is made.
        destination: where the run pushes to; a model that is served there may be asked for a picture.

    Returns:
        Their paths.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "learning_rate.png"
    schedule_png(check.schedule, check.steps_per_epoch, path)
    return [path, *_view(check).write_plots(check, folder, destination)]


def facts(check: Check) -> list[tuple[str, str]]:
    """What is known of a run before it starts, as pairs of a name and a sentence."""
    settings, sample = check.settings, check.sample
    about = "" if sample.whole else "about "
    splits = ", ".join(f"{split} {about}{count:,}" for split, count in sample.estimates.items())
    read = "all rows were read" if sample.whole else f"the first {sample.read:,} rows were read"
    skipped = f"; {len(sample.bad):,} skipped" if sample.bad else ""
    epochs = f"{settings.training.epochs} epoch{'s' * (settings.training.epochs > 1)}"
    trained, frozen = check.parameters
    # Weights, gradients, two moments and the best weights so far, in float32 each.
    megabytes = (5 * trained + frozen) * 4 / 1e6
    return [
        ("rows", f"{splits}; {read}{skipped}"),
        *_view(check).facts(check),
        ("precision", f"{check.precision[0]}: {check.precision[1]}"),
        ("parameters", f"{trained:,} train, {frozen:,} do not; {megabytes:,.0f} MB with gradients and optimizer, "
                       "without activations"),
        ("steps", f"{about}{check.steps_per_epoch:,} an epoch, {about}{check.schedule.total_steps:,} in "
                  f"{epochs}, {check.schedule.warmup_steps:,} of them warmup"),
        ("learning rate", _schedule_fact(check.schedule)),
    ]


def _view(check: Check) -> ModuleType:
    return importlib.import_module(VIEWS[check.settings.shape])


def _schedule_fact(schedule: Schedule) -> str:
    fall = {"inverse_sqrt": "falls with the root of the step", "linear": "falls evenly to 0",
            "cosine": "falls to 0 along a cosine", "constant": "stays"}[schedule.kind]
    step, peak = peak_of(schedule)
    first, last = schedule(np.array([0, schedule.total_steps - 1])).numpy()
    return f"{first:.2g} at the first step, {peak:.2g} at step {step:,}, then {fall}; {last:.2g} at the last"


def aligned(names: Sequence[str], columns: Sequence[tuple[str, ...]], width: int) -> list[str]:
    """Cells that belong together, one below the other, in lines of at most `width` characters with their names.

    Args:
        names: of the cells of a column.
        columns: their cells.
        width: characters of the terminal.
    """
    lines = []
    for block in _blocks(columns, width - MARGIN):
        for name, cells in zip(names, zip(*block, strict=True), strict=True):
            padded = (cell + " " * (max(map(cell_len, column)) - cell_len(cell))
                      for cell, column in zip(cells, block, strict=True))
            lines.append(f"{name:<{NAMES}}{'  '.join(padded)}".rstrip())
    return lines


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


def elided(*segments: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """All columns of a short row; of a longer one the first of each segment, an ellipsis and its last one."""
    if sum(map(len, segments)) <= SHOWN_TOKENS:
        return [column for segment in segments for column in segment]
    kept = SHOWN_TOKENS // len(segments)
    return [column for segment in segments for column in (
        segment if len(segment) <= kept else [*segment[:kept - 2], ("…",) * len(segment[0]), segment[-1]])]


def shorten(text: str, width: int) -> str:
    """One line of at most `width` characters."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[:width - 1] + "…"
