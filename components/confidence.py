"""How far off a metric may be for having been measured on so few examples: 95% confidence intervals.

What a model gets on a split is one draw of what it would get on all the texts that the split stands for. Shares that
were counted have Wilson's interval; for what is made of sums over rows, the rows are drawn again.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np

Interval = tuple[float, float]

RESAMPLES = 200
NORMAL = 1.96              # Standard deviations that hold 95% of a normal distribution.
ENDS = (2.5, 97.5)         # The same in percent of resamples.


def interval_names(metric: str) -> tuple[str, str]:
    """The names that the ends of a metric's interval have among TFMA's values."""
    return f"{metric}:low", f"{metric}:high"


def take_intervals(values: dict[str, float]) -> dict[str, list[float]]:
    """Removes the ends of intervals from metrics, and gives them by metric; those that are not numbers are dropped.

    Example: from {"bleu": 30.0, "bleu:low": 28.0, "bleu:high": 32.0} it takes {"bleu": [28.0, 32.0]}.
    """
    found = {}
    for metric in [name for name in values if interval_names(name)[0] in values]:
        ends = [values.pop(end) for end in interval_names(metric)]
        if all(map(math.isfinite, ends)):
            found[metric] = ends
    return found


def wilson(share: float, count: float) -> Interval:
    """The interval of a share that was counted (Wilson, "Probable inference", 1927).

    Example:
        >>> [round(end, 4) for end in wilson(0.9, 100)]
        [0.8256, 0.9448]
    """
    if not count or math.isnan(share):
        return 0.0, 1.0
    z = NORMAL
    centre = share + z * z / (2 * count)
    spread = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, (centre - spread) / (1 + z * z / count)), min(1.0, (centre + spread) / (1 + z * z / count))


def f1_interval(hits: float, actual: float, predicted: float) -> Interval:
    """The interval of a class's F1.

    F1 is 2j / (1 + j), where j is the share of hits among the examples that have the class or were given it: a share
    that was counted.

    Args:
        hits: examples of the class that were given it.
        actual: examples of the class.
        predicted: examples that were given it.
    """
    either = actual + predicted - hits
    low, high = wilson(hits / either if either else math.nan, either)
    return 2 * low / (1 + low), 2 * high / (1 + high)


def auc_interval(auc: float, negatives: float, positives: float) -> Interval:
    """The interval of an area under the ROC curve (Hanley and McNeil, 1982)."""
    first, second = auc / (2 - auc), 2 * auc * auc / (1 + auc)
    variance = (auc * (1 - auc) + (positives - 1) * (first - auc * auc)
                + (negatives - 1) * (second - auc * auc)) / max(1.0, negatives * positives)
    spread = NORMAL * math.sqrt(max(0.0, variance))
    return max(0.0, auc - spread), min(1.0, auc + spread)


def mean_interval(total: float, squares: float, count: float) -> Interval:
    """The interval of a mean of many values, given their sum and the sum of their squares."""
    if count < 2:
        return math.nan, math.nan
    mean = total / count
    spread = NORMAL * math.sqrt(max(0.0, squares / count - mean * mean) / (count - 1))
    return mean - spread, mean + spread


def confusion_intervals(confusion: np.ndarray, metrics: Callable[[float, np.ndarray, np.ndarray, np.ndarray], Sequence[
        float]]) -> list[Interval]:
    """Intervals of what is made of a confusion matrix: its examples are drawn again, with replacement (Efron, 1979).

    Args:
        confusion: [actual, predicted] examples.
        metrics: examples; and each [classes] hits, actual, predicted → values.

    Returns:
        An interval for each value.
    """
    cells, total = np.nonzero(confusion), int(confusion.sum())
    random, found = np.random.default_rng(0), []
    classes = len(confusion)
    for _ in range(RESAMPLES):
        drawn = random.multinomial(total, confusion[cells] / total)  # [cells that are not empty]
        actual, predicted = (np.bincount(side, drawn, classes) for side in cells)
        hits = np.bincount(cells[0], drawn * (cells[0] == cells[1]), classes)
        found.append(metrics(total, hits, actual, predicted))
    return [middle(values) for values in np.array(found).T]


def middle(values: Iterable[float]) -> Interval:
    """The interval that 95% of resampled values are in."""
    low, high = np.percentile(np.array(list(values)), ENDS)
    return float(low), float(high)


class Resampled:
    """Sums over rows, and the same sums over rows that are drawn again: the Poisson bootstrap (Chamandy et al., 2012).

    Each row counts as often in a resample as a Poisson distribution of mean 1 says, so that no worker need know of the
    rows of another; a hash of the row draws, so that every runner draws the same.

    Example: with sums [[5, 2], [7, 3], [4, 2]] the value is made of 5 and 2, and a resample's of 7 and 3.

    Attributes:
        sums: [1 + RESAMPLES, numbers] float64, first those over all rows.
    """

    def __init__(self, numbers: int):
        self.sums = np.zeros((1 + RESAMPLES, numbers))

    def add(self, row: bytes, numbers: Sequence[float] | np.ndarray) -> None:
        """Adds a row's numbers.

        Args:
            row: what tells it from others; equal rows are drawn together.
            numbers: as many as all rows have.
        """
        seed = int.from_bytes(hashlib.blake2b(row, digest_size=8).digest(), "little")
        times = np.concatenate([[1], np.random.default_rng(seed).poisson(1.0, RESAMPLES)])  # [1 + RESAMPLES]
        self.sums += times[:, None] * np.asarray(numbers, np.float64)

    def merge(self, other: Resampled) -> None:
        """Adds another worker's sums."""
        self.sums += other.sums

    def interval(self, metric: Callable[[np.ndarray], float]) -> Interval:
        """The interval of a metric that is made of the sums, [numbers] float64."""
        return middle(metric(sums) for sums in self.sums[1:])
