"""AnomalyGate: ends the run before training when the data is not what the schema and the settings allow."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from tensorflow_metadata.proto.v0 import anomalies_pb2, statistics_pb2
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types.standard_artifacts import ExampleAnomalies, Examples, ExampleStatistics

from components.artifacts import DataBlessing
from components.rows import Columns, empty_text, wanted
from components.schema_gen import label_counts
from components.splits_writer import SKIPPED, read_skipped
from components.versions import read_manifest, served_version
from modules.errors import TextrailError

REPORT = "report.json"
ALL_SPLITS = "all splits"   # Where skipped rows belong that were never given a split.
REASONS_SHOWN = 5


class Finding(NamedTuple):
    """One thing that is wrong with the data.

    Attributes:
        split: where.
        feature: of which feature.
        reason: what, for a person.
        remedy: how to repair or accept it.
        acceptable: whether gate.accept applies; no model can be trained on rows without a class.
    """

    split: str
    feature: str
    reason: str
    remedy: str
    acceptable: bool = True


@component
def AnomalyGate(examples: InputArtifact[Examples], anomalies: InputArtifact[ExampleAnomalies],
                statistics: InputArtifact[ExampleStatistics], blessing: OutputArtifact[DataBlessing],
                columns: Parameter[str], gate: Parameter[str], destination: Parameter[str] = ""):
    """Raises when the data has anomalies that nobody accepted, and reports on it when it may pass.

    Args:
        examples: from ExampleGen, whose skipped rows no statistics know of.
        anomalies: of every split, from ExampleValidator.
        statistics: of every split.
        blessing: `report.json`: what `measure` gives and `accepted`, a list of split, feature and reason.
        columns: JSON that names the features by what they are for, as `rows.wanted` takes it.
        gate: JSON with `max_empty_text`, `max_skipped_rows`, `accept` and, where there is a label, `max_label_drift`.
        destination: where models are pushed to. What is served from there is looked up when the data is judged, so
            it does not count for the cache: pushing a model does not judge the same data again.

    Raises:
        TextrailError: lists every finding with split, feature, reason and remedy.
    """
    import tensorflow as tf
    from tfx.types import artifact_utils
    from tfx.utils import io_utils

    splits = artifact_utils.decode_split_names(statistics.split_names)
    stats = {split: _read_statistics(statistics, split) for split in splits}
    settings, features = json.loads(gate), wanted(json.loads(columns))
    label = features.name("label")
    report = measure(stats, features, served_label_counts(destination), read_skipped(examples.uri))
    findings = [finding for split in artifact_utils.decode_split_names(anomalies.split_names)
                for finding in schema_findings(split, _read_anomalies(anomalies, split), label)]
    findings += bound_findings(report, label, settings)
    findings += skipped_findings(report, settings["max_skipped_rows"], f"{examples.uri}/{SKIPPED}")
    accepted = [finding for finding in findings if finding.acceptable and finding.feature in settings["accept"]]
    refuse([finding for finding in findings if finding not in accepted])
    report["accepted"] = [{"split": f.split, "feature": f.feature, "reason": f.reason} for f in accepted]
    tf.io.gfile.makedirs(blessing.uri)
    io_utils.write_string_file(f"{blessing.uri}/{REPORT}", json.dumps(report, indent=1, ensure_ascii=False))


def measure(statistics: Mapping[str, statistics_pb2.DatasetFeatureStatisticsList], columns: Columns,
            served: Mapping[str, int], skipped: Mapping[str | None, Mapping[str, int]]) -> dict[str, Any]:
    """What the bounds are held against.

    With 6 negative and 4 positive rows in train and 3 and 7 in test, `label_drift` is {"test": 0.3}.

    Args:
        statistics: split → its statistics; one split is "train".
        columns: what is read.
        served: label → rows that the model served now was trained on; empty if none is served.
        skipped: split, or None for those before splitting → reason → rows that were read but are in no split.

    Returns:
        `label_counts` {split: {label: rows}}, `empty_text` {split: {feature: share of the rows read, skipped ones
        included, that are missing or blank}}, `skipped` {split: `share` of the rows read, `reasons` {reason: rows},
        most frequent first}, `unlabelled` {split: share of rows whose label is missing or blank},
        `label_drift` {split or "served": largest difference of one label's share from train's}. Without a label, what
        is told of it is empty.
    """
    label, texts = columns.name("label"), columns.texts
    counts = {split: label_counts(proto, label) for split, proto in statistics.items()} if label else {}
    others = {split: found for split, found in counts.items() if split != "train"}
    if served and label:
        others["served"] = dict(served)
    rows = {split: proto.datasets[0].num_examples for split, proto in statistics.items()}
    empty = {split: {name: empty_share(proto, name) for name in texts} for split, proto in statistics.items()}
    left_out = {}
    for owner, reasons in skipped.items():
        split = owner or ALL_SPLITS
        written, count = rows[owner] if owner else sum(rows.values()), sum(reasons.values())
        left_out[split] = {"share": count / (written + count),
                           "reasons": dict(sorted(reasons.items(), key=lambda item: -item[1]))}
        known = empty.get(split, dict.fromkeys(texts, 0.0))
        empty[split] = {name: (share * written + reasons.get(empty_text(name), 0)) / (written + count)
                        for name, share in known.items()}
    return {
        "label_counts": counts,
        "empty_text": empty,
        "skipped": left_out,
        "unlabelled": {split: empty_share(proto, label) for split, proto in statistics.items()} if label else {},
        "label_drift": {split: drift(counts["train"], found) for split, found in others.items()},
    }


def drift(first: Mapping[str, int], second: Mapping[str, int]) -> float:
    """L-infinity distance of two distributions given as counts: {"a": 6, "b": 4} and {"a": 3, "b": 7} → 0.3."""
    sums = sum(first.values()) or 1, sum(second.values()) or 1
    return max((abs(first.get(name, 0) / sums[0] - second.get(name, 0) / sums[1]) for name in {*first, *second}),
               default=0.0)


def empty_share(statistics: statistics_pb2.DatasetFeatureStatisticsList, name: str) -> float:
    """Share of a split's rows where a feature is missing or nothing but white space; 1 if it is nowhere."""
    dataset = statistics.datasets[0]
    feature = next((f for f in dataset.features if name in (f.name, ".".join(f.path.step))), None)
    if feature is None or not dataset.num_examples:
        return 1.0
    present = feature.string_stats.common_stats.num_non_missing
    blank = sum(bucket.sample_count for bucket in feature.string_stats.rank_histogram.buckets
                if not bucket.label.strip())
    return (dataset.num_examples - present + blank) / dataset.num_examples


def schema_findings(split: str, anomalies: anomalies_pb2.Anomalies, label: str | None) -> list[Finding]:
    """TFDV's anomalies of one split as findings."""
    findings = []
    for feature, info in sorted(anomalies.anomaly_info.items()):
        remedy = (f"correct the rows, or list every class in the domain of {label!r} of a curated schema "
                  "(data.schema_file)" if feature == label else
                  f"correct the rows, curate the schema (data.schema_file), or accept: --set gate.accept=[{feature}]")
        findings.append(Finding(split, feature, f"{info.short_description}: {info.description}", remedy,
                                acceptable=feature != label))
    if anomalies.HasField("dataset_anomaly_info"):
        info = anomalies.dataset_anomaly_info
        findings.append(Finding(split, "(whole split)", f"{info.short_description}: {info.description}",
                                "correct the rows or curate the schema (data.schema_file)", acceptable=False))
    return findings


def bound_findings(report: Mapping[str, Any], label: str | None, gate: Mapping[str, Any]) -> list[Finding]:
    """Rows without a label, and drift and empty texts beyond the bounds of the settings."""
    label = label or ""   # Without one the report tells nothing of it.
    findings = [Finding(split, label, f"{share:.1%} of the rows have no label", "label or remove them",
                        acceptable=False)
                for split, share in report["unlabelled"].items() if share > 0]
    for split, found in report["label_drift"].items():
        if found > gate["max_label_drift"]:
            against = "the data of the model served now" if split == "served" else f"split {split}"
            findings.append(Finding(
                "train", label, f"a label's share differs by {found:.3f} from {against} (gate.max_label_drift "
                f"{gate['max_label_drift']:g})",
                f"check the rows, or raise: --set gate.max_label_drift={_above(found)}"))
    for split, shares in report["empty_text"].items():
        for feature, share in shares.items():
            if share > gate["max_empty_text"]:
                findings.append(Finding(
                    split, feature, f"{share:.1%} of the texts are missing or blank (gate.max_empty_text "
                    f"{gate['max_empty_text']:g})",
                    f"correct or remove the rows, or raise: --set gate.max_empty_text={_above(share)}"))
    return findings


def skipped_findings(report: Mapping[str, Any], bound: float, listing: str) -> list[Finding]:
    """Splits of which data.bad_rows=skip left out more than `bound`; `listing` is the file that has those rows."""
    findings = []
    for split, skipped in report["skipped"].items():
        if skipped["share"] > bound:
            shown = [f"{rows:,} {reason}" for reason, rows in skipped["reasons"].items()]
            if len(shown) > REASONS_SHOWN:
                shown[REASONS_SHOWN:] = ["others"]
            findings.append(Finding(
                split, "(rows)", f"{skipped['share']:.1%} of the rows were skipped (gate.max_skipped_rows {bound:g}): "
                f"{', '.join(shown)}; listed in {listing}",
                f"correct the rows, or raise: --set gate.max_skipped_rows={_above(skipped['share'])}",
                acceptable=False))
    return findings


def refuse(findings: Iterable[Finding]) -> None:
    """Raises if there is any finding, telling all of them."""
    lines = [f"\n  {f.split} · {f.feature}: {f.reason.rstrip('.')}. To go on: {f.remedy}" for f in findings]
    if lines:
        raise TextrailError("data that fits its schema and the bounds under gate", "".join(lines) + "\n",
                            "Nothing was trained.")


def served_label_counts(destination: str) -> dict[str, int]:
    """Label → rows that the model served now was trained on; empty if nothing is served or it does not say."""
    version = served_version(destination) if destination else None
    return read_manifest(f"{destination}/{version}").get("label_counts", {}).get("train", {}) if version else {}


def _above(value: float) -> str:
    """The next hundredth above: 0.301 → "0.31"."""
    return f"{min(1.0, int(value * 100 + 1) / 100):g}"


def _read_statistics(artifact: ExampleStatistics, split: str) -> statistics_pb2.DatasetFeatureStatisticsList:
    from tfx.components.statistics_gen import stats_artifact_utils

    return stats_artifact_utils.load_statistics(artifact, split).proto()


def _read_anomalies(artifact: ExampleAnomalies, split: str) -> anomalies_pb2.Anomalies:
    import tensorflow as tf
    from tfx.types import artifact_utils

    path = f"{artifact_utils.get_split_uri([artifact], split)}/SchemaDiff.pb"
    with tf.io.gfile.GFile(path, "rb") as file:
        return anomalies_pb2.Anomalies.FromString(file.read())
