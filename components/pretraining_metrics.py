"""Every number a pretrained encoder is judged by, as one TFMA metric of sums: long rows count for what they have.

Pseudo-perplexity is that of Salazar et al., "Masked Language Model Scoring" (2020), but for one thing. They mask one
token at a time and read a text as often as it has tokens; here one token in `passes` is masked at a time, and a text is
read `passes` times. A token is then foretold from somewhat less, so that the number is somewhat larger; with as many
passes as the longest row has tokens it is theirs. [UNK] is neither masked nor counted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma

from components.confidence import Resampled, interval_names, middle
from components.verdict import pretraining_metric_names
from modules.instances import IS_NEXT, IS_RANDOM

# What a row's prediction is, in this order; see `mask_filling.ServedPretrainer.judge`.
OUTPUTS = ("masked_loss", "masked_correct", "masked_count", "next_score")


def row_sums(label: int, prediction: np.ndarray) -> np.ndarray:
    """What a row adds to the sums that `metrics_from_sums` takes.

    Args:
        label: `IS_NEXT`, `IS_RANDOM`, or another number where a row is no pair.
        prediction: [4] floats, the values of `OUTPUTS`; `next_score` is NaN where a model has no such head.

    Returns:
        [5] float64: sum of the cross entropies in nats, tokens that were foretold right, tokens; pairs that were told
        right, pairs.

    Example: `row_sums(IS_RANDOM, [7.5, 2, 5, 0.3])` is `[7.5, 2, 5, 1, 1]`, as 0.3 is a second text that follows less
    likely than not.
    """
    loss, correct, count, score = prediction.astype(np.float64)
    is_pair = label in (IS_NEXT, IS_RANDOM)
    is_right = math.nan if math.isnan(score) else float((score >= 0.5) == (label == IS_NEXT))
    loss = loss if math.isfinite(loss) else math.nan
    return np.array([loss, correct, count, is_right if is_pair else 0, is_pair], np.float64)


def metrics_from_sums(sums: np.ndarray) -> dict[str, float]:
    """The metrics of `verdict.pretraining_metric_names`.

    What the rows do not define is NaN: all of them without a token, the accuracy of next sentences without a pair. If
    any loss was not finite, every metric is NaN.

    Example: `[6.0, 2, 5, 1, 4]` gives masked_accuracy 0.4, masked_loss 1.2, pseudo_perplexity e^1.2 = 3.32 and
    next_accuracy 0.25.

    Args:
        sums: [5] float64, the sum of `row_sums` over all rows.
    """
    loss, correct, count, right, pairs = sums
    if not math.isfinite(loss):
        return dict.fromkeys(pretraining_metric_names(True), math.nan)
    with np.errstate(invalid="ignore", over="ignore"):
        values = {"masked_accuracy": correct / count, "masked_loss": loss / count,
                  "pseudo_perplexity": np.exp(loss / count), "next_accuracy": right / pairs}
    return {name: float(value) for name, value in values.items()}


class _Combiner(beam.CombineFn):
    def __init__(self, next_sentence: bool, model_name: str):
        self._names, self._model_name = pretraining_metric_names(next_sentence), model_name

    def create_accumulator(self) -> Resampled:
        return Resampled(5)

    def add_input(self, accumulator: Resampled, element: tfma.metrics.StandardMetricInputs) -> Resampled:
        label, prediction = int(np.squeeze(element.get_labels())), element.get_predictions(self._model_name)
        accumulator.add(prediction.tobytes(), row_sums(label, prediction))
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[Resampled]) -> Resampled:
        merged = self.create_accumulator()
        for accumulator in accumulators:
            merged.merge(accumulator)
        return merged

    def extract_output(self, accumulator: Resampled) -> dict[tfma.metrics.MetricKey, float]:
        values, *drawn = map(metrics_from_sums, accumulator.sums)
        found: dict[str, float] = {}
        for name in self._names:
            ends = middle(values[name] for values in drawn)
            found |= {name: values[name], **dict(zip(interval_names(name), ends, strict=True))}
        return {tfma.metrics.MetricKey(name=name, model_name=self._model_name): value for name, value in found.items()}


def _computations(next_sentence: bool, name: str, model_name: str = "") -> list[tfma.metrics.MetricComputation]:
    del name  # TFMA hands over the metric's own; its values have one each
    keys = [tfma.metrics.MetricKey(name=value, model_name=model_name)
            for metric in pretraining_metric_names(next_sentence) for value in (metric, *interval_names(metric))]
    return [tfma.metrics.MetricComputation(keys=keys, preprocessors=None,
                                           combiner=_Combiner(next_sentence, model_name))]


class PretrainingMetrics(tfma.metrics.Metric):
    """Accuracy, loss and pseudo-perplexity of masked tokens and, of pairs, the accuracy of next sentences.

    Each comes with its confidence interval, for which rows are drawn again; see `confidence.Resampled`.

    Args:
        next_sentence: whether rows are pairs. Labels are `[] int64` and predictions `[4] float32`, see `row_sums`.
    """

    def __init__(self, next_sentence: bool = True, name: str = "pretraining"):
        super().__init__(tfma.metrics.merge_per_key_computations(_computations), next_sentence=next_sentence, name=name)
