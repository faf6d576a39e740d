"""How translators are judged: their sentences against the references, sliced by the length of the source."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
from tensorflow_model_analysis.proto.config_pb2 import MetricConfig

from components.judging import Answer, Judge, Rows, own_metric, text
from components.translation_metrics import TranslationMetrics, sentence_chrf, signatures
from components.verdict import translation_metric_names


class TranslationJudge(Judge):
    """References are the target texts as they were read, hypotheses the detokenised translations.

    A source's length is its tokens by the candidate's own vocabulary, [START] and [END] included, as `max_tokens`
    counts them.
    """

    outputs = ("translation", "score")
    # Beams hold keys and values of every layer for all source and target tokens of a call: a few hundred MB at most.
    call_tokens = 4096
    sample_kinds = ("worst", "best", "random")

    def __init__(self, manifests: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any]):
        super().__init__(manifests, settings)
        self._source, self._target = self.data["text"] or "", self.data["target"] or ""
        self._lower_case = bool(self.evaluation.get("lower_case", False))
        self._kept = int(self.evaluation.get("examples", 0))

    def metric_names(self) -> list[str]:
        return translation_metric_names()

    def metrics(self) -> list[MetricConfig]:
        return [own_metric(TranslationMetrics, lower_case=self._lower_case)]

    def labels(self, rows: Rows) -> list[np.ndarray]:
        # [references, rows of the batch], here one of each.
        return [np.array([[text(row, self._target)]], dtype=object) for row in rows]

    def lengths(self, features: Answer) -> np.ndarray:
        return np.count_nonzero(features["source_ids"], axis=1)  # padding is 0

    def predictions(self, model: str, answer: Answer) -> Sequence[np.ndarray]:
        return [np.array([translation.decode("utf-8", "replace")], dtype=object)
                for translation in answer["translation"]]

    def samples(self, rows: Rows, answer: Answer) -> Iterator[dict[str, Any]]:
        """source, reference, translation, the model's score and the sentence's chrF, of every row."""
        if not self._kept:
            return
        for row, translation, score in zip(rows, answer["translation"], answer["score"], strict=True):
            reference, said = text(row, self._target), translation.decode("utf-8", "replace")
            yield {"source": text(row, self._source), "reference": reference, "translation": said,
                   "score": float(score), "chrf": sentence_chrf(said, reference, self._lower_case)}

    def keep(self, samples: beam.PCollection, candidate: str) -> dict[str, beam.PCollection]:
        """The translations with the lowest and the highest chrF, and as many that a hash of source and seed draws."""
        if not self._kept:
            return {}
        seed, kept = self.seed, self._kept
        return {"worst": samples | "Worst" >> beam.combiners.Top.Of(kept, key=_quality, reverse=True),
                "best": samples | "Best" >> beam.combiners.Top.Of(kept, key=_quality),
                "random": samples | "Random" >> beam.combiners.Top.Of(
                    kept, key=lambda sample: _draw(sample, seed), reverse=True)}

    def details(self, folder: str) -> dict[str, Any]:
        """sacrebleu's signatures, which say how the numbers came about."""
        return {"signatures": signatures(self._lower_case)}


def _quality(sample: Mapping[str, Any]) -> tuple[float, str, str]:
    """Ascending from the worst; the texts decide between equals, so that every run keeps the same ones."""
    return sample["chrf"], sample["source"], sample["reference"]


def _draw(sample: Mapping[str, Any], seed: int) -> tuple[str, str]:
    return hashlib.sha256(f"{seed} {sample['source']}".encode()).hexdigest(), sample["reference"]
