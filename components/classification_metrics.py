"""Every number a classifier is judged by, as one TFMA metric.

TFMA's own metrics do not fit together here: its confusion matrix takes a NaN score for a prediction, its
Matthews coefficient and F1 are binary, and Keras metrics differ between Keras 2 and 3. One metric of our own
counts once for each slice and model, and all values stand in TFMA's files beside its own.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma

from components import confidence
from components.confidence import interval_names
from components.verdict import metric_names

# Scores are told apart down to this difference in log-odds, where the AUC sorts them into buckets.
LOG_ODDS_STEP = 1e-3
# Metrics with a confidence interval in every slice; those of a class follow from the confusion matrix.
WITH_INTERVALS = ("accuracy", "loss", "macro_f1", "mcc", "auc")
# Probabilities are kept this far from 0 and 1, so that one certain mistake does not make the loss infinite.
SMALLEST = 1e-7


@dataclass
class Counts:
    """What one pass over examples leaves of them.

    Attributes:
        confusion: [actual, predicted] int64, examples.
        loss: sum of the cross entropies, nats; NaN once a score was not finite.
        loss_squares: sum of their squares.
        buckets: (label, bucket of the log-odds of class 1) → examples; filled for two classes.
    """

    confusion: np.ndarray
    loss: float = 0.0
    loss_squares: float = 0.0
    buckets: Counter = field(default_factory=Counter)

    def add(self, label: int, scores: np.ndarray) -> None:
        """Counts one example, its label's index and its `[classes] float32` scores."""
        if not np.all(np.isfinite(scores)):
            self.loss = math.nan
            return
        self.confusion[label, int(np.argmax(scores))] += 1
        safe = np.clip(scores.astype(np.float64), SMALLEST, 1.0)
        loss = -math.log(safe[label])
        self.loss += loss
        self.loss_squares += loss * loss
        if len(scores) == 2:
            self.buckets[label, round(math.log(safe[1] / safe[0]) / LOG_ODDS_STEP)] += 1

    def merge(self, other: Counts) -> None:
        self.confusion += other.confusion
        self.loss += other.loss
        self.loss_squares += other.loss_squares
        self.buckets.update(other.buckets)


def metrics_from_counts(counts: Counts, classes: Sequence[str]) -> dict[str, float]:
    """The metrics of `verdict.metric_names`, as scikit-learn defines them.

    A class that occurs but is never predicted has precision and F1 0. What the examples do not define is NaN:
    the recall of a class that does not occur, the AUC of one class. The macro F1 is the mean over classes that
    occur or are predicted. If any score was not finite, every metric is NaN.

    Example: confusion [[3, 1], [2, 4]] gives accuracy 0.7, precision of class 0 3/5, recall of class 0 3/4.
    """
    if math.isnan(counts.loss):
        return dict.fromkeys(metric_names(classes), math.nan)
    confusion = counts.confusion.astype(np.float64)
    total, hits = confusion.sum(), np.diag(confusion)
    actual, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where((predicted == 0) & (actual > 0), 0.0, hits / predicted)
        recall = hits / actual
        f1 = 2 * hits / (actual + predicted)
        macro_f1, mcc = _of_confusion(total, hits, actual, predicted)
        values = {"accuracy": hits.sum() / total, "loss": counts.loss / total, "macro_f1": macro_f1, "mcc": mcc}
    if len(classes) == 2:
        values["auc"] = _auc(counts.buckets)
    for kind, column in (("precision", precision), ("recall", recall), ("f1", f1)):
        values.update({f"{kind}/{name}": value for name, value in zip(classes, column, strict=True)})
    return {name: float(value) for name, value in values.items()}


def intervals_from_counts(counts: Counts, classes: Sequence[str], metrics: Mapping[str, float]
                          ) -> dict[str, confidence.Interval]:
    """95% confidence intervals of `WITH_INTERVALS`; those of what is not a number are NaN.

    Args:
        counts: what the metrics were made from.
        classes: class names in index order.
        metrics: what `metrics_from_counts` gives.
    """
    names = [name for name in WITH_INTERVALS if name in metrics]
    total = counts.confusion.sum()
    if math.isnan(counts.loss) or not total:
        return dict.fromkeys(names, (math.nan, math.nan))
    with np.errstate(invalid="ignore", divide="ignore"):
        macro_f1, mcc = confidence.confusion_intervals(counts.confusion, _of_confusion)
    low, high = confidence.mean_interval(counts.loss, counts.loss_squares, total)
    found = {"accuracy": confidence.wilson(metrics["accuracy"], total), "loss": (max(0.0, low), high),
             "macro_f1": macro_f1, "mcc": mcc}
    if "auc" in metrics:
        found["auc"] = confidence.auc_interval(metrics["auc"], *counts.confusion.sum(axis=1))
    return {name: found[name] for name in names}


def _of_confusion(total: float, hits: np.ndarray, actual: np.ndarray, predicted: np.ndarray) -> tuple[float, float]:
    """Macro F1 and Matthews correlation, of [classes] counts each."""
    f1 = 2 * hits / (actual + predicted)
    return np.mean(f1[(actual + predicted) > 0]), _matthews(hits.sum(), total, actual, predicted)


def _matthews(hits: float, total: float, actual: np.ndarray, predicted: np.ndarray) -> float:
    """Matthews correlation for any number of classes (Gorodkin 2004); 0 where a side has one class only."""
    spread = (total**2 - np.dot(predicted, predicted)) * (total**2 - np.dot(actual, actual))
    return (hits * total - np.dot(actual, predicted)) / math.sqrt(spread) if spread > 0 else 0.0


def _auc(buckets: Counter) -> float:
    """Chance that a random example of class 1 scores above a random one of class 0, ties counting half."""
    area, negatives, positives = 0.0, 0, 0
    for bucket in sorted({bucket for _, bucket in buckets}):
        area += buckets[1, bucket] * (negatives + buckets[0, bucket] / 2)
        negatives += buckets[0, bucket]
        positives += buckets[1, bucket]
    return area / (negatives * positives) if negatives and positives else math.nan


class _Combiner(beam.CombineFn):
    def __init__(self, classes: list[str], model_name: str):
        self._classes, self._model_name = classes, model_name

    def create_accumulator(self) -> Counts:
        return Counts(np.zeros((len(self._classes), len(self._classes)), np.int64))

    def add_input(self, accumulator: Counts, element: tfma.metrics.StandardMetricInputs) -> Counts:
        accumulator.add(int(np.squeeze(element.get_labels())), element.get_predictions(self._model_name))
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[Counts]) -> Counts:
        merged = self.create_accumulator()
        for accumulator in accumulators:
            merged.merge(accumulator)
        return merged

    def extract_output(self, accumulator: Counts) -> dict[tfma.metrics.MetricKey, float]:
        values = metrics_from_counts(accumulator, self._classes)
        for name, ends in intervals_from_counts(accumulator, self._classes, values).items():
            values |= dict(zip(interval_names(name), ends, strict=True))
        return {tfma.metrics.MetricKey(name=name, model_name=self._model_name): value
                for name, value in values.items()}


def _computations(classes: list[str], name: str, model_name: str = "") -> list[tfma.metrics.MetricComputation]:
    del name  # TFMA hands over the metric's own; its values have one each
    known = metric_names(classes)
    known += [end for value in known if value in WITH_INTERVALS for end in interval_names(value)]
    keys = [tfma.metrics.MetricKey(name=value, model_name=model_name) for value in known]
    return [tfma.metrics.MetricComputation(keys=keys, preprocessors=None, combiner=_Combiner(classes, model_name))]


class ClassificationMetrics(tfma.metrics.Metric):
    """Accuracy, loss, macro F1, Matthews correlation, per-class values and, for two classes, AUC.

    Args:
        classes: class names in index order. Labels are indices `[] int64`, predictions `[classes] float32`.
    """

    def __init__(self, classes: list[str], name: str = "classification"):
        super().__init__(tfma.metrics.merge_per_key_computations(_computations), classes=classes, name=name)
