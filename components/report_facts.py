"""What a report tells of one run, read from the artifacts that the run made, wherever they lie.

A run that a gate stopped has fewer of them, and its facts are fewer.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from components import environment
from components.anomaly_gate import REPORT as GATE_REPORT
from components.anomaly_gate import schema_findings
from components.report_rows import Each, Histogram, Pieces, Rows, Task, Words, measure_all, split_files
from components.rows import ROLES, SPLITS
from components.run_record import Artifact, Run
from components.schema_gen import label_counts
from components.splits_writer import SKIPPED
from components.verdict import CALIBRATION, VERDICT_FILE, load_samples, load_verdict

SKIPPED_SHOWN = 5       # Examples of rows that were left out.
PICTURED = (4, 16)      # Tokens, special ones included, of a text whose attention is readable.
MAPS = 3
STACK, MACHINE = "stack", "machine"   # Properties of a ModelRun: what it was trained with.


@dataclass(frozen=True)
class DataFacts:
    """What the rows are like.

    Attributes:
        rows: split → rows written.
        labels: split → label → rows; empty without a label.
        characters: column with text → lengths, of the training split.
        tokens: column or columns with text → lengths, special tokens included, of the training split, before any cut.
        limit: tokens of the longest text that the model reads; 0 if not known.
        how: what `limit` does: "cut" to longer texts, "leave out" their rows, or "pack" texts up to it.
        limit_name: the key of the settings that it has.
        pieces: column or columns with text → what of an encoder's vocabulary the training split uses.
        coverage: column with text → the report of the vocabulary that was learned from it.
        instances: split → what examples were made of its documents, in numbers; empty but for pretraining.
        skipped: reason → rows that were left out when reading.
        skipped_rows: the first of them: file, line, reason and the row's beginning.
        dropped: split → rows left out for a text above `limit`.
        longest: tokens and texts of some of the training split's, the longest first.
        anomalies: split, feature and reason of what did not fit the schema, and whether it was accepted.
        duplicates: (split, other split) → rows of the first whose texts also stand in the other.
        repeated: split → rows whose text stands in another row of it.
        estimated: whether duplicates are of a sample of the texts, there being very many.
        empty: split → column → share of texts that are blank.
    """

    rows: Mapping[str, int]
    labels: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    characters: Mapping[str, Histogram] = field(default_factory=dict)
    tokens: Mapping[str, Histogram] = field(default_factory=dict)
    limit: int = 0
    how: str = "cut"
    limit_name: str = ""
    pieces: Mapping[str, Pieces] = field(default_factory=dict)
    coverage: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    instances: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    skipped: Mapping[str, int] = field(default_factory=dict)
    skipped_rows: Sequence[Mapping[str, Any]] = ()
    dropped: Mapping[str, int] = field(default_factory=dict)
    longest: Sequence[tuple[int, tuple[str, ...]]] = ()
    anomalies: Sequence[tuple[str, str, str, bool]] = ()
    duplicates: Mapping[tuple[str, str], int] = field(default_factory=dict)
    repeated: Mapping[str, int] = field(default_factory=dict)
    estimated: bool = False
    empty: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingFacts:
    """How training went.

    Attributes:
        history: what the training loop wrote down: rounds, best round, seconds.
        curves: TensorBoard's name of a number → steps and values.
        tokens: of the training split, without padding; 0 if not known.
        bucketed: the same with the padding of length buckets.
        fixed: the same padded to the longest text allowed.
    """

    history: Mapping[str, Any]
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    tokens: int = 0
    bucketed: int = 0
    fixed: int = 0


@dataclass(frozen=True)
class AttentionMap:
    """What a translator looked at, the mean of the heads of its last layer.

    Attributes:
        source: tokens of the text.
        target: tokens of the translation.
        weights: [target, source] shares; those of a target token sum to 1.
    """

    source: Sequence[str]
    target: Sequence[str]
    weights: np.ndarray


@dataclass(frozen=True)
class QualityFacts:
    """How the model was judged.

    Attributes:
        verdict: as `components.verdict` describes it.
        samples: kind → rows for a person to read.
        calibration: bands of confidence, each with `examples`, `confidence` (mean) and `accuracy`.
        attention: maps of some sentences, of a translator.
    """

    verdict: Mapping[str, Any]
    samples: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    calibration: Sequence[Mapping[str, float]] = ()
    attention: Sequence[AttentionMap] = ()


@dataclass(frozen=True)
class Facts:
    """All that a report tells.

    Attributes:
        name: of the run.
        run: what ML Metadata has of it.
        settings: in force, nested as in a settings file.
        command: what repeats the run.
        stack: package → version, of the environment that trained the model or, if it was not, wrote the report.
        machine: where that was.
        written: when.
        data: none if no rows were read.
        training: none if nothing was trained.
        quality: none if nothing was judged.
        before: the run that was started before this one, if there was one.
    """

    name: str
    run: Run
    settings: Mapping[str, Any]
    command: str
    stack: Mapping[str, str]
    machine: str
    written: datetime.datetime
    data: DataFacts | None = None
    training: TrainingFacts | None = None
    quality: QualityFacts | None = None
    before: Run | None = None


def gather(name: str, run: Run, settings: Mapping[str, Any], command: str, each: Each = map,
           before: Run | None = None) -> Facts:
    """Reads what a run left behind.

    Args:
        name: of the run.
        run: what ML Metadata has of it.
        settings: in force, nested as in a settings file.
        command: what repeats the run.
        each: applies a function to all files of rows; see `report_rows.measure_all`.
        before: the run that was started before this one.
    """
    limit = _limit(settings)
    rows = measure_all(_tasks(run, settings, limit), each)
    trained = run.artifact("Trainer", "model_run")
    known = trained.properties if trained else {}
    return Facts(name, run, settings, command, json.loads(known.get(STACK, "null")) or environment.versions(),
                 known.get(MACHINE) or environment.machine(), datetime.datetime.now(),
                 _data(run, settings, rows, limit), _training(run, settings, rows, limit), _quality(run), before)


def _there(artifact: Artifact | None) -> str:
    """The artifact's folder; "" if there is none, or not any more."""
    return artifact.uri if artifact and tf.io.gfile.isdir(artifact.uri) else ""


def _json(path: str) -> Any:
    if not tf.io.gfile.exists(path):
        return {}
    with tf.io.gfile.GFile(path) as file:
        return json.load(file)


def _bytes(path: str) -> bytes:
    with tf.io.gfile.GFile(path, "rb") as file:
        return file.read()


# Data.


class Limit(NamedTuple):
    """How long a text may be: tokens, what that does to longer ones, and its key. See `DataFacts`."""

    tokens: int = 0
    how: str = "cut"
    name: str = ""


def _limit(settings: Mapping[str, Any]) -> Limit:
    for section, key, how in (("instances", "max_length", "pack"), ("model", "max_length", "cut"),
                              ("model", "max_tokens", "leave out")):
        if value := settings.get(section, {}).get(key):
            return Limit(value, how, key)
    return Limit()


def _tasks(run: Run, settings: Mapping[str, Any], limit: Limit) -> list[Task]:
    """The files of rows, and of a pretraining those of its examples."""
    told = settings["data"]
    by_role = {role: told[role] for role, one in ROLES.items() if one.text and told.get(role)}
    read = tuple(name for role, name in by_role.items() if ROLES[role].read)
    words = _words(run, by_role)
    tasks = [Task(path, split, tuple(by_role.values()), read, words, limit.tokens, limit.how == "cut")
             for split, files in split_files(_there(run.artifact("ExampleGen", "examples"))).items() for path in files]
    instances = split_files(_there(run.artifact("InstanceGen", "transformed_examples")))
    return tasks + [Task(path, "train") for path in instances.get("train", ())]


def _words(run: Run, columns: Mapping[str, str]) -> dict[str, Words]:
    """What a person calls the sequences that a model reads → how they are made of the columns; of a pair one is."""
    encoder = _there(run.artifact("EncoderImporter", "encoder"))
    vocabulary = _there(run.artifact("VocabularyGen", "vocabulary"))
    if run.step("InstanceGen"):   # A document is no sequence.
        return {}
    if encoder and tf.io.gfile.exists(os.path.join(encoder, "vocab.txt")):
        return {" + ".join(columns.values()): Words("bert", encoder, tuple(columns.values()))}
    if vocabulary:
        return {columns[role]: Words("subwords", os.path.join(vocabulary, side), (columns[role],))
                for role, side in (("text", "source"), ("target", "target"))}
    return {}


def _data(run: Run, settings: Mapping[str, Any], rows: Rows, limit: Limit) -> DataFacts | None:
    examples = run.artifact("ExampleGen", "examples")
    if examples is None:
        return None
    label = settings["data"].get("label")
    written = _counts(examples, "rows")
    vocabulary = _there(run.artifact("VocabularyGen", "vocabulary"))
    gate = _json(os.path.join(_there(run.artifact("AnomalyGate", "blessing")), GATE_REPORT))
    skipped, skipped_rows = _skipped(_there(examples))
    instances = run.artifact("InstanceGen", "transformed_examples")
    made = {name: _counts(instances, name) for name in ("documents", "sentences", "instances", "tokens", "short",
                                                         "swapped")} if instances else {}
    return DataFacts(
        rows=written, labels=_labels(_there(run.artifact("StatisticsGen", "statistics")), label),
        characters=rows.characters, tokens={"examples" if name == "token_ids" else name: lengths
                                            for name, lengths in rows.tokens.items()},
        limit=limit.tokens, how=limit.how, limit_name=limit.name, pieces=rows.pieces,
        coverage={settings["data"].get("target" if side == "target" else "text", side): report for side, report in
                  (_json(os.path.join(vocabulary, "report.json")) if vocabulary else {}).items()},
        instances={split: {name: counts.get(split, 0) for name, counts in made.items()}
                   for split in written} if instances else {},
        skipped=skipped, skipped_rows=skipped_rows,
        dropped=_counts(run.artifact("TextTransform", "transformed_examples"), "dropped"), longest=rows.left_out,
        anomalies=_anomalies(_there(run.artifact("ExampleValidator", "anomalies")), label, gate),
        duplicates=rows.shared(SPLITS), repeated={split: one.repeated for split, one in rows.digests.items()},
        estimated=rows.estimated, empty=gate.get("empty_text", {}))


def _counts(artifact: Artifact | None, what: str) -> dict[str, int]:
    """Split → number, of the properties `WHAT_SPLIT`, in the order in which splits are named."""
    properties = artifact.properties if artifact else {}
    return {split: int(properties[f"{what}_{split}"]) for split in SPLITS if f"{what}_{split}" in properties}


def _labels(folder: str, label: str | None) -> dict[str, dict[str, int]]:
    from tensorflow_metadata.proto.v0 import statistics_pb2

    found = {split: label_counts(statistics_pb2.DatasetFeatureStatisticsList.FromString(_bytes(files[0])), label)
             for split, files in split_files(folder).items() if label}
    return {split: found[split] for split in SPLITS if split in found}


def _anomalies(folder: str, label: str | None, gate: Mapping[str, Any]) -> list[tuple[str, str, str, bool]]:
    from tensorflow_metadata.proto.v0 import anomalies_pb2

    accepted = {(one["split"], one["feature"]) for one in gate.get("accepted", ())}
    return [(split, one.feature, one.reason, (split, one.feature) in accepted)
            for split, files in split_files(folder).items()
            for one in schema_findings(split, anomalies_pb2.Anomalies.FromString(_bytes(files[0])), label)]


def _skipped(folder: str) -> tuple[dict[str, int], list[dict[str, Any]]]:
    path, reasons = os.path.join(folder, SKIPPED), Counter[str]()
    shown: list[dict[str, Any]] = []
    if folder and tf.io.gfile.exists(path):
        with tf.io.gfile.GFile(path) as file:
            for row in map(json.loads, file):
                reasons[row["reason"]] += 1
                if reasons[row["reason"]] <= 1 or len(shown) < SKIPPED_SHOWN:
                    shown.append(row)
    return dict(reasons.most_common()), shown[:2 * SKIPPED_SHOWN]


# Training.


def _training(run: Run, settings: Mapping[str, Any], rows: Rows, limit: Limit) -> TrainingFacts | None:
    folder = _there(run.artifact("Trainer", "model_run"))
    history = _json(os.path.join(folder, "history.json")) if folder else {}
    if not history:
        return None
    return TrainingFacts(history, _curves(folder), *_padding(settings, rows, limit))


def _curves(folder: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The numbers in TensorBoard's files, by name. A resumed training wrote several, the later one wins a step."""
    from tensorflow.compat.v1 import Event, make_ndarray

    points: dict[str, dict[int, float]] = {}
    for path in _event_files(folder):
        with contextlib.suppress(tf.errors.DataLossError):   # The end of a file whose writer was killed.
            for record in tf.data.TFRecordDataset(path).as_numpy_iterator():
                event = Event.FromString(record)
                for value in event.summary.value:
                    if value.HasField("tensor") and not value.tensor.tensor_shape.dim:
                        points.setdefault(value.tag, {})[event.step] = float(make_ndarray(value.tensor))
    return {name: (np.array(sorted(found)), np.array([found[step] for step in sorted(found)]))
            for name, found in points.items()}


def _event_files(folder: str) -> Iterator[str]:
    for place, _, names in sorted(tf.io.gfile.walk(folder)):
        yield from (os.path.join(place, name) for name in sorted(names) if name.startswith("events.out.tfevents."))


def _padding(settings: Mapping[str, Any], rows: Rows, limit: Limit) -> tuple[int, int, int]:
    """Tokens of the training split: without padding, with that of its buckets, and padded to the limit."""
    from modules.batching import Buckets

    training = settings.get("training", {})
    if not rows.trained.rows or not limit.tokens or "bucket_step" not in training:
        return 0, 0, 0
    sequences = len(rows.tokens)
    buckets = Buckets.of_run(training, limit.tokens, replicas=1, texts=sequences)
    lengths = rows.trained.cut(limit.tokens)
    counts = np.bincount(np.searchsorted(buckets.lengths, lengths.values), lengths.counts, len(buckets.lengths))
    return (rows.trained_tokens, buckets.padded(counts.astype(int).tolist()),
            sequences * lengths.rows * limit.tokens)


# Quality.


def _quality(run: Run) -> QualityFacts | None:
    folder = _there(run.artifact("Evaluator", "evaluation"))
    if not folder or not tf.io.gfile.exists(os.path.join(folder, VERDICT_FILE)):
        return None
    samples = load_samples(folder)
    calibration = samples.pop(CALIBRATION, [])
    model = _there(run.artifact("Trainer", "model"))
    return QualityFacts(load_verdict(folder), samples, calibration, _attention(model, samples) if model else ())


def _attention(model: str, samples: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[AttentionMap]:
    """What a translator looks at in some sentences that were kept; nothing of another model."""
    folder = os.path.join(model, "Format-Serving")
    texts = [row["source"] for kind in ("random", "worst") for row in samples.get(kind, ()) if "source" in row]
    if not texts or not tf.io.gfile.exists(os.path.join(folder, "saved_model.pb")):
        return []
    import tensorflow_text  # noqa: F401  registers ops that the model uses

    signatures = tf.saved_model.load(folder).signatures
    if "attention" not in signatures:
        return []
    found = []
    for text in dict.fromkeys(texts):
        answer = signatures["attention"](tf.constant([text]))
        source, target = ([token.decode() for token in answer[f"{side}_tokens"][0].numpy()]
                          for side in ("source", "target"))
        if PICTURED[0] <= len(source) <= PICTURED[1] and PICTURED[0] <= len(target) <= PICTURED[1]:
            found.append(AttentionMap(source, target, answer["attention"][0, -1].numpy().mean(axis=0)))
        if len(found) == MAPS:
            break
    return found


def calibration_error(bands: Sequence[Mapping[str, float]]) -> float:
    """Expected calibration error: mean distance of confidence and accuracy, by examples (Naeini et al., 2015)."""
    total = sum(band["examples"] for band in bands)
    return sum(band["examples"] * abs(band["confidence"] - band["accuracy"]) for band in bands) / max(1, total)
