"""BLEU and chrF, each over all sentences of a slice, as one TFMA metric.

BLEU (Papineni et al., 2002) is TFMA's own metric. Its key lacks the model's name, so that a second model's values would
take the first one's place, and its value is an object that TFMA's files cannot hold: both are mended here by deriving
the number from it. chrF (Popović, 2015) sums sacrebleu's statistics of each sentence in a combiner of ours. Both are
sacrebleu's numbers exactly, 0 to 100. (But for BLEU of empty references, whose hypotheses TFMA does not count; rows
without a target never get so far, see `components/rows.py`.)
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma
from sacrebleu.metrics import BLEU, CHRF
from tensorflow_model_analysis.metrics.bleu import Bleu


def signatures(lower_case: bool) -> dict[str, str]:
    """sacrebleu's signatures: metric → what its number depends on."""
    metrics: dict[str, Any] = {"bleu": BLEU(lowercase=lower_case), "chrf": CHRF(lowercase=lower_case)}
    for metric in metrics.values():
        metric.corpus_score(["a"], [["a"]])  # how many references there are shows only then
    return {name: str(metric.get_signature()) for name, metric in metrics.items()}


def sentence_chrf(hypothesis: str, reference: str, lower_case: bool) -> float:
    """chrF of one sentence, 0 to 100."""
    return CHRF(lowercase=lower_case).sentence_score(hypothesis, [reference]).score


class _Chrf(beam.CombineFn):
    """Sums, for n-grams of 1 to 6 characters, those of the hypotheses, of the references, and of both."""

    def __init__(self, lower_case: bool, key: tfma.metrics.MetricKey):
        self._metric, self._key = CHRF(lowercase=lower_case), key

    def create_accumulator(self) -> np.ndarray:
        return np.zeros(3 * self._metric.order, np.int64)  # [order · 3]

    def add_input(self, accumulator: np.ndarray, element: tfma.metrics.StandardMetricInputs) -> np.ndarray:
        hypothesis, = element.get_predictions(self._key.model_name)
        (reference,), = element.get_labels()
        # The statistics have no public name in sacrebleu; its corpus score is made of them in the same way.
        return accumulator + self._metric._extract_corpus_statistics([hypothesis], [[reference]])[0]

    def merge_accumulators(self, accumulators: Iterable[np.ndarray]) -> np.ndarray:
        return sum(accumulators, self.create_accumulator())

    def extract_output(self, accumulator: np.ndarray) -> dict[tfma.metrics.MetricKey, float]:
        return {self._key: self._metric._compute_score_from_stats(accumulator.tolist()).score}


def _computations(lower_case: bool, name: str, eval_config: Any, model_name: str = "") -> list[Any]:
    del name  # TFMA hands over the metric's own; its values have one each
    key, chrf = (tfma.metrics.MetricKey(name=name, model_name=model_name) for name in ("bleu", "chrf"))
    # Private to TFMA by its underscore, and another one for each model.
    private = tfma.metrics.MetricKey(name=f"_bleu_{model_name}")
    bleu = Bleu(name=private.name, lowercase=lower_case)

    def number(metrics: dict[tfma.metrics.MetricKey, Any]) -> dict[tfma.metrics.MetricKey, float]:
        return {key: metrics[private].score}

    return [*bleu.computations(eval_config=eval_config, model_names=[model_name]),
            tfma.metrics.DerivedMetricComputation(keys=[key], result=number),
            tfma.metrics.MetricComputation(keys=[chrf], preprocessors=None, combiner=_Chrf(lower_case, chrf))]


class TranslationMetrics(tfma.metrics.Metric):
    """BLEU and chrF. Labels are `[references, 1]` strings, one reference, and predictions `[1]` string.

    Args:
        lower_case: whether both sides are lower-cased first.
    """

    def __init__(self, lower_case: bool = False, name: str = "translation"):
        super().__init__(tfma.metrics.merge_per_key_computations(_computations), lower_case=lower_case, name=name)
