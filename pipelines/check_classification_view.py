"""What a check of a classification shows: tokens and logits of rows, and the figures that only this shape has."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipelines.check_classification import LOSS_TOLERANCE, ClassificationCheck, ShownRow
from pipelines.check_view import MARGIN, NAMES, aligned, elided, shorten
from pipelines.plots import lengths_png

CLASSES_SHOWN = 6


def row_lines(check: ClassificationCheck, width: int) -> list[tuple[str, list[str]]]:
    """The title and the lines of each row that is shown, in so many characters."""
    return [(row.label, _row_lines(row, check.classes, width)) for row in check.shown]


def facts(check: ClassificationCheck) -> list[tuple[str, str]]:
    """What is known of the rows and the new head, as pairs of a name and a sentence."""
    settings, rows = check.settings, len(check.lengths)
    frequent = sorted(check.classes, key=lambda name: -check.labels[name])
    labels = ", ".join(f"{name} {check.labels[name] / rows:.1%}" for name in frequent[:CLASSES_SHOWN])
    others = f" and {len(frequent) - CLASSES_SHOWN} more" if len(frequent) > CLASSES_SHOWN else ""
    half, most = np.percentile(check.lengths, [50, 95])
    verdict = "as it should be" if not check.problem() else "NOT as it should be"
    return [
        ("labels", f"{labels}{others}"),
        ("lengths", f"half of the texts have at most {half:.0f} tokens, 95% {most:.0f}, the longest "
                    f"{check.lengths.max():,}; model.max_length {settings.model.max_length} cuts {check.cut:.1%}"),
        ("unknown", f"{check.unknown:.2%} of the tokens are [UNK]"),
        ("loss", f"{check.loss:.3f} before training; equal scores for {len(check.classes)} classes would have "
                 f"ln({len(check.classes)}) = {check.chance:.3f}: {verdict} (within {LOSS_TOLERANCE})"),
    ]


def write_plots(check: ClassificationCheck, folder: Path, destination: str) -> list[Path]:
    """Writes the plots that only this shape has, and returns their paths; asks no pushed model."""
    path = folder / "lengths.png"
    lengths_png({"texts": check.lengths}, check.settings.model.max_length, "model.max_length", "are cut", path)
    return [path]


def _row_lines(row: ShownRow, classes: Sequence[str], width: int) -> list[str]:
    names = ("text a", "text b") if len(row.texts) == 2 else ("text",)
    lines = [f"{name:<{NAMES}}{shorten(text, width - MARGIN)}" for name, text in zip(names, row.texts, strict=True)]
    columns = list(zip(row.tokens, map(str, row.token_ids), map(str, row.segments), strict=True))
    segments = [list(segment) for _, segment in itertools.groupby(columns, key=lambda column: column[2])]
    lines += aligned(("tokens", "ids", "segments"), elided(*segments), width)
    order = sorted(zip(classes, row.logits, strict=True), key=lambda pair: -pair[1])
    logits = ", ".join(f"{name} {logit:+.3f}" for name, logit in order[:CLASSES_SHOWN])
    return [*lines, f"{'logits':<{NAMES}}{logits}{', …' if len(order) > CLASSES_SHOWN else ''}"]
