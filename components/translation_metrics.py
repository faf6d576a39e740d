"""BLEU and chrF, each over all sentences of a slice, as one TFMA metric.

BLEU (Papineni et al., 2002) is TFMA's own metric. Its key lacks the model's name, so that a second model's values would
take the first one's place, and its value is an object that TFMA's files cannot hold: both are mended here by deriving
the number from it. chrF (Popović, 2015) sums sacrebleu's statistics of each sentence in a combiner of ours. Both are
sacrebleu's numbers exactly, 0 to 100. (But for BLEU of empty references, whose hypotheses TFMA does not count; rows
without a target never get so far, see `components/rows.py`.) Their confidence intervals are of sentences drawn again.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma
from sacrebleu.metrics import BLEU, CHRF
from tensorflow_model_analysis.metrics.bleu import Bleu

from components.confidence import Resampled, interval_names


def signatures(lower_case: bool) -> dict[str, str]:
    """sacrebleu's signatures: metric → what its number depends on."""
    metrics: dict[str, Any] = {"bleu": BLEU(lowercase=lower_case), "chrf": CHRF(lowercase=lower_case)}
    for metric in metrics.values():
        metric.corpus_score(["a"], [["a"]])  # how many references there are shows only then
    return {name: str(metric.get_signature()) for name, metric in metrics.items()}


def sentence_chrf(hypothesis: str, reference: str, lower_case: bool) -> float:
    """chrF of one sentence, 0 to 100."""
    return CHRF(lowercase=lower_case).sentence_score(hypothesis, [reference]).score


class _Resampled(beam.CombineFn):
    """Sums sacrebleu's statistics of each sentence: chrF, and how far off it and BLEU may be."""

    def __init__(self, lower_case: bool, model_name: str):
        self._bleu, self._chrf = BLEU(lowercase=lower_case), CHRF(lowercase=lower_case)
        self._model_name = model_name

    def create_accumulator(self) -> tuple[Resampled, Resampled]:
        # BLEU: lengths of both sides, and n-grams of 1 to 4 words that are right, and all; chrF: n-grams of 1 to 6
        # characters of the hypotheses, of the references, and of both.
        return Resampled(2 + 2 * self._bleu.max_ngram_order), Resampled(3 * self._chrf.order)

    def add_input(self, accumulator: tuple[Resampled, Resampled], element: tfma.metrics.StandardMetricInputs
                  ) -> tuple[Resampled, Resampled]:
        hypothesis, = element.get_predictions(self._model_name)
        (reference,), = element.get_labels()
        row = f"{hypothesis}\0{reference}".encode("utf-8", "replace")
        for metric, sums in zip((self._bleu, self._chrf), accumulator, strict=True):
            # The statistics have no public name in sacrebleu; its corpus score is made of them in the same way.
            sums.add(row, metric._extract_corpus_statistics([hypothesis], [[reference]])[0])
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[tuple[Resampled, Resampled]]) -> tuple[Resampled, Resampled]:
        merged = self.create_accumulator()
        for accumulator in accumulators:
            for mine, other in zip(merged, accumulator, strict=True):
                mine.merge(other)
        return merged

    def extract_output(self, accumulator: tuple[Resampled, Resampled]) -> dict[tfma.metrics.MetricKey, float]:
        bleu, chrf = accumulator
        found = {"chrf": _score(self._chrf, chrf.sums[0])}
        for name, ends in (("bleu", bleu.interval(partial(_score, self._bleu))),
                           ("chrf", chrf.interval(partial(_score, self._chrf)))):
            found |= dict(zip(interval_names(name), ends, strict=True))
        return {tfma.metrics.MetricKey(name=name, model_name=self._model_name): value
                for name, value in found.items()}


def _score(metric: Any, sums: np.ndarray) -> float:
    return metric._compute_score_from_stats(sums.astype(np.int64).tolist()).score


def _computations(lower_case: bool, name: str, eval_config: Any, model_name: str = "") -> list[Any]:
    del name  # TFMA hands over the metric's own; its values have one each
    key = tfma.metrics.MetricKey(name="bleu", model_name=model_name)
    summed = [tfma.metrics.MetricKey(name=name, model_name=model_name)
              for name in ("chrf", *interval_names("bleu"), *interval_names("chrf"))]
    # Private to TFMA by its underscore, and another one for each model.
    private = tfma.metrics.MetricKey(name=f"_bleu_{model_name}")
    bleu = Bleu(name=private.name, lowercase=lower_case)

    def number(metrics: dict[tfma.metrics.MetricKey, Any]) -> dict[tfma.metrics.MetricKey, float]:
        return {key: metrics[private].score}

    return [*bleu.computations(eval_config=eval_config, model_names=[model_name]),
            tfma.metrics.DerivedMetricComputation(keys=[key], result=number),
            tfma.metrics.MetricComputation(keys=summed, preprocessors=None,
                                           combiner=_Resampled(lower_case, model_name))]


class TranslationMetrics(tfma.metrics.Metric):
    """BLEU and chrF. Labels are `[references, 1]` strings, one reference, and predictions `[1]` string.

    Args:
        lower_case: whether both sides are lower-cased first.
    """

    def __init__(self, lower_case: bool = False, name: str = "translation"):
        super().__init__(tfma.metrics.merge_per_key_computations(_computations), lower_case=lower_case, name=name)
