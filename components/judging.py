"""The Beam part of the Evaluator: two models over one pass of examples, counted by TFMA.

What differs by the shape of the models is a `Judge`: `judging_classification.py`, `judging_translation.py`,
`judging_pretraining.py`. All of it stands apart from `components/evaluator.py`, so that building a pipeline does not
wait for TFMA's imports.
"""

from __future__ import annotations

import json
import os
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

from components.calls import bounded_calls
from components.confidence import take_intervals
from components.slices import LENGTH, NO_VALUE, bands, reading_order
from components.verdict import SAMPLES, number

# Rows scored together: enough to sort by length, few enough to hold their texts in memory.
ROWS = 512

Rows = list[Any]                # the features of parsed tf.Examples, by name
Answer = dict[str, np.ndarray]  # output of a model's signature `examples` → one value a row


class Judge:
    """What differs by shape: how a model's answers become labels, predictions, slices and metrics.

    Judges travel to Beam's workers by pickling, so they hold settings and nothing open. Rows and answers come in
    batches, in the order of the split.

    Args:
        manifests: model name → what it says of itself; `tfma.CANDIDATE_KEY` and, where one is served,
            `tfma.BASELINE_KEY`.
        settings: `data` (names of features by what they hold), `evaluation` and `seed` of a run's settings.

    Attributes:
        outputs: outputs of the signature `examples` that are read, as far as a model has them.
        call_tokens: tokens in one call of a model, padding included; bounds its memory.
        sample_kinds: names of the groups of rows that `samples` keeps for a person to read.
    """

    outputs: Sequence[str] = ()
    call_tokens = 8192
    sample_kinds: Sequence[str] = ()

    def __init__(self, manifests: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any]):
        self.data: Mapping[str, str | None] = settings["data"]
        self.evaluation: Mapping[str, Any] = settings["evaluation"]
        self.seed = settings.get("seed", 0)

    @staticmethod
    def not_comparable(folders: Mapping[str, str], manifests: Mapping[str, Mapping[str, Any]]) -> str:
        """Why the served model cannot be judged on the candidate's rows, in a few words; "" where it can.

        Args:
            folders: model name → SavedModel folder, of both models.
            manifests: as the judge is given them.
        """
        return ""

    @property
    def slice(self) -> str | None:
        """The column whose values slice the metrics, if the settings name one."""
        return self.data.get("slice")

    def metric_names(self) -> list[str]:
        """What thresholds may name, apart from `METRIC/VALUE` of `slice`."""
        raise NotImplementedError

    def metrics(self) -> list[MetricConfig]:
        """TFMA's metrics, which give the values of `metric_names`."""
        raise NotImplementedError

    def labels(self, rows: Rows) -> list[np.ndarray]:
        """What TFMA takes for the truth of each row."""
        raise NotImplementedError

    def lengths(self, features: Answer) -> np.ndarray:
        """Tokens of each row `[rows] int`, from the candidate's signature `transform_features`."""
        raise NotImplementedError

    def predictions(self, model: str, answer: Answer) -> Sequence[np.ndarray]:
        """What TFMA takes for each row's prediction."""
        raise NotImplementedError

    def slices(self, rows: Rows, lengths: np.ndarray) -> dict[str, list[str]]:
        """Feature → the slice of each row: the band of its length and, where one is named, its value of `slice`."""
        found = {LENGTH: bands(lengths, self.evaluation["length_bands"], least=1)}
        if self.slice:
            found[self.slice] = [text(row, self.slice) or NO_VALUE for row in rows]
        return found

    def slicing(self) -> list[tuple[str, ...]]:
        """The features that slice, alone or crossed; the empty tuple is the whole split."""
        return list(dict.fromkeys([(), (LENGTH,), *([(self.slice,)] if self.slice else [])]))

    def samples(self, rows: Rows, answer: Answer) -> Iterator[dict[str, Any]]:
        """Rows for a person to read, with the candidate's answer; none by default."""
        return iter(())

    def keep(self, samples: beam.PCollection, candidate: str) -> dict[str, beam.PCollection]:
        """Kind of `sample_kinds` → a PCollection with one list, the samples that are kept; `candidate` is a folder."""
        return {}

    def details(self, folder: str) -> dict[str, Any]:
        """What verdict.json says beside metrics and slices, from TFMA's files in `folder`."""
        return {}


def text(row: Any, name: str) -> str:
    """The value of a string feature of a tf.Example; "" if it has none."""
    values = row[name].bytes_list.value
    return values[0].decode("utf-8") if values else ""


class Predict(beam.DoFn):
    """A batch of serialized tf.Examples → one TFMA extract each, and samples as another output.

    All models are loaded once a process. Lengths are the candidate's, whose bands slice both models alike.
    """

    def __init__(self, judge: Judge, models: Mapping[str, str]):
        """Takes what is read once a process; the arguments are those of `evaluate`."""
        self._judge, self._folders = judge, dict(models)
        self._shared = shared.Shared()

    def setup(self) -> None:
        self._models = self._shared.acquire(
            lambda: _Models({name: tf.saved_model.load(folder) for name, folder in self._folders.items()}))

    def process(self, batch: list[bytes]) -> Iterator[Any]:
        judge, candidate = self._judge, tfma.CANDIDATE_KEY
        rows = [tf.train.Example.FromString(record).features.feature for record in batch]
        labels = judge.labels(rows)
        records = tf.constant(batch)
        features = self._models[candidate].signatures["transform_features"](examples=records)
        lengths = judge.lengths({name: value.numpy() for name, value in features.items()})
        answers = {name: self._ask(name, records, lengths) for name in self._folders}
        predictions = {name: judge.predictions(name, answer) for name, answer in answers.items()}
        slices = judge.slices(rows, lengths)
        for index, record in enumerate(batch):
            of_row = {name: values[index] for name, values in predictions.items()}
            yield {
                tfma.INPUT_KEY: record,
                tfma.LABELS_KEY: labels[index],
                # TFMA keys predictions by model only where there are several.
                tfma.PREDICTIONS_KEY: of_row if len(of_row) > 1 else of_row[candidate],
                tfma.FEATURES_KEY: {name: np.array([values[index]]) for name, values in slices.items()},
            }
        for sample in judge.samples(rows, answers[candidate]):
            yield beam.pvalue.TaggedOutput(SAMPLES, sample)

    def _ask(self, name: str, records: tf.Tensor, lengths: np.ndarray) -> Answer:
        """A model's answers to all rows, each output `[rows, …]`; similar lengths share a call."""
        signature = self._models[name].signatures["examples"]
        order, parts = [], []
        for call in bounded_calls(lengths.tolist(), self._judge.call_tokens):
            answer = signature(examples=tf.gather(records, call))
            parts.append({output: answer[output].numpy() for output in self._judge.outputs if output in answer})
            order += call
        back = np.argsort(order)
        return {output: np.concatenate([part[output] for part in parts])[back] for output in parts[0]}


class _Models(dict):
    """A dict that `shared.Shared` can hold: it keeps weak references, which plain dicts do not have."""


def evaluate(pipeline: beam.Pipeline, pattern: str, models: Mapping[str, str], judge: Judge, output: str) -> None:
    """Adds the judging of one split to a Beam pipeline; TFMA's files and the samples are in `output` once it has run.

    Args:
        pipeline: the pipeline to add to.
        pattern: TFRecord files of the serialized tf.Examples that the signature `examples` takes.
        models: model name → SavedModel folder; `tfma.CANDIDATE_KEY` and, where one is served, `tfma.BASELINE_KEY`.
        judge: of the models' shape.
        output: folder for TFMA's results and, in `samples/KIND.jsonl`, for what `Judge.keep` keeps.
    """
    config = _eval_config(list(models), judge)
    eval_models = [tfma.EvalSharedModel(model_path=folder, model_name=name, include_default_metrics=False)
                   for name, folder in models.items()]
    answered = (
        pipeline
        | "Read" >> beam.io.ReadFromTFRecord(pattern)
        | "Batch" >> beam.BatchElements(min_batch_size=ROWS, max_batch_size=ROWS)
        | "Predict" >> beam.ParDo(Predict(judge, models)).with_outputs(SAMPLES, main="judged")
    )
    _ = (
        answered.judged
        | "Type" >> beam.Map(lambda extract: extract).with_output_types(tfma.Extracts)
        | "Judge" >> tfma.ExtractEvaluateAndWriteResults(
            eval_config=config, eval_shared_model=eval_models if len(eval_models) > 1 else eval_models[0],
            extractors=[slice_key_extractor.SliceKeyExtractor(eval_config=config, materialize=False)],
            output_path=output)
    )
    for kind, kept in judge.keep(answered[SAMPLES], models[tfma.CANDIDATE_KEY]).items():
        _ = (
            kept
            | f"Lines of {kind}" >> beam.Map(_as_lines)
            | f"Write {kind}" >> beam.io.WriteToText(os.path.join(output, SAMPLES, f"{kind}.jsonl"), num_shards=1,
                                                     shard_name_template="")
        )


def _as_lines(samples: list[dict[str, Any]]) -> str:
    return "\n".join(json.dumps(sample, ensure_ascii=False) for sample in samples)


def _eval_config(models: Sequence[str], judge: Judge) -> EvalConfig:
    config = EvalConfig(
        model_specs=[ModelSpec(name=name, is_baseline=name == tfma.BASELINE_KEY) for name in models],
        metrics_specs=[MetricsSpec(
            model_names=models if len(models) > 1 else None,
            metrics=[MetricConfig(class_name="ExampleCount", config=json.dumps({"name": "examples"})),
                     *judge.metrics()])],
        slicing_specs=[SlicingSpec(feature_keys=features) for features in judge.slicing()])
    # Confidence intervals would count every example again for each of 20 resamplings.
    config.options.compute_confidence_intervals.CopyFrom(wrappers_pb2.BoolValue(value=False))
    return config


def own_metric(metric: type, **config: Any) -> MetricConfig:
    """A metric of this project: named with its module, TFMA finds it on every worker without being told of it."""
    return MetricConfig(class_name=metric.__name__, module=metric.__module__, config=json.dumps(config))


def read_results(folder: str, judge: Judge) -> dict[str, Any]:
    """The values in TFMA's files.

    Args:
        folder: what `evaluate` wrote.
        judge: as it was given there.

    Returns:
        examples, metrics, baseline_metrics (None without a baseline; NaN where not a number), intervals (the ends of
        95% confidence, of the metrics that have some), slices and the judge's details, as in verdict.json. A metric
        of a value of the judge's `slice` is also among the metrics, as `METRIC/VALUE`.
    """
    found: dict[tuple[str, str], dict[str, float]] = {}  # (slice, model) → metric → value
    for record in tfma.load_metrics(folder):
        for item in record.metric_keys_and_values:
            if not item.key.is_diff:
                found.setdefault((slice_name(record), item.key.model_name or tfma.CANDIDATE_KEY), {})[
                    item.key.name] = item.value.double_value.value
    counts = {name: values.pop("examples") for name, values in found.items()}
    intervals = {name: take_intervals(values) for name, values in found.items()}
    slices = sorted((name for name, model in found if name and model == tfma.CANDIDATE_KEY), key=reading_order)
    metrics = {model: _with_values(found, model, judge.slice) for _, model in found}
    return {
        "examples": int(counts["", tfma.CANDIDATE_KEY]),
        "metrics": metrics[tfma.CANDIDATE_KEY],
        "baseline_metrics": metrics.get(tfma.BASELINE_KEY),
        "intervals": intervals["", tfma.CANDIDATE_KEY],
        "slices": [{"slice": name, "examples": int(counts[name, tfma.CANDIDATE_KEY]),
                    "metrics": {key: number(value) for key, value in found[name, tfma.CANDIDATE_KEY].items()},
                    "intervals": intervals[name, tfma.CANDIDATE_KEY]} for name in slices],
        **judge.details(folder),
    }


def _with_values(found: Mapping[tuple[str, str], Mapping[str, float]], model: str,
                 column: str | None) -> dict[str, float]:
    """A model's metrics of the whole split, and each one's `METRIC/VALUE` for the values of the slicing column."""
    metrics = dict(found["", model])
    for (name, of), values in found.items():
        feature, equals, value = name.partition("=")
        if column and equals and feature == column and of == model:
            metrics.update({f"{key}/{value}": number for key, number in values.items() if "/" not in key})
    return metrics


def slice_name(record: Any) -> str:
    """The slice of one of TFMA's records: `column=value` or several with a comma between; "" for the whole split."""
    return ", ".join(f"{part.column}={part.bytes_value.decode('utf-8')}" for part in record.slice_key.single_slice_keys)
