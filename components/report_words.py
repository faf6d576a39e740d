"""How a report says metrics, their intervals and sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from components.confidence import Interval, f1_interval, wilson
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


def all_intervals(verdict: Mapping[str, Any]) -> dict[str, Sequence[float]]:
    """The 95% intervals of whatever thresholds may name: metrics, those of a class, and those of a slice."""
    found: dict[str, Sequence[float]] = dict(_of_classes(**verdict["confusion"]) if "confusion" in verdict else {})
    for one in verdict["slices"]:
        _, equals, value = one["slice"].partition("=")
        if equals and ", " not in one["slice"]:
            found |= {f"{name}/{value}": ends for name, ends in one.get("intervals", {}).items()}
    return found | verdict.get("intervals", {})


def _of_classes(classes: Sequence[str], counts: Sequence[Sequence[int]]) -> dict[str, Interval]:
    """Intervals of precision, recall and F1, as the confusion matrix has them."""
    confusion, found = np.array(counts), {}
    all_hits, all_actual, all_predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    for name, hits, actual, predicted in zip(classes, all_hits, all_actual, all_predicted, strict=True):
        for kind, count in (("precision", predicted), ("recall", actual)):
            if count:
                found[f"{kind}/{name}"] = wilson(hits / count, count)
        if actual or predicted:
            found[f"f1/{name}"] = f1_interval(hits, actual, predicted)
    return found
