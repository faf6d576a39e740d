"""How classifiers are judged: scores by class, sliced by label, length and, of pairs, the words that they share."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis.proto.config_pb2 import MetricConfig

from components.classification_metrics import ClassificationMetrics
from components.judging import Answer, Judge, Rows, own_metric, slice_name, text
from components.slices import CROSSED, LABEL, OVERLAP, bands, word_overlap
from components.verdict import metric_names
from modules.errors import TextrailError


class ClassificationJudge(Judge):
    """Scores are put into the candidate's order of classes, a class that a served model does not know scoring 0."""

    outputs = ("scores",)

    def __init__(self, manifests: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any]):
        super().__init__(manifests, settings)
        self._classes = {name: list(manifest["classes"]) for name, manifest in manifests.items()}
        self._names = self._classes[tfma.CANDIDATE_KEY]
        texts = [self.data["text"], self.data.get("text_pair")]
        self._pair = [name for name in texts if name] if all(texts) else []

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
