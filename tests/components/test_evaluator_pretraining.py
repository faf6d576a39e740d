"""Pretrained encoders judged in a real Beam pipeline, each number held against numpy's."""

import json
import math
import shutil
from random import Random

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_model_analysis as tfma
from tfx.types import artifact_utils, standard_artifacts

from components.evaluator import Executor
from components.instance_gen import LABEL, TOKEN_IDS
from components.judging import ROWS as BATCH
from components.judging_pretraining import PretrainingJudge, asked, masked_text
from components.verdict import load_samples, load_verdict, verdict_sentence
from modules.instances import IS_NEXT, IS_RANDOM
from modules.mask_filling import export_pretrainer
from modules.pretrainer import build_pretrainer
from modules.tokenization import Vocabulary

# [CLS] is 2, [SEP] 3, [UNK] 1, ordinary tokens from 5.
ROWS = [([2, 10, 11, 1, 12, 3, 13, 14, 15, 3], IS_NEXT), ([2, 20, 21, 22, 3, 23, 3], IS_RANDOM),
        ([2, 30, 3, 31, 3], IS_NEXT), ([2, *range(40, 51), 3, 7, 3], IS_RANDOM)]


def artifact(folder, rows):
    """An Examples artifact as InstanceGen writes it."""
    made = standard_artifacts.Examples()
    made.uri, made.split_names = str(folder), artifact_utils.encode_split_names(["train", "test"])
    for split in ("train", "test"):
        (folder / f"Split-{split}").mkdir(parents=True)
        path = folder / f"Split-{split}" / "instances-00000-of-00001.gz"
        with tf.io.TFRecordWriter(str(path), tf.io.TFRecordOptions("GZIP")) as writer:
            for ids, label in rows:
                values = {TOKEN_IDS: ids} | ({} if label is None else {LABEL: [label]})
                writer.write(tf.train.Example(features=tf.train.Features(feature={
                    name: tf.train.Feature(int64_list=tf.train.Int64List(value=value))
                    for name, value in values.items()})).SerializeToString())
    return made


def model_artifact(folder, source):
    shutil.copytree(source, folder / "Format-Serving")
    model = standard_artifacts.Model()
    model.uri = str(folder)
    return model


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    return artifact(tmp_path_factory.mktemp("examples") / "e", ROWS)


@pytest.fixture(scope="module")
def candidate(tmp_path_factory, tiny_pretrainer):
    return model_artifact(tmp_path_factory.mktemp("candidate"), tiny_pretrainer[1])


def run(folder, rows, model, thresholds, baseline=None, **evaluation):
    outputs = {"evaluation": standard_artifacts.ModelEvaluation(), "blessing": standard_artifacts.ModelBlessing()}
    for name, one in outputs.items():
        one.uri = str(folder / name)
    inputs = {"examples": [rows], "model": [model]} | ({"baseline_model": [baseline]} if baseline else {})
    settings = {"seed": 7, "data": {"text": "text"},
                "evaluation": {"thresholds": thresholds, "length_bands": [7], "examples": 2, **evaluation}}
    context = Executor.Context(beam_pipeline_args=["--runner=DirectRunner"], tmp_dir=str(folder), unique_id="1")
    Executor(context).Do(inputs, {name: [one] for name, one in outputs.items()}, {"settings": json.dumps(settings)})
    return load_verdict(folder / "evaluation"), outputs["blessing"]


def numbers(model, rows, passes):
    """The metrics, one forward computation for every row and pass, added up in numpy."""
    loss, hits, count, right = 0.0, 0, 0, 0
    for ids, label in rows:
        ordinary = [place for place, i in enumerate(ids) if i > 4]
        for turn in range(passes):
            masked = ordinary[turn::passes]
            answer = model(tf.constant([[4 if place in masked else i for place, i in enumerate(ids)]]))
            log = tf.nn.log_softmax(answer["logits"])[0].numpy().astype(np.float64)
            loss -= sum(log[place, ids[place]] for place in masked)
            hits += sum(log[place].argmax() == ids[place] for place in masked)
            count += len(masked)
            if turn == 0 and "next_logits" in answer:
                right += (answer["next_logits"][0].numpy().argmax() == 0) == (label == IS_NEXT)
    return {"masked_accuracy": hits / count, "masked_loss": loss / count, "pseudo_perplexity": math.exp(loss / count),
            "next_accuracy": right / len(rows)}


@pytest.fixture(scope="module")
def judged(tmp_path_factory, examples, candidate, tiny_pretrainer):
    """Folder, verdict and blessing beside a served model with other weights in its heads, and that model."""
    folder, model = tmp_path_factory.mktemp("judged"), tiny_pretrainer[0]
    other, _ = build_pretrainer({"seed": 9, "model": {"preset": "tiny", "layers": 1, "hidden_size": 16, "num_heads": 2,
                                                      "positions": 16, "dropout": 0.1}}, model.vocabulary, "float32")
    export_pretrainer(other, str(folder / "other"), max_length=16, passes=3)
    served = model_artifact(folder / "served", folder / "other")
    thresholds = {"masked_accuracy": {"min": 0.0, "max_drop": 1.0}, "pseudo_perplexity": {"max": 1e9, "max_drop": 0.0},
                  "next_accuracy": {"min": 0.0}}
    return folder, other, *run(folder, examples, candidate, thresholds, served)


def test_numbers_are_numpy_s_of_all_rows_of_slices_and_of_the_served_model(judged, tiny_pretrainer):
    _, other, verdict, _ = judged
    assert (verdict["shape"], verdict["split"], verdict["examples"]) == ("pretraining", "test", 4)
    assert verdict["metrics"] == pytest.approx(numbers(tiny_pretrainer[0], ROWS, 3), rel=1e-4)
    assert verdict["baseline_metrics"] == pytest.approx(numbers(other, ROWS, 3), rel=1e-4)
    short, long = ROWS[1:3], [ROWS[0], ROWS[3]]
    assert [(part["slice"], part["examples"]) for part in verdict["slices"]] == [
        ("length_band=1-7", 2), ("length_band=>7", 2)]
    for part, rows in zip(verdict["slices"], (short, long), strict=True):
        assert part["metrics"] == pytest.approx(numbers(tiny_pretrainer[0], rows, 3), rel=1e-4)


def test_more_perplexity_than_the_served_model_s_holds_up_the_push(judged):
    _, _, verdict, blessing = judged
    # The random heads of the candidate are sure of what they say, and wrong; the other model's are not sure.
    row = verdict["rows"][1]
    assert row["value"] > row["baseline"] and row["change"] == pytest.approx(row["value"] - row["baseline"])
    assert [row["verdict"] for row in verdict["rows"]] == ["passed", "failed", "passed"]
    assert "worse than the served model's" in row["why"] and not verdict["not_comparable"]
    assert blessing.get_int_custom_property("blessed") == 0


def test_rows_are_kept_with_what_the_model_says_for_their_masks(judged, tiny_pretrainer):
    kept = load_samples(judged[0] / "evaluation")["masked"]
    assert len(kept) == 2
    for sample in kept:
        answer = tf.saved_model.load(str(tiny_pretrainer[1])).signatures["serving_default"](
            text=tf.constant([sample["text"]]))
        assert sample["text"].count("[MASK]") == len(sample["masks"]) >= 1
        for place, mask in enumerate(sample["masks"]):
            assert mask["label"] in tiny_pretrainer[0].vocabulary.pieces
            assert mask["words"] == [word.decode() for word in answer["words"].numpy()[0, place]]
            assert mask["probabilities"] == pytest.approx(answer["probabilities"].numpy()[0, place].tolist(), abs=1e-5)


def test_as_many_passes_as_tokens_are_salazar_s_pseudo_perplexity(tmp_path, examples, tiny_pretrainer):
    """One token masked at a time, in a model without the head for next sentences and on rows of one text."""
    model, _ = build_pretrainer({"seed": 1, "model": {"preset": "tiny", "hidden_size": 16, "num_heads": 2, "positions":
                                                      16, "layers": 1, "dropout": 0.1, "next_sentence": False}},
                                tiny_pretrainer[0].vocabulary, "float32")
    export_pretrainer(model, str(tmp_path / "one"), max_length=16, passes=12)
    rows = [([2, 10, 11, 12, 13, 3], None), ([2, *range(40, 52), 3], None)]
    verdict, blessing = run(tmp_path, artifact(tmp_path / "e", rows), model_artifact(tmp_path / "m", tmp_path / "one"),
                            {"pseudo_perplexity": {"max": 1e9}}, examples=0)
    scores = []
    for ids, _ in rows:
        for place in range(1, len(ids) - 1):
            masked = [4 if at == place else i for at, i in enumerate(ids)]
            scores.append(float(tf.nn.log_softmax(model(tf.constant([masked]))["logits"])[0, place, ids[place]]))
    assert verdict["metrics"]["pseudo_perplexity"] == pytest.approx(math.exp(-np.mean(scores)), rel=1e-4)
    assert set(verdict["metrics"]) == {"masked_accuracy", "masked_loss", "pseudo_perplexity"}
    assert load_samples(tmp_path / "evaluation") == {} and blessing.get_int_custom_property("blessed") == 1


def test_a_served_model_with_another_vocabulary_is_left_out_with_a_sentence(tmp_path, examples, candidate,
                                                                            tiny_pretrainer):
    pieces = tiny_pretrainer[0].vocabulary.pieces
    other, _ = build_pretrainer({"seed": 9, "model": {"preset": "tiny", "layers": 1, "hidden_size": 16, "num_heads": 2,
                                                      "positions": 16, "dropout": 0.1}}, Vocabulary(pieces[:40]),
                                "float32")
    export_pretrainer(other, str(tmp_path / "other"), max_length=16, passes=3)
    served = model_artifact(tmp_path / "served", tmp_path / "other")
    verdict, blessing = run(tmp_path, examples, candidate, {"masked_loss": {"max": 1e9, "max_drop": 0.0}}, served,
                            examples=0)
    assert verdict["not_comparable"] == "another vocabulary" and verdict["passed"]
    assert verdict["baseline_metrics"] is None and verdict["rows"][0]["baseline"] is None
    assert verdict_sentence(verdict).endswith("The served model is not comparable: another vocabulary.")
    assert not blessing.has_custom_property("baseline_model")


@pytest.mark.parametrize("served, reason", [
    ({}, ""), ({"passes": 7}, "judged in 7 passes instead of 3"), ({"vocab.txt": "[PAD]\n"}, "another vocabulary"),
    ({"config.json": '{"max_position_embeddings": 8}'}, "8 positions, and rows of 16 tokens")])
def test_what_cannot_be_compared(tmp_path, tiny_pretrainer, served, reason):
    theirs = shutil.copytree(tiny_pretrainer[1], tmp_path / "theirs")
    manifest = json.loads((theirs / "assets.extra/textrail.json").read_text())
    for name, content in served.items():
        if name == "vocab.txt":
            content = (theirs / "assets.extra/encoder/vocab.txt").read_text().replace("film\n", "cinema\n")
        if name != "passes":
            (theirs / "assets.extra/encoder" / name).write_text(content)
    folders = {tfma.CANDIDATE_KEY: str(tiny_pretrainer[1]), tfma.BASELINE_KEY: str(theirs)}
    manifests = {tfma.CANDIDATE_KEY: manifest, tfma.BASELINE_KEY: manifest | {
        key: value for key, value in served.items() if key == "passes"}}
    assert PretrainingJudge.not_comparable(folders, manifests) == reason


def test_batches_and_order_change_no_number(tmp_path, judged, candidate):
    """The same rows so often and so mixed that they come in several batches, and each in other company."""
    times = BATCH // len(ROWS) + 10
    rows = [ROWS[number] for number in np.random.default_rng(3).permutation(np.arange(len(ROWS)).repeat(times))]
    verdict, _ = run(tmp_path, artifact(tmp_path / "e", rows), candidate, {"masked_loss": {"max": 1e9}}, examples=0)
    assert verdict["metrics"] == pytest.approx(judged[2]["metrics"], rel=1e-5) and verdict["examples"] > BATCH


def test_masked_texts_have_whole_words_and_one_mask_at_least():
    vocabulary = Vocabulary(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "un", "##likely", "film", "9", "."))
    ids = [2, 5, 6, 7, 8, 1, 9, 10, 3, 5, 3]
    found = {(text, *labels) for text, labels in (masked_text(vocabulary, ids, Random(i), 7) for i in range(20))}
    assert found == {("[MASK] unlikely film [UNK] 9 .", "the"), ("the unlikely [MASK] [UNK] 9 .", "film")}
    assert masked_text(vocabulary, [2, 7, 9, 3], Random(1), 7) == ("likely 9", [])
    text, labels = masked_text(vocabulary, [2, *[8, 6, 7] * 40, 3], Random(1), 5)
    assert text.split().count("[MASK]") == len(labels) == 3 and len(text.split()) == 30 and set(labels) == {"film"}


def test_nothing_drawn_asks_nothing(tmp_path):
    assert asked(str(tmp_path / "nothing"), [], 1, 7) == []
