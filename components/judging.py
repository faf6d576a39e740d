"""The Beam part of the Evaluator: two models over one pass of examples, counted by TFMA.

Apart from `components/evaluator.py`, so that building a pipeline does not wait for TFMA's imports.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow as tf
import tensorflow_model_analysis as tfma
import tensorflow_text  # noqa: F401  registers the tokenizers' ops, without which no SavedModel of ours loads
from apache_beam.utils import shared
from google.protobuf import wrappers_pb2
from tensorflow_model_analysis.extractors import slice_key_extractor
from tensorflow_model_analysis.proto.config_pb2 import EvalConfig, MetricConfig, MetricsSpec, ModelSpec, SlicingSpec

from components.classification_metrics import ClassificationMetrics
from components.slices import CROSSED, LABEL, LENGTH, OVERLAP, bands, reading_order, word_overlap
from components.verdict import number
from modules.errors import TextrailError

# Rows scored together: enough to sort by length, few enough to hold their texts in memory.
ROWS = 512
# Tokens in one call of the model, padding included; bounds the memory of attention.
CALL_TOKENS = 8192


class Predict(beam.DoFn):
    """A batch of serialized tf.Examples → one TFMA extract each: label, slices and every model's scores.

    All models are loaded once a process. Lengths are the candidate's, whose bands slice both models alike. Scores
    are put into the candidate's order of classes, a class that a served model does not know scoring 0.
    """

    def __init__(self, models: Mapping[str, str], classes: Mapping[str, Sequence[str]], data: Mapping[str, str | None],
                 band_ends: Mapping[str, Sequence[int]]):
        """Takes what is read once a process; the arguments are those of `evaluate`."""
        self._folders, self._classes, self._label = dict(models), dict(classes), data["label"] or ""
        texts = [data["text"], data["text_pair"]]
        self._pair = [name for name in texts if name] if all(texts) else []
        self._band_ends = dict(band_ends)
        self._names = list(classes[tfma.CANDIDATE_KEY])
        self._shared = shared.Shared()

    def setup(self) -> None:
        self._models = self._shared.acquire(
            lambda: _Models({name: tf.saved_model.load(folder) for name, folder in self._folders.items()}))

    def process(self, batch: list[bytes]) -> Iterator[dict[str, Any]]:
        rows = [tf.train.Example.FromString(record).features.feature for record in batch]
        labels = [self._known_label(row) for row in rows]
        records = tf.constant(batch)
        features = self._models[tfma.CANDIDATE_KEY].signatures["transform_features"](examples=records)
        lengths = features["token_count"].numpy()
        scores = {name: self._score(name, records, lengths) for name in self._folders}
        slices = {LABEL: labels, LENGTH: bands(lengths, self._band_ends[LENGTH], least=1)}
        if self._pair:
            overlaps = [word_overlap(*(_text(row, name) for name in self._pair)) for row in rows]
            slices[OVERLAP] = bands(overlaps, self._band_ends[OVERLAP], least=0)
        for index, (record, label) in enumerate(zip(batch, labels, strict=True)):
            predictions = {name: values[index] for name, values in scores.items()}
            yield {
                tfma.INPUT_KEY: record,
                tfma.LABELS_KEY: np.array([self._names.index(label)]),
                # TFMA keys predictions by model only where there are several.
                tfma.PREDICTIONS_KEY: predictions if len(scores) > 1 else predictions[tfma.CANDIDATE_KEY],
                tfma.FEATURES_KEY: {name: np.array([values[index]]) for name, values in slices.items()},
            }

    def _known_label(self, row: Any) -> str:
        label = _text(row, self._label)
        if label not in self._names:
            raise TextrailError(f"labels among the model's classes {self._names}", f"{self._label}={label!r}",
                                "Train on data that has this class, or remove its rows from the split that judges.")
        return label

    def _score(self, name: str, records: tf.Tensor, lengths: np.ndarray) -> np.ndarray:
        """Scores of all rows, `[rows, classes] float32`; similar lengths share a call, so little is padding."""
        order = np.argsort(lengths, kind="stable")
        width = max(1, int(CALL_TOKENS // max(1, lengths.max())))
        signature = self._models[name].signatures["examples"]
        scores = np.concatenate([signature(examples=tf.gather(records, order[start:start + width]))["scores"].numpy()
                                 for start in range(0, len(order), width)])  # [rows, model's classes], sorted rows
        known = self._classes[name]
        aligned = np.zeros((len(order), len(self._names)), np.float32)  # [rows, classes]
        for column, class_name in enumerate(self._names):
            if class_name in known:
                aligned[order, column] = scores[:, known.index(class_name)]
        return aligned


def _text(row: Any, name: str) -> str:
    """The value of a string feature of a tf.Example; "" if it has none."""
    values = row[name].bytes_list.value
    return values[0].decode("utf-8") if values else ""


class _Models(dict):
    """A dict that `shared.Shared` can hold: it keeps weak references, which plain dicts do not have."""


def evaluate(pipeline: beam.Pipeline, pattern: str, models: Mapping[str, str], classes: Mapping[str, Sequence[str]],
             data: Mapping[str, str | None], band_ends: Mapping[str, Sequence[int]], output: str) -> None:
    """Adds the judging of one split to a Beam pipeline; TFMA's files are in `output` once it has run.

    Args:
        pipeline: the pipeline to add to.
        pattern: TFRecord files of serialized raw tf.Examples.
        models: model name → SavedModel folder; `tfma.CANDIDATE_KEY` and, where one is served, `tfma.BASELINE_KEY`.
        classes: model name → its class names in index order.
        data: names of the features `text`, `text_pair` (or none) and `label`, the class name.
        band_ends: upper ends of the bands that slice: `length_band` in tokens, `word_overlap`, of pairs, in percent.
        output: folder for TFMA's results.
    """
    slices: list[tuple[str, ...]] = [(), (LABEL,), (LENGTH,)] + ([(OVERLAP,), CROSSED] if data["text_pair"] else [])
    config = _eval_config(list(models), list(classes[tfma.CANDIDATE_KEY]), slices)
    eval_models = [tfma.EvalSharedModel(model_path=folder, model_name=name, include_default_metrics=False)
                   for name, folder in models.items()]
    _ = (
        pipeline
        | "Read" >> beam.io.ReadFromTFRecord(pattern)
        | "Batch" >> beam.BatchElements(min_batch_size=ROWS, max_batch_size=ROWS)
        | "Predict" >> beam.ParDo(Predict(models, classes, data, band_ends)).with_output_types(tfma.Extracts)
        | "Judge" >> tfma.ExtractEvaluateAndWriteResults(
            eval_config=config, eval_shared_model=eval_models if len(eval_models) > 1 else eval_models[0],
            extractors=[slice_key_extractor.SliceKeyExtractor(eval_config=config, materialize=False)],
            output_path=output)
    )


def _eval_config(models: Sequence[str], classes: list[str], slices: Sequence[tuple[str, ...]]) -> EvalConfig:
    config = EvalConfig(
        model_specs=[ModelSpec(name=name, is_baseline=name == tfma.BASELINE_KEY) for name in models],
        metrics_specs=[MetricsSpec(
            model_names=models if len(models) > 1 else None,
            metrics=[
                MetricConfig(class_name="ExampleCount", config=json.dumps({"name": "examples"})),
                # Named with its module, the metric is found by TFMA on every worker without being registered there.
                MetricConfig(class_name=ClassificationMetrics.__name__, module=ClassificationMetrics.__module__,
                             config=json.dumps({"classes": classes})),
                MetricConfig(class_name="MultiClassConfusionMatrixPlot", config=json.dumps({"name": "confusion"})),
            ])],
        slicing_specs=[SlicingSpec(feature_keys=features) for features in slices])
    # Confidence intervals would count every example again for each of 20 resamplings.
    config.options.compute_confidence_intervals.CopyFrom(wrappers_pb2.BoolValue(value=False))
    return config


def read_results(folder: str, classes: Sequence[str]) -> dict[str, Any]:
    """The values in TFMA's files.

    Args:
        folder: what `evaluate` wrote.
        classes: the candidate's class names in index order.

    Returns:
        examples, metrics, baseline_metrics (None without a baseline; NaN where not a number), slices and confusion
        (counts `[actual][predicted]`) as in verdict.json.
    """
    found: dict[tuple[str, str], dict[str, float]] = {}  # (slice, model) → metric → value
    for record in tfma.load_metrics(folder):
        for item in record.metric_keys_and_values:
            if not item.key.is_diff:
                found.setdefault((_slice_name(record), item.key.model_name or tfma.CANDIDATE_KEY), {})[
                    item.key.name] = item.value.double_value.value
    counts = {name: values.pop("examples") for name, values in found.items()}
    slices = sorted((name for name, model in found if name and model == tfma.CANDIDATE_KEY), key=reading_order)
    overall = ("", tfma.CANDIDATE_KEY)
    return {
        "examples": int(counts[overall]),
        "metrics": found[overall],
        "baseline_metrics": found.get(("", tfma.BASELINE_KEY)),
        "slices": [{"slice": name, "examples": int(counts[name, tfma.CANDIDATE_KEY]),
                    "metrics": {key: number(value) for key, value in found[name, tfma.CANDIDATE_KEY].items()}}
                   for name in slices],
        "confusion": {"classes": list(classes), "counts": _confusion(folder, len(classes))},
    }


def _slice_name(record: Any) -> str:
    return ", ".join(f"{part.column}={part.bytes_value.decode('utf-8')}" for part in record.slice_key.single_slice_keys)


def _confusion(folder: str, classes: int) -> list[list[int]]:
    counts = np.zeros((classes, classes), np.int64)
    for record in tfma.load_plots(folder):
        for item in record.plot_keys_and_values:
            if not _slice_name(record) and item.key.model_name in ("", tfma.CANDIDATE_KEY):
                for entry in item.value.multi_class_confusion_matrix_at_thresholds.matrices[0].entries:
                    if entry.predicted_class_id >= 0:
                        counts[entry.actual_class_id, entry.predicted_class_id] += round(entry.num_weighted_examples)
    return counts.tolist()
