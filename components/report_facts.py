"""What a report tells of one run, read from the artifacts that the run made.

A run that a gate stopped has fewer of them, and its facts are fewer. Rows are read up to `ROWS` a split, so that a
report stays a matter of seconds however large the data are; `DataFacts.whole` says whether that was all.
"""

from __future__ import annotations

import contextlib
import datetime
import glob
import hashlib
import importlib.metadata
import json
import math
import os
import platform
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from components.anomaly_gate import REPORT as GATE_REPORT
from components.anomaly_gate import schema_findings
from components.rows import SPLITS
from components.run_record import Artifact, Run
from components.schema_gen import label_counts
from components.splits_writer import SKIPPED
from components.tfrecords import read_records
from components.verdict import CALIBRATION, VERDICT_FILE, load_samples, load_verdict
from modules.errors import TextrailError

ROWS = 50_000
SKIPPED_SHOWN = 5       # Examples of rows that were left out.
TEXTS = ("text", "text_pair", "target")
STACK = ("tfx", "tensorflow", "tensorflow-text", "keras", "apache-beam", "ml-metadata", "numpy")
PICTURED = (4, 16)      # Tokens, special ones included, of a text whose attention is readable.
MAPS = 3
UNKNOWN = "[UNK]"


@dataclass(frozen=True)
class DataFacts:
    """What the rows are like.

    Attributes:
        rows: split → rows written.
        labels: split → label → rows; empty without a label.
        characters: column with text → [rows] int lengths, of the training split.
        tokens: column or columns with text → [rows] int lengths, special tokens included, of the training split.
        limit: tokens of the longest text that the model reads.
        cuts: whether longer texts are cut, else they are left out.
        unknown: column or columns with text → share of tokens that an encoder's vocabulary lacks.
        coverage: side of a learned vocabulary → its report.
        skipped: reason → rows that were left out when reading.
        skipped_rows: the first of them: file, line, reason and the row's beginning.
        dropped: split → rows left out for a text above `limit`.
        anomalies: split, feature and reason of what did not fit the schema, and whether it was accepted.
        duplicates: (split, other split) → rows of the first whose texts also stand in the other.
        empty: split → column → share of texts that are blank.
        whole: whether all rows were looked at for lengths and duplicates.
    """

    rows: Mapping[str, int]
    labels: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    characters: Mapping[str, np.ndarray] = field(default_factory=dict)
    tokens: Mapping[str, np.ndarray] = field(default_factory=dict)
    limit: int = 0
    cuts: bool = True
    unknown: Mapping[str, float] = field(default_factory=dict)
    coverage: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    skipped: Mapping[str, int] = field(default_factory=dict)
    skipped_rows: Sequence[Mapping[str, Any]] = ()
    dropped: Mapping[str, int] = field(default_factory=dict)
    anomalies: Sequence[tuple[str, str, str, bool]] = ()
    duplicates: Mapping[tuple[str, str], int] = field(default_factory=dict)
    empty: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    whole: bool = True


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
        stack: package → version, of the environment that wrote the report.
        machine: where that was.
        written: when.
        data: none if no rows were read.
        training: none if nothing was trained.
        quality: none if nothing was judged.
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


def gather(name: str, run: Run, settings: Mapping[str, Any], command: str) -> Facts:
    """Reads what a run left behind.

    Args:
        name: of the run.
        run: what ML Metadata has of it.
        settings: in force, nested as in a settings file.
        command: what repeats the run.
    """
    data = _data(run, settings)
    return Facts(name, run, settings, command, _stack(), _machine(), datetime.datetime.now(), data,
                 _training(run, settings, data), _quality(run))


def _stack() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in STACK:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _machine() -> str:
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"


def _there(artifact: Artifact | None) -> str:
    """The artifact's folder; "" if there is none, or not any more."""
    return artifact.uri if artifact and os.path.isdir(artifact.uri) else ""


def _json(path: str) -> Any:
    if not os.path.exists(path):
        return {}
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def _splits(folder: str) -> dict[str, list[str]]:
    """Split → its files."""
    return {os.path.basename(path).removeprefix("Split-"): sorted(glob.glob(os.path.join(glob.escape(path), "*")))
            for path in sorted(glob.glob(os.path.join(glob.escape(folder), "Split-*")))}


def _examples(files: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """The first rows of a split as features of tf.Examples."""
    import tensorflow as tf

    records = (record.data for path in files for record in read_records(path))
    for data in islice(records, ROWS):
        yield tf.train.Example.FromString(data).features.feature


# Data.


def _data(run: Run, settings: Mapping[str, Any]) -> DataFacts | None:
    examples = run.artifact("ExampleGen", "examples")
    if examples is None:
        return None
    rows = {name.removeprefix("rows_"): int(count) for name, count in examples.properties.items()
            if name.startswith("rows_")}
    rows = {split: rows[split] for split in SPLITS if split in rows}
    told, folder = settings["data"], _there(examples)
    columns = [told[role] for role in TEXTS if told.get(role)]
    characters, duplicates = _texts(_splits(folder), columns) if folder else ({}, {})
    transformed = run.artifact("TextTransform", "transformed_examples")
    vocabulary = _there(run.artifact("VocabularyGen", "vocabulary"))
    # What tokens were made of is what a person knows: of a pair the two texts are one sequence.
    names = {"source_ids": told.get("text"), "target_ids": told.get("target"),
             "token_ids": " + ".join(told[role] for role in TEXTS if told.get(role))}
    tokens, unknown = _tokens(_there(transformed), _there(run.artifact("EncoderImporter", "encoder")))
    dropped = {name.removeprefix("dropped_"): int(count) for name, count in
               (transformed.properties if transformed else {}).items() if name.startswith("dropped_") and count}
    gate = _json(os.path.join(_there(run.artifact("AnomalyGate", "blessing")), GATE_REPORT))
    skipped, skipped_rows = _skipped(folder)
    model = settings.get("model", {})
    return DataFacts(
        rows=rows, labels=_labels(_there(run.artifact("StatisticsGen", "statistics")), told.get("label")),
        characters=characters, tokens={names.get(name, name): lengths for name, lengths in tokens.items()},
        limit=model.get("max_length") or model.get("max_tokens") or 0,
        cuts="max_length" in model, unknown={names.get(name, name): share for name, share in unknown.items()},
        coverage=_json(os.path.join(vocabulary, "report.json")) if vocabulary else {}, skipped=skipped,
        skipped_rows=skipped_rows, dropped=dropped,
        anomalies=_anomalies(_there(run.artifact("ExampleValidator", "anomalies")), told.get("label"), gate),
        duplicates=duplicates, empty=gate.get("empty_text", {}), whole=max(rows.values(), default=0) <= ROWS)


def _texts(splits: Mapping[str, Sequence[str]], columns: Sequence[str]
           ) -> tuple[dict[str, np.ndarray], dict[tuple[str, str], int]]:
    """Lengths of the training split's texts, and rows that stand in two splits, told by hashes of their texts."""
    lengths: dict[str, list[int]] = {name: [] for name in columns}
    hashes: dict[str, Counter[bytes]] = {}
    for split, files in splits.items():
        hashes[split] = Counter()
        for features in _examples(files):
            texts = [b"".join(features[name].bytes_list.value) for name in columns]
            hashes[split][hashlib.blake2b(b"\0".join(texts), digest_size=8).digest()] += 1
            if split == "train":
                for name, text in zip(columns, texts, strict=True):
                    lengths[name].append(len(text.decode("utf-8", "replace")))
    order = [split for split in SPLITS if split in hashes]
    duplicates = {(split, other): sum(count for key, count in hashes[split].items() if key in hashes[other])
                  for place, other in enumerate(order) for split in order[place + 1:]}
    return {name: np.array(found) for name, found in lengths.items() if found}, duplicates


def _tokens(folder: str, encoder: str) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Lengths of the training split's token ids and, by an encoder's vocabulary, the share of unknown ones."""
    unknown_id = _unknown_id(encoder)
    lengths: dict[str, list[int]] = {}
    unknown: Counter[str] = Counter()
    for features in _examples(_splits(folder).get("train", []) if folder else []):
        for name, feature in features.items():
            base = name.partition("$")[0]
            if base.endswith("_ids"):
                ids = feature.int64_list.value
                lengths.setdefault(base, []).append(len(ids))
                unknown[base] += sum(one == unknown_id for one in ids)
    arrays = {name: np.array(lengths[name]) for name in sorted(lengths)}   # source before target
    shares = {name: unknown[name] / max(1, int(array.sum())) for name, array in arrays.items()}
    return arrays, shares if unknown_id is not None else {}


def _unknown_id(encoder: str) -> int | None:
    path = os.path.join(encoder, "vocab.txt")
    if not encoder or not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as file:
        return next((number for number, line in enumerate(file) if line.rstrip("\n") == UNKNOWN), None)


def _labels(folder: str, label: str | None) -> dict[str, dict[str, int]]:
    from tensorflow_metadata.proto.v0 import statistics_pb2

    found = {}
    for split, files in _splits(folder).items() if folder and label else ():
        proto = statistics_pb2.DatasetFeatureStatisticsList()
        with open(files[0], "rb") as file:
            proto.ParseFromString(file.read())
        found[split] = label_counts(proto, label or "")
    return {split: found[split] for split in SPLITS if split in found}


def _anomalies(folder: str, label: str | None, gate: Mapping[str, Any]) -> list[tuple[str, str, str, bool]]:
    from tensorflow_metadata.proto.v0 import anomalies_pb2

    accepted = {(one["split"], one["feature"]) for one in gate.get("accepted", ())}
    found = []
    for split, files in _splits(folder).items() if folder else ():
        with open(files[0], "rb") as file:
            proto = anomalies_pb2.Anomalies.FromString(file.read())
        found += [(split, one.feature, one.reason, (split, one.feature) in accepted)
                  for one in schema_findings(split, proto, label)]
    return found


def _skipped(folder: str) -> tuple[dict[str, int], list[dict[str, Any]]]:
    path, reasons = os.path.join(folder, SKIPPED), Counter[str]()
    shown: list[dict[str, Any]] = []
    if folder and os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            for row in map(json.loads, file):
                reasons[row["reason"]] += 1
                if reasons[row["reason"]] <= 1 or len(shown) < SKIPPED_SHOWN:
                    shown.append(row)
    return dict(reasons.most_common()), shown[:2 * SKIPPED_SHOWN]


# Training.


def _training(run: Run, settings: Mapping[str, Any], data: DataFacts | None) -> TrainingFacts | None:
    folder = _there(run.artifact("Trainer", "model_run"))
    history = _json(os.path.join(folder, "history.json")) if folder else {}
    if not history:
        return None
    return TrainingFacts(history, _curves(folder), *_padding(settings, data))


def _curves(folder: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The numbers in TensorBoard's files, by name. A resumed training wrote several, the later one wins a step."""
    from tensorflow.compat.v1 import Event, make_ndarray

    points: dict[str, dict[int, float]] = {}
    for path in sorted(glob.glob(os.path.join(glob.escape(folder), "**", "events.out.tfevents.*"), recursive=True)):
        with contextlib.suppress(TextrailError):   # The end of a file whose writer was killed.
            for record in read_records(path):
                event = Event.FromString(record.data)
                for value in event.summary.value:
                    if value.HasField("tensor") and not value.tensor.tensor_shape.dim:
                        points.setdefault(value.tag, {})[event.step] = float(make_ndarray(value.tensor))
    return {name: (np.array(sorted(found)), np.array([found[step] for step in sorted(found)]))
            for name, found in points.items()}


def _padding(settings: Mapping[str, Any], data: DataFacts | None) -> tuple[int, int, int]:
    """Tokens of the training split: without padding, with that of its buckets, and padded to the limit."""
    from modules.batching import Buckets

    training = settings.get("training", {})
    if data is None or not data.tokens or not data.limit or "bucket_step" not in training:
        return 0, 0, 0
    sides = np.stack(list(data.tokens.values()))  # [texts, rows]
    texts, rows = sides.shape
    buckets = Buckets.of(data.limit, training["bucket_step"], training["batch_tokens"], training["max_batch"],
                         texts=texts)
    longest = np.minimum(sides.max(axis=0), data.limit)  # [rows]
    counts = np.bincount(np.searchsorted(buckets.lengths, longest), minlength=len(buckets.lengths))
    return int(sides.sum()), buckets.padded(counts.tolist()), texts * rows * data.limit


# Quality.


def _quality(run: Run) -> QualityFacts | None:
    folder = _there(run.artifact("Evaluator", "evaluation"))
    if not folder or not os.path.exists(os.path.join(folder, VERDICT_FILE)):
        return None
    samples = load_samples(folder)
    calibration = samples.pop(CALIBRATION, [])
    model = _there(run.artifact("Trainer", "model"))
    return QualityFacts(load_verdict(folder), samples, calibration, _attention(model, samples) if model else ())


def _attention(model: str, samples: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[AttentionMap]:
    """What a translator looks at in some sentences that were kept; nothing of another model."""
    folder = os.path.join(model, "Format-Serving")
    texts = [row["source"] for kind in ("random", "worst") for row in samples.get(kind, ()) if "source" in row]
    if not texts or not os.path.exists(os.path.join(folder, "saved_model.pb")):
        return []
    import tensorflow as tf
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


def wilson(share: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """The 95% confidence interval of a share that was counted (Wilson, 1927).

    Example:
        >>> [round(end, 4) for end in wilson(0.9, 100)]
        [0.8256, 0.9448]
    """
    if not count:
        return 0.0, 1.0
    centre = share + z * z / (2 * count)
    spread = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, (centre - spread) / (1 + z * z / count)), min(1.0, (centre + spread) / (1 + z * z / count))


def calibration_error(bands: Sequence[Mapping[str, float]]) -> float:
    """Expected calibration error: mean distance of confidence and accuracy, by examples (Naeini et al., 2015)."""
    total = sum(band["examples"] for band in bands)
    return sum(band["examples"] * abs(band["confidence"] - band["accuracy"]) for band in bands) / max(1, total)
