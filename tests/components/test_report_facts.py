import dataclasses
import datetime
import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_metadata.proto.v0 import anomalies_pb2

from components.report_facts import MACHINE, STACK, calibration_error, gather
from components.report_sections import report
from components.report_words import all_intervals
from components.run_record import Artifact, Run, Step
from tests.browser import opened

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
    examples = tmp_path / "examples"
    records(examples, "train", [{"review": text, "mood": "good"} for text in ("a b", HOSTILE, "a " * 500_000)])
    records(examples, "test", [{"review": text, "mood": "bad"} for text in ("a b", "other", "a b")])
    (examples / "skipped_rows.jsonl").write_text("".join(
        json.dumps({"file": "reviews.csv", "line": line, "reason": why, "row": HOSTILE, "split": None}) + "\n"
        for line, why in ((3, "empty text"), (9, HOSTILE), (11, "empty text"))))
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
    (encoder / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\nc\n")
    (encoder / "tokenizer_config.json").write_text('{"do_lower_case": true}')
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
        "metrics": {"accuracy": 2 / 3, "loss": 0.4}, "baseline_metrics": {"accuracy": 0.75},
        "intervals": {"accuracy": [0.208, 0.939]}, "not_comparable": "",
        "slices": [{"slice": f"label={HOSTILE}", "examples": 2, "metrics": {"accuracy": 0.5, "loss": None},
                    "intervals": {"accuracy": [0.095, 0.905]}}],
        "confusion": {"classes": [HOSTILE, "good"], "counts": [[1, 1], [0, 1]]}}))
    (evaluation / "samples" / "mistakes.jsonl").write_text(
        json.dumps({"text": [HOSTILE, "x" * 1_000_000], "label": "good", "predicted": HOSTILE, "score": 0.9}) + "\n")
    (evaluation / "samples" / "calibration.jsonl").write_text(
        json.dumps({"examples": 3, "confidence": 0.9, "accuracy": 2 / 3}) + "\n")
    made = {"ExampleGen": ("examples", examples, {"rows_train": 3, "rows_test": 3}),
            "ExampleValidator": ("anomalies", anomalies, {}), "EncoderImporter": ("encoder", encoder, {}),
            "Trainer": ("model_run", trained, {STACK: '{"tensorflow": "2.0.1"}', MACHINE: "a machine"}),
            "Evaluator": ("evaluation", evaluation, {})}
    steps = [Step(name, place, "done", NOON, 1.0, {"fingerprint": "f" * 64, "code": "c" * 64},
                  {key: Artifact(key, "Some", str(folder), properties)})
             for place, (name, (key, folder, properties)) in enumerate(made.items(), start=1)]
    return Run(2, NOON, [*steps, Step("Pusher", 9, "failed", NOON, 0.1, {}, reason=f"expected {HOSTILE}")])


def test_facts_are_those_of_the_artifacts(run):
    facts = gather("moods", run, SETTINGS, "textrail run moods")
    data, training, quality = facts.data, facts.training, facts.quality
    assert data.rows == {"train": 3, "test": 3} and data.repeated == {"train": 0, "test": 1} and not data.estimated
    assert data.characters["review"].values.tolist() == [3, len(HOSTILE), 1_000_000]
    # Marks and words that the vocabulary lacks are a token each: 17 of the hostile text.
    assert data.tokens["review"].values.tolist() == [4, 19, 500_000] and (data.limit, data.how) == (6, "cut")
    pieces = data.pieces["review"]
    assert (pieces.unknown, pieces.tokens, pieces.used) == (17, 500_000 + 2 + 17, 3)
    assert data.duplicates == {("test", "train"): 2}
    assert data.skipped == {"empty text": 2, HOSTILE: 1} and [row["line"] for row in data.skipped_rows] == [3, 9, 11]
    assert [(split, feature, accepted) for split, feature, _, accepted in data.anomalies] == [("test", "review", False)]
    # Cut to 6 tokens, in buckets that end at 2, 4 and 6: one text in the second, two in the third.
    assert (training.tokens, training.bucketed, training.fixed) == (16, 16, 18)
    steps, values = training.curves["train/loss"]
    assert steps.tolist() == [1, 2, 3, 4] and values == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4])
    assert quality.calibration == [{"examples": 3, "confidence": 0.9, "accuracy": 2 / 3}]
    assert list(quality.samples) == ["mistakes"] and quality.attention == ()
    assert facts.stack == {"tensorflow": "2.0.1"} and facts.machine == "a machine"   # of the training, not of today


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
    assert "0.208 to 0.939" in whole and "0.095 to 0.905" in whole and "-0.0833 against the served" in whole
    assert "2 of 3 (66.7%), which lose" in whole and "tensorflow 2.0.1" in whole


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


def test_intervals_are_of_whatever_a_threshold_names():
    found = all_intervals({
        "confusion": {"classes": ["a", "b", "none"], "counts": [[15, 133, 0], [0, 81, 0], [0, 0, 0]]},
        "intervals": {"accuracy": [0.1, 0.2]}, "slices": [
            {"slice": "kind=seen", "intervals": {"bleu": [30.0, 34.0]}},
            {"slice": "a=1, b=2", "intervals": {"bleu": [1, 2]}}]})
    assert found["recall/a"] == pytest.approx((0.0624, 0.1605), abs=5e-5)   # 15 of 148, as in Newcombe's table
    assert found["accuracy"] == [0.1, 0.2] and found["bleu/seen"] == [30.0, 34.0]
    assert set(found) == {"accuracy", "bleu/seen", *(f"{kind}/{name}" for kind in ("precision", "recall", "f1")
                                                    for name in "ab")}


def test_the_calibration_error_is_exact():
    bands = [{"examples": 4, "confidence": 0.75, "accuracy": 0.5},
             {"examples": 12, "confidence": 0.95, "accuracy": 1.0}]
    assert calibration_error(bands) == pytest.approx((4 * 0.25 + 12 * 0.05) / 16)
    assert np.isclose(calibration_error([]), 0.0)


def test_artifacts_may_lie_behind_a_scheme(run, tmp_path):
    """TensorFlow's file system in memory stands for a bucket."""
    root = f"ram://{tmp_path.name}"
    for path in [path for path in tmp_path.rglob("*") if path.is_file() and "evaluation" not in path.parts]:
        tf.io.gfile.makedirs(f"{root}/{path.relative_to(tmp_path).parent}")
        tf.io.gfile.copy(str(path), f"{root}/{path.relative_to(tmp_path)}", overwrite=True)
    there = [dataclasses.replace(step, outputs={
        key: dataclasses.replace(made, uri=made.uri.replace(str(tmp_path), root))
        for key, made in step.outputs.items()}) for step in run.steps if step.name != "Evaluator"]
    here = gather("moods", run, SETTINGS, "")
    facts = gather("moods", dataclasses.replace(run, steps=there), SETTINGS, "")
    assert facts.data.tokens["review"].values.tolist() == here.data.tokens["review"].values.tolist()
    assert (facts.data.duplicates, facts.data.skipped, facts.data.anomalies) == (
        here.data.duplicates, here.data.skipped, here.data.anomalies)
    assert facts.training.bucketed == 16 and facts.training.curves["train/loss"][0].tolist() == [1, 2, 3, 4]
    assert there[0].outputs["examples"].bytes == run.steps[0].outputs["examples"].bytes > 1000


def test_a_pretraining_tells_of_documents_examples_losses_and_filled_masks(tmp_path):
    documents, instances, evaluation = (tmp_path / name for name in ("documents", "instances", "evaluation"))
    records(documents, "train", [{"text": "one document"}, {"text": "another one"}])
    records(documents, "test", [{"text": "one document"}])
    records(instances, "train", [{"token_ids$ragged_values": [2, *[9] * length, 3], "next_sentence_label": [0]}
                                 for length in (1, 2, 6)])
    trained = tmp_path / "model_run"
    trained.mkdir()
    names = {"loss": 5.0, "masked_loss": 4.5, "masked_accuracy": 0.25, "next_loss": 0.5, "next_accuracy": 0.75}
    (trained / "history.json").write_text(json.dumps({
        "step": 2, "best": -5.0, "best_round": 0, "seconds": 1.0, "average": None, "rounds": [{
            "step": 2, "epoch": 1, "learning_rate": 0.1, "seconds": 1.0, "tokens_per_second": 10.0, "train": names,
            "validation": names}]}))
    (evaluation / "samples").mkdir(parents=True)
    (evaluation / "verdict.json").write_text(json.dumps({
        "passed": True, "shape": "pretraining", "split": "test", "examples": 3, "rows": [], "baseline_metrics": None,
        "not_comparable": "another vocabulary", "slices": [], "intervals": {"masked_accuracy": [0.1, 0.4]},
        "metrics": {"masked_accuracy": 0.25, "pseudo_perplexity": 90.1, "masked_loss": 4.5}}))
    (evaluation / "samples" / "masked.jsonl").write_text(json.dumps({
        "text": f"the film was [MASK] {HOSTILE}",
        "masks": [{"label": "good", "words": ["good", HOSTILE], "probabilities": [0.31, 0.2]}]}) + "\n")
    made = {"ExampleGen": ("examples", documents, {"rows_train": 2, "rows_test": 1}),
            "InstanceGen": ("transformed_examples", instances, {"instances_train": 3, "documents_train": 2,
                                                                "instances_test": 1}),
            "Trainer": ("model_run", trained, {}), "Evaluator": ("evaluation", evaluation, {})}
    run = Run(1, NOON, [Step(name, 1, "done", NOON, 1.0, {}, {key: Artifact(key, "Some", str(folder), properties)})
                        for name, (key, folder, properties) in made.items()])
    settings = {"shape": "pretraining", "seed": 1, "encoder": None, "instances": {"max_length": 8},
                "data": {"source": "text", "path": "*.txt", "text": "text"},
                "training": {"bucket_step": 4, "batch_tokens": 64, "max_batch": 4, "epochs": 1}}
    facts = gather("words", run, settings, "")
    assert facts.data.tokens["examples"].values.tolist() == [3, 4, 8] and facts.data.how == "pack"
    assert facts.data.instances["train"] == {"documents": 2, "instances": 3, "sentences": 0, "tokens": 0, "short": 0,
                                             "swapped": 0}
    assert facts.data.duplicates == {("test", "train"): 1}
    assert (facts.training.tokens, facts.training.bucketed, facts.training.fixed) == (15, 16, 24)
    whole = report(facts)
    assert "33.3% of the examples are full" in whole and "not compared: another vocabulary" in whole
    assert "<h3>Masked loss</h3>" in whole and "<h3>Next loss</h3>" in whole
    assert "new weights" in whole and "0.100 to 0.400" in whole and "90.10" in whole
    assert whole.index("Masked words, filled") < whole.index("31%") and "<script>alert" not in whole


def test_a_page_of_very_many_classes_stays_small(run, tmp_path):
    path = tmp_path / "evaluation" / "verdict.json"
    found, classes = json.loads(path.read_text()), [f"{HOSTILE} {number}" for number in range(2000)]
    counts = np.eye(len(classes), dtype=int)
    counts[3, 4] = 7
    found["confusion"] = {"classes": classes, "counts": counts.tolist()}
    found["slices"] = [{"slice": f"label={name}", "examples": 1, "metrics": {"accuracy": 1.0}} for name in classes]
    path.write_text(json.dumps(found))
    facts = gather("moods", run, SETTINGS, "textrail run moods")
    labels = {split: {name: place for place, name in enumerate(classes)} for split in ("train", "test")}
    whole = report(dataclasses.replace(facts, data=dataclasses.replace(facts.data, labels=labels)))
    assert len(whole.encode()) < 3_000_000
    assert "the first 200 of 2,000" in whole and "confusions of 2,000 classes" in whole and "87.5%" in whole


def test_the_page_in_a_browser(run, tmp_path):
    """It loads nothing, runs no script of the data, sorts its tables, fits narrow windows and is dark in the dark."""
    path = tmp_path / "report.html"
    path.write_text(report(gather("moods", run, SETTINGS, "textrail run moods")), "utf-8")
    with opened(path.as_uri(), width=420, scheme="dark") as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 420
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(17, 21, 27)"
        assert page.locator("svg:not([aria-label])").count() == 0 and page.locator("svg").count() >= 5
        page.get_by_role("link", name="Pipeline").click()
        header = page.locator("#pipeline th", has_text="component").get_by_role("button")
        column = "[...document.querySelectorAll('#pipeline tbody tr')].map(row => row.cells[1].textContent)"
        before = page.evaluate(column)
        header.click()
        assert page.evaluate(column) == sorted(before) != before
        header.click()
        assert page.evaluate(column) == sorted(before, reverse=True)
