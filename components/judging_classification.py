"""How classifiers are judged: scores by class, sliced by label, length and, of pairs, the words that they share."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto.config_pb2 import MetricConfig

from components.classification_metrics import ClassificationMetrics
from components.judging import Answer, Judge, Rows, own_metric, slice_name, text
from components.slices import CROSSED, LABEL, OVERLAP, bands, word_overlap
from components.verdict import CALIBRATION, metric_names
from modules.errors import TextrailError

MISTAKES = 20           # Kept for a person to read.
SHOWN_CHARACTERS = 2000  # Of each text of those.
BANDS = 10              # Of confidence, equally wide.


class ClassificationJudge(Judge):
    """Scores are put into the candidate's order of classes, a class that a served model does not know scoring 0."""

    outputs = ("scores",)
    sample_kinds = ("mistakes", CALIBRATION)

    def __init__(self, manifests: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any]):
        super().__init__(manifests, settings)
        self._classes = {name: list(manifest["classes"]) for name, manifest in manifests.items()}
        self._names = self._classes[tfma.CANDIDATE_KEY]
        self._texts = [name for name in (self.data["text"], self.data.get("text_pair")) if name]
        self._pair = self._texts if len(self._texts) == 2 else []

    def metric_names(self) -> list[str]:
        return metric_names(self._names)

    def metrics(self) -> list[MetricConfig]:
        return [own_metric(ClassificationMetrics, classes=self._names),
                MetricConfig(class_name="MultiClassConfusionMatrixPlot", config=json.dumps({"name": "confusion"}))]

    def labels(self, rows: Rows) -> list[np.ndarray]:
        return [np.array([self._names.index(self._label(row))]) for row in rows]

    def _label(self, row: Any) -> str:
        feature = self.data["label"] or ""
        label = text(row, feature)
        if label not in self._names:
            raise TextrailError(f"labels among the model's classes {self._names}", f"{feature}={label!r}",
                                "Train on data that has this class, or remove its rows from the split that judges.")
        return label

    def lengths(self, features: Answer) -> np.ndarray:
        return features["token_count"]

    def predictions(self, model: str, answer: Answer) -> Sequence[np.ndarray]:
        known, scores = self._classes[model], answer["scores"]  # [rows, model's classes]
        aligned = np.zeros((len(scores), len(self._names)), np.float32)  # [rows, classes]
        for column, class_name in enumerate(self._names):
            if class_name in known:
                aligned[:, column] = scores[:, known.index(class_name)]
        return list(aligned)

    def slices(self, rows: Rows, lengths: np.ndarray) -> dict[str, list[str]]:
        found = super().slices(rows, lengths) | {LABEL: [self._label(row) for row in rows]}
        if self._pair:
            overlaps = [word_overlap(*(text(row, name) for name in self._pair)) for row in rows]
            found[OVERLAP] = bands(overlaps, self.evaluation["overlap_bands"], least=0)
        return found

    def slicing(self) -> list[tuple[str, ...]]:
        return list(dict.fromkeys([*super().slicing(), (LABEL,), *([(OVERLAP,), CROSSED] if self._pair else [])]))

    def samples(self, rows: Rows, answer: Answer) -> Iterator[dict[str, Any]]:
        """text (of a pair a list), label, predicted class and its score, of every row with a finite score."""
        for row, scores in zip(rows, answer["scores"], strict=True):
            if np.all(np.isfinite(scores)):
                texts = [text(row, name)[:SHOWN_CHARACTERS] for name in self._texts]
                yield {"text": texts if self._pair else texts[0], "label": self._label(row),
                       "predicted": self._names[int(np.argmax(scores))], "score": float(np.max(scores))}

    def keep(self, samples: beam.PCollection, candidate: str) -> dict[str, beam.PCollection]:
        """The mistakes that the model was surest of, and how often it was right by how sure it was."""
        mistakes = samples | "Wrong" >> beam.Filter(lambda sample: sample["label"] != sample["predicted"])
        return {"mistakes": mistakes | "Surest" >> beam.combiners.Top.Of(MISTAKES, key=_sureness),
                CALIBRATION: samples | "Calibration" >> beam.CombineGlobally(_Calibration())}

    def details(self, folder: str) -> dict[str, Any]:
        """The confusion matrix: classes and counts `[actual][predicted]`."""
        counts = np.zeros((len(self._names), len(self._names)), np.int64)
        for record in tfma.load_plots(folder):
            for item in record.plot_keys_and_values:
                if not slice_name(record) and item.key.model_name in ("", tfma.CANDIDATE_KEY):
                    for entry in item.value.multi_class_confusion_matrix_at_thresholds.matrices[0].entries:
                        if entry.predicted_class_id >= 0:
                            counts[entry.actual_class_id, entry.predicted_class_id] += round(
                                entry.num_weighted_examples)
        return {"confusion": {"classes": self._names, "counts": counts.tolist()}}


def _sureness(sample: Mapping[str, Any]) -> tuple[float, str]:
    """Ascending to the surest; the text decides between equals, so that every run keeps the same ones."""
    return sample["score"], str(sample["text"])


class _Calibration(beam.CombineFn):
    """Counts, by bands of the winning class's score: [BANDS, 3] float64 of examples, sum of scores, hits."""

    def create_accumulator(self) -> np.ndarray:
        return np.zeros((BANDS, 3))

    def add_input(self, accumulator: np.ndarray, sample: Mapping[str, Any]) -> np.ndarray:
        band = min(int(sample["score"] * BANDS), BANDS - 1)
        accumulator[band] += 1, sample["score"], sample["label"] == sample["predicted"]
        return accumulator

    def merge_accumulators(self, accumulators: Iterable[np.ndarray]) -> np.ndarray:
        return sum(accumulators, self.create_accumulator())

    def extract_output(self, accumulator: np.ndarray) -> list[dict[str, float]]:
        return calibration_bands(accumulator)


def calibration_bands(counts: np.ndarray) -> list[dict[str, float]]:
    """Bands of confidence that have examples: `examples`, `confidence` (mean score of the winning class), `accuracy`.

    Example: [[0, 0, 0], [4, 3.0, 2]] → [{"examples": 4, "confidence": 0.75, "accuracy": 0.5}].

    Args:
        counts: [bands, 3] examples, sum of scores, hits.
    """
    return [{"examples": int(examples), "confidence": scores / examples, "accuracy": hits / examples}
            for examples, scores, hits in counts.tolist() if examples]
