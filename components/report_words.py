"""How a report says metrics, their intervals and sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from components.report_page import MISSING, Cell

# The metrics that stand on top, of whatever shape.
MAIN = ("accuracy", "macro_f1", "auc", "mcc", "bleu", "chrf", "masked_accuracy", "pseudo_perplexity", "next_accuracy",
        "loss")
PERCENT = ("bleu", "chrf")   # Metrics from 0 to 100.
FEW_DECIMALS = (*PERCENT, "pseudo_perplexity")


def size(count: int | None) -> str:
    """Bytes as a person says them: "532 B", "1.2 MB"; "?" if nobody knows."""
    if count is None:
        return "?"
    for unit, bytes_ in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= bytes_:
            return f"{count / bytes_:.1f} {unit}"
    return f"{count} B"


def spelled(name: str) -> str:
    """A metric's name in words: "masked accuracy", "BLEU", "macro F1"."""
    kind, slash, of = name.partition("/")
    known = {"bleu": "BLEU", "chrf": "chrF", "auc": "AUC", "mcc": "MCC", "f1": "F1", "macro_f1": "macro F1"}
    return known.get(kind, kind.replace("_", " ")) + slash + of


def metric(name: str, value: float | None, sign: bool = False) -> str:
    """A metric's value: those from 0 to 1 have four decimals, larger ones two."""
    decimals = 2 if name.partition("/")[0] in FEW_DECIMALS else 4
    return "–" if value is None else f"{value:{'+' if sign else ''}.{decimals}f}"


def metric_cell(name: str, value: float | None, sign: bool = False) -> Cell:
    return Cell(metric(name, value, sign), value=MISSING if value is None else value, kind="n")


def interval(name: str, ends: Sequence[float] | None) -> str:
    """Where a metric is with 95% confidence: "0.906 to 0.947"; nothing where nobody knows."""
    decimals = 1 if name.partition("/")[0] in FEW_DECIMALS else 3
    return f"{ends[0]:.{decimals}f} to {ends[1]:.{decimals}f}" if ends else ""


def interval_cell(name: str, ends: Sequence[float] | None) -> Cell:
    return Cell(interval(name, ends) or "–", value=ends[0] if ends else MISSING, kind="n")


def metrics_of(verdict: Mapping[str, Any]) -> list[str]:
    """The main metrics that a verdict has, the most telling first."""
    return [name for name in MAIN if verdict["metrics"].get(name) is not None]
