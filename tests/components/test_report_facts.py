import datetime
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_metadata.proto.v0 import anomalies_pb2

from components.report_facts import calibration_error, gather, wilson
from components.report_sections import report
from components.run_record import Artifact, Run, Step

NOON = datetime.datetime(2026, 1, 2, 12)
HOSTILE = "<script>alert('x')</script>\u202e</td>"
SETTINGS = {"shape": "classification", "seed": 7, "description": HOSTILE, "encoder": {"source": "minilm"},
            "data": {"source": "csv", "path": "reviews.csv", "text": "review", "label": "mood"},
            "model": {"max_length": 6},
            "training": {"bucket_step": 2, "batch_tokens": 24, "max_batch": 4, "epochs": 1},
            "card": {"intended_use": "Sorting <post>."}}


def records(folder: Path, split: str, rows: list[dict]) -> None:
    (folder / f"Split-{split}").mkdir(parents=True)
    with tf.io.TFRecordWriter(str(folder / f"Split-{split}" / "data.gz"), tf.io.TFRecordOptions("GZIP")) as writer:
        for row in rows:
            writer.write(tf.train.Example(features=tf.train.Features(feature={
                name: tf.train.Feature(int64_list=tf.train.Int64List(value=value)) if isinstance(value, list) else
                tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode()]))
                for name, value in row.items()})).SerializeToString())


@pytest.fixture
def run(tmp_path) -> Run:
    """What a classification leaves behind, made by hand: three training texts, one of which is also tested on."""
    examples, transformed = tmp_path / "examples", tmp_path / "transformed"
    records(examples, "train", [{"review": text, "mood": "good"} for text in ("abcd", HOSTILE, "x" * 1_000_000)])
    records(examples, "test", [{"review": text, "mood": "bad"} for text in ("abcd", "other", "abcd")])
    (examples / "skipped_rows.jsonl").write_text("".join(
        json.dumps({"file": "reviews.csv", "line": line, "reason": why, "row": HOSTILE, "split": None}) + "\n"
        for line, why in ((3, "empty text"), (9, HOSTILE), (11, "empty text"))))
    records(transformed, "train", [{"token_ids$ragged_values": [2, *[1] * unknown, *[5] * rest, 3], "label_id": [0]}
                                   for unknown, rest in ((0, 1), (1, 1), (0, 4))])
    anomalies = tmp_path / "anomalies"
    for split in ("train", "test"):
        (anomalies / f"Split-{split}").mkdir(parents=True)
        proto = anomalies_pb2.Anomalies()
        if split == "test":
            proto.anomaly_info["review"].short_description = HOSTILE
            proto.anomaly_info["review"].description = "out of bounds"
        (anomalies / f"Split-{split}" / "SchemaDiff.pb").write_bytes(proto.SerializeToString())
    encoder = tmp_path / "encoder"
    encoder.mkdir()
    (encoder / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n")
    trained = tmp_path / "model_run"
    with tf.summary.create_file_writer(str(trained)).as_default():
        for at in range(1, 5):
            tf.summary.scalar("train/loss", 1 / at, step=at)
            tf.summary.scalar("train/learning_rate", at / 10, step=at)
            tf.summary.scalar("train/examples_per_second", 100 * at, step=at)
    (trained / "history.json").write_text(json.dumps({
        "step": 4, "best": -0.5, "best_round": 0, "seconds": 3.0, "average": None, "rounds": [{
            "step": 4, "epoch": 1, "learning_rate": 0.1, "seconds": 3.0, "examples_per_second": 100.0,
            "train": {"loss": 0.25}, "validation": {"loss": 0.5, "accuracy": 0.75}}]}))
    evaluation = tmp_path / "evaluation"
    (evaluation / "samples").mkdir(parents=True)
    (evaluation / "verdict.json").write_text(json.dumps({
        "passed": False, "shape": "classification", "split": "test", "examples": 3,
        "rows": [{"metric": f"recall/{HOSTILE}", "value": 0.5, "min": 0.9, "max": None, "max_drop": None,
                  "baseline": None, "change": None, "verdict": "failed", "why": "0.5 is below the bound 0.9"}],
        "metrics": {"accuracy": 2 / 3, "loss": 0.4}, "baseline_metrics": None,
        "slices": [{"slice": f"label={HOSTILE}", "examples": 2, "metrics": {"accuracy": 0.5, "loss": None}}],
        "confusion": {"classes": [HOSTILE, "good"], "counts": [[1, 1], [0, 1]]}}))
    (evaluation / "samples" / "mistakes.jsonl").write_text(
        json.dumps({"text": [HOSTILE, "x" * 1_000_000], "label": "good", "predicted": HOSTILE, "score": 0.9}) + "\n")
    (evaluation / "samples" / "calibration.jsonl").write_text(
        json.dumps({"examples": 3, "confidence": 0.9, "accuracy": 2 / 3}) + "\n")
    made = {"ExampleGen": ("examples", examples, {"rows_train": 3, "rows_test": 3}),
            "ExampleValidator": ("anomalies", anomalies, {}), "EncoderImporter": ("encoder", encoder, {}),
            "TextTransform": ("transformed_examples", transformed, {"dropped_train": 0}),
            "Trainer": ("model_run", trained, {}), "Evaluator": ("evaluation", evaluation, {})}
    steps = [Step(name, place, "done", NOON, 1.0, {"fingerprint": "f" * 64, "code": "c" * 64},
                  {key: Artifact(key, "Some", str(folder), properties)})
             for place, (name, (key, folder, properties)) in enumerate(made.items(), start=1)]
    return Run(2, NOON, [*steps, Step("Pusher", 9, "failed", NOON, 0.1, {}, reason=f"expected {HOSTILE}")])


def test_facts_are_those_of_the_artifacts(run):
    facts = gather("moods", run, SETTINGS, "textrail run moods")
    data, training, quality = facts.data, facts.training, facts.quality
    assert data.rows == {"train": 3, "test": 3} and data.whole
    assert data.characters["review"].tolist() == [4, len(HOSTILE), 1_000_000]
    assert data.tokens["review"].tolist() == [3, 4, 6] and data.limit == 6 and data.cuts
    assert data.unknown == {"review": pytest.approx(1 / 13)}
    assert data.duplicates == {("test", "train"): 2}
    assert data.skipped == {"empty text": 2, HOSTILE: 1} and [row["line"] for row in data.skipped_rows] == [3, 9, 11]
    assert [(split, feature, accepted) for split, feature, _, accepted in data.anomalies] == [("test", "review", False)]
    # Buckets end at 2, 4 and 6 tokens: two texts in the second, one in the third.
    assert (training.tokens, training.bucketed, training.fixed) == (13, 14, 18)
    steps, values = training.curves["train/loss"]
    assert steps.tolist() == [1, 2, 3, 4] and values == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4])
    assert quality.calibration == [{"examples": 3, "confidence": 0.9, "accuracy": 2 / 3}]
    assert list(quality.samples) == ["mistakes"] and quality.attention == ()
    assert set(facts.stack) >= {"python", "tensorflow", "tfx", "keras"}


def test_the_page_of_hostile_data_shows_them_as_text(run):
    whole = report(gather("moods", run, SETTINGS, "textrail run moods --set seed=7"))
    assert "<script>alert" not in whole and "\u202e" not in whole and "</td></td>" not in whole
    assert whole.count("<script>") == 1 and "&lt;script&gt;alert(" in whole
    assert len(whole.encode()) < 3_000_000 and "1,000,000 characters" in whole
    # The reason stands before anything else.
    assert whole.index("Pusher stopped the run.") < whole.index('id="verdict"')
    assert "--set seed=7" in whole and "Sorting &lt;post&gt;." in whole
    for section in ("verdict", "pipeline", "data", "training", "quality", "card"):
        assert f'<section id="{section}">' in whole
    # 2 of 3, by Wilson's interval.
    assert "0.208 to 0.939" in whole


def test_a_training_without_a_curve_is_told_by_its_rounds(run, tmp_path):
    for path in (tmp_path / "model_run").glob("events*"):
        path.unlink()
    facts = gather("moods", run, SETTINGS, "textrail run moods")
    assert not facts.training.curves
    whole = report(facts)
    assert "<h3>Learning rate, as it was run</h3>" in whole and "<h3>Loss</h3>" in whole and "Throughput" not in whole


def test_a_run_that_stopped_early_has_a_page_without_what_it_lacks():
    failed = Step("ExampleGen", 1, "failed", NOON, 0.5, {}, reason="expected rows; received none. Give some.")
    whole = report(gather("moods", Run(1, NOON, [failed]), SETTINGS, "textrail run moods"))
    assert "stopped at ExampleGen" in whole and "Give some." in whole
    for section in ("data", "training", "quality"):
        assert f'<section id="{section}">' not in whole and f'href="#{section}"' not in whole


def test_artifacts_that_are_gone_tell_nothing(tmp_path):
    gone = Artifact("examples", "Examples", str(tmp_path / "gone"), {"rows_train": 5})
    run = Run(1, NOON, [Step("ExampleGen", 1, "done", NOON, 0.5, {}, {"examples": gone})])
    facts = gather("moods", run, SETTINGS, "")
    assert facts.data.rows == {"train": 5} and not facts.data.characters and facts.training is None
    assert "5" in report(facts)


def test_intervals_and_calibration_are_exact():
    # Newcombe (1998), table I: 81 of 263 and 15 of 148.
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15 / 148, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(1.0, 10)[1] == 1.0 and wilson(0.0, 0) == (0.0, 1.0)
    bands = [{"examples": 4, "confidence": 0.75, "accuracy": 0.5},
             {"examples": 12, "confidence": 0.95, "accuracy": 1.0}]
    assert calibration_error(bands) == pytest.approx((4 * 0.25 + 12 * 0.05) / 16)
    assert np.isclose(calibration_error([]), 0.0)
