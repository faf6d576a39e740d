"""The gate on real TFDV statistics and anomalies, as a component and in its parts."""

import json

import pandas as pd
import pytest
import tensorflow_data_validation as tfdv
from tfx.types import artifact_utils, standard_artifacts

from components.anomaly_gate import AnomalyGate, drift, empty_share, measure
from components.artifacts import DataBlessing
from components.rows import wanted
from components.schema_gen import infer_schema
from modules.errors import TextrailError

GATE = {"max_label_drift": 0.2, "max_empty_text": 0.01, "max_skipped_rows": 0.05, "accept": []}
TRAIN = (["good", "bad", "fine", "poor"], ["pos", "neg", "pos", "neg"])


def statistics(texts: list, others: list, name: str = "label"):
    return tfdv.generate_statistics_from_dataframe(pd.DataFrame({"text": texts, name: others}))


def judge(tmp_path, validation: tuple[list, list], destination: str = "", skipped: list | None = None,
          role: str = "label", **gate) -> dict:
    """Runs the component over a train and a validation split with (split, reason) of skipped rows; its report."""
    protos = {"train": statistics(*TRAIN, role), "validation": statistics(*validation, role)}
    columns = {"text": "text", role: role}
    schema = infer_schema(protos["train"], wanted(columns))
    examples, stats, anomalies, blessing = (standard_artifacts.Examples(), standard_artifacts.ExampleStatistics(),
                                            standard_artifacts.ExampleAnomalies(), DataBlessing())
    examples.uri = str(tmp_path / "examples")
    (tmp_path / "examples").mkdir(parents=True)
    if skipped:
        (tmp_path / "examples" / "skipped_rows.jsonl").write_text("".join(
            json.dumps({"split": split, "reason": reason}) + "\n" for split, reason in skipped))
    for artifact, name in ((stats, "stats"), (anomalies, "anomalies")):
        artifact.uri, artifact.split_names = str(tmp_path / name), artifact_utils.encode_split_names(list(protos))
        for split in protos:
            (tmp_path / name / f"Split-{split}").mkdir(parents=True)
    blessing.uri = str(tmp_path / "blessing")
    for split, proto in protos.items():
        (tmp_path / "stats" / f"Split-{split}" / "FeatureStats.pb").write_bytes(proto.SerializeToString())
        found = tfdv.validate_statistics(proto, schema)
        (tmp_path / "anomalies" / f"Split-{split}" / "SchemaDiff.pb").write_bytes(found.SerializeToString())
    AnomalyGate.test_call(examples=examples, anomalies=anomalies, statistics=stats, blessing=blessing,
                          columns=json.dumps(columns), gate=json.dumps(GATE | gate), destination=destination)
    return json.loads((tmp_path / "blessing" / "report.json").read_text())


def test_good_data_passes_and_is_reported(tmp_path):
    assert judge(tmp_path, (["new", "old"], ["pos", "neg"])) == {
        "label_counts": {"train": {"neg": 2, "pos": 2}, "validation": {"neg": 1, "pos": 1}},
        "empty_text": {"train": {"text": 0.0}, "validation": {"text": 0.0}},
        "skipped": {},
        "unlabelled": {"train": 0.0, "validation": 0.0},
        "label_drift": {"validation": 0.0},
        "accepted": [],
    }


def test_a_new_label_stops_the_run(tmp_path):
    with pytest.raises(TextrailError, match=r"validation · label: .*mixed.*curated schema"):
        judge(tmp_path, (["new", "old", "so"], ["pos", "neg", "mixed"]), max_label_drift=1)


def test_rows_without_a_class_cannot_be_accepted(tmp_path):
    with pytest.raises(TextrailError) as caught:
        judge(tmp_path, (["new", "old", "so", "it"], ["pos", "neg", "mixed", ""]), max_label_drift=1, accept=["label"])
    assert "mixed" in caught.value.received and "25.0% of the rows have no label" in caught.value.received


def test_drift_beyond_the_bound_stops_the_run_and_can_be_accepted(tmp_path):
    skewed = (["a", "b", "c", "d"], ["pos", "pos", "pos", "neg"])
    with pytest.raises(TextrailError, match=r"0\.250 from split validation .*gate\.max_label_drift=0\.26"):
        judge(tmp_path / "1", skewed)
    assert judge(tmp_path / "2", skewed, max_label_drift=0.26)["label_drift"] == {"validation": 0.25}
    accepted = judge(tmp_path / "3", skewed, accept=["label"])["accepted"]
    assert [(finding["split"], finding["feature"]) for finding in accepted] == [("train", "label")]


def test_blank_texts_stop_the_run(tmp_path):
    with pytest.raises(TextrailError, match=r"validation · text: 50\.0% of the texts.*gate\.max_empty_text=0\.51"):
        judge(tmp_path, (["a", " ", "", "d"], ["pos", "neg", "pos", "neg"]))


def test_blank_texts_that_were_skipped_stop_the_run(tmp_path):
    good, blank = (["new", "old"], ["pos", "neg"]), [(None, "empty text in 'text'")] * 54   # of 60 rows read
    with pytest.raises(TextrailError) as caught:
        judge(tmp_path / "1", good, skipped=blank)
    told = caught.value.received.splitlines()
    assert told[1] == ("  all splits · text: 90.0% of the texts are missing or blank (gate.max_empty_text 0.01). "
                       "To go on: correct or remove the rows, or raise: --set gate.max_empty_text=0.91")
    assert told[2] == (
        "  all splits · (rows): 90.0% of the rows were skipped (gate.max_skipped_rows 0.05): 54 empty text in 'text'; "
        f"listed in {tmp_path}/1/examples/skipped_rows.jsonl. "
        "To go on: correct the rows, or raise: --set gate.max_skipped_rows=0.91")
    report = judge(tmp_path / "2", good, skipped=blank, max_empty_text=0.91, max_skipped_rows=0.91)
    assert report["empty_text"] == {"train": {"text": 0.0}, "validation": {"text": 0.0}, "all splits": {"text": 0.9}}
    assert report["skipped"] == {"all splits": {"share": 0.9, "reasons": {"empty text in 'text'": 54}}}


def test_skipped_rows_count_for_their_own_split(tmp_path):
    skipped = [("validation", "no label in 'label'"), *[("validation", f"{n} columns") for n in range(3, 8)],
               ("validation", "3 columns"), ("validation", "3 columns")]
    with pytest.raises(TextrailError, match=r"validation · \(rows\): 80\.0% .*: 3 3 columns, 1 no label in 'label', "
                                            r"1 4 columns, 1 5 columns, 1 6 columns, others; listed in"):
        judge(tmp_path, (["new", "old"], ["pos", "neg"]), skipped=skipped)


def test_every_finding_is_told_at_once(tmp_path):
    with pytest.raises(TextrailError) as caught:
        judge(tmp_path, ([" ", " ", "d"], ["mixed", "mixed", "pos"]))
    assert caught.value.received.count("\n  ") == 3


def test_the_served_data_counts(tmp_path):
    served = tmp_path / "served" / "7"
    (served / "assets.extra").mkdir(parents=True)
    (served / "saved_model.pb").touch()
    manifest = {"label_counts": {"train": {"neg": 9, "pos": 1}}}
    (served / "assets.extra" / "textrail.json").write_text(json.dumps(manifest))
    with pytest.raises(TextrailError, match=r"0\.400 from the data of the model served now"):
        judge(tmp_path, (["new", "old"], ["pos", "neg"]), destination=str(tmp_path / "served"))


def test_without_a_label_both_texts_are_looked_at_alike(tmp_path):
    assert judge(tmp_path / "1", (["new", "old"], ["neu", "alt"]), role="target") == {
        "label_counts": {}, "empty_text": {split: {"text": 0.0, "target": 0.0} for split in ("train", "validation")},
        "skipped": {}, "unlabelled": {}, "label_drift": {}, "accepted": []}
    with pytest.raises(TextrailError, match=r"validation · target: 50\.0% of the texts are missing or blank"):
        judge(tmp_path / "2", (["new", "old"], ["neu", " "]), role="target")
    with pytest.raises(TextrailError, match=r"validation · target: .*present in fewer examples than expected"):
        judge(tmp_path / "3", (["new", "old"], ["neu", None]), role="target", max_empty_text=1.0)


def test_drift_is_the_largest_difference_of_a_share():
    assert drift({"a": 6, "b": 4}, {"a": 3, "b": 7}) == pytest.approx(0.3)
    assert drift({"a": 1, "b": 1}, {"c": 5}) == 1.0
    assert drift({"a": 1}, {"a": 9}) == 0.0


def test_missing_texts_are_empty():
    proto = statistics(["a", None, " ", "d"], ["pos", "neg", "pos", "neg"])
    assert empty_share(proto, "text") == 0.5
    assert empty_share(proto, "title") == 1.0


def test_measure_with_several_splits():
    splits = {"train": statistics(*TRAIN), "test": statistics(["a", "b"], ["pos", "pos"])}
    report = measure(splits, wanted({"text": "text", "label": "label"}), {}, {})
    assert report["label_drift"] == {"test": 0.5}
