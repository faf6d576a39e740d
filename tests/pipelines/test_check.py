"""`textrail check`: what it finds in good data, what it says of bad ones."""

import dataclasses
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from modules.classifier import length_buckets
from modules.errors import TextrailError
from modules.optimization import Schedule, learning_rate
from pipelines import check, check_view, cli, settings
from pipelines.classification import trainer_settings
from tests.modules.test_opaque import Convolution, write

TEN_WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] good bad film story ##s".split()
PAIRS = "a,b,label\n" + "".join(f"{row}\n" for row in [
    "good film,bad films,no", "good story good story,good story,yes", "bad,xyz,no", "film,film,yes"])


@pytest.fixture(scope="module")
def ten_words(tiny_encoder, tmp_path_factory) -> Path:
    """The tiny encoder with a vocabulary of ten words."""
    folder = tmp_path_factory.mktemp("ten") / "words"
    shutil.copytree(tiny_encoder, folder)
    (folder / "vocab.txt").write_text("\n".join(TEN_WORDS) + "\n")
    config = json.loads((folder / "config.json").read_text()) | {"vocab_size": len(TEN_WORDS)}
    (folder / "config.json").write_text(json.dumps(config))
    weights = load_file(folder / "model.safetensors")
    words = "embeddings.word_embeddings.weight"
    weights[words] = np.ascontiguousarray(weights[words][:len(TEN_WORDS)])
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def run_file(folder: Path, encoder: Path, rows: str = PAIRS) -> Path:
    """Settings of a run on pairs, the same file for each split."""
    for name in ("train.csv", "validation.csv"):
        (folder / name).write_text(rows)
    file = folder / "pairs.yaml"
    file.write_text(f"""\
data: {{source: csv, path: {{train: train.csv, validation: validation.csv}}, text: a, text_pair: b, label: label}}
encoder: {{source: {encoder}}}
model: {{max_length: 8}}
training: {{epochs: 2, learning_rate: 2.0e-3, warmup: 0.5, batch_tokens: 64, max_batch: 2, precision: float32}}
evaluation: {{thresholds: {{accuracy: {{min: 0.75}}}}}}
""")
    return file


def test_a_pair_has_exactly_these_tokens_segments_and_loss(tmp_path, ten_words):
    loaded = settings.load(str(run_file(tmp_path, ten_words)))
    found = check.examine(loaded, rows=4)
    assert (found.classes, found.labels) == (["no", "yes"], {"no": 2, "yes": 2})
    # One of each class in turn.
    assert [row.label for row in found.shown] == ["no", "yes", "no", "yes"]
    first, second, third, _ = found.shown
    assert first.texts == ("good film", "bad films")
    assert first.tokens == "[CLS] good film [SEP] bad film ##s [SEP]".split()
    assert first.token_ids == [2, 5, 7, 3, 6, 7, 9, 3]
    assert first.segments == [0, 0, 0, 0, 1, 1, 1, 1]
    # Of 4 + 2 words 3 + 2 fit into 8 tokens with [CLS] and twice [SEP].
    assert second.tokens == "[CLS] good story good [SEP] good story [SEP]".split()
    assert third.tokens == "[CLS] bad [SEP] [UNK] [SEP]".split()
    assert found.lengths.tolist() == [8, 9, 5, 5] and found.cut == 0.25
    assert found.unknown == 1 / 15
    assert found.chance == math.log(2)
    expected = [math.log(sum(map(math.exp, row.logits))) - row.logits[found.classes.index(row.label)]
                for row in found.shown]
    assert found.loss == pytest.approx(np.mean(expected), abs=1e-5)
    assert found.loss == pytest.approx(math.log(2), abs=0.1) and not found.problem()
    assert sum(found.parameters) == found.parameters[0] + 32 * 32 + 32   # The pooler is not used.


def test_steps_and_schedule_are_those_of_the_training(tmp_path, ten_words):
    loaded = settings.load(str(run_file(tmp_path, ten_words)))
    found = check.examine(loaded, rows=1)
    # Batches of 2: one bucket, 4 rows.
    assert length_buckets(trainer_settings(loaded), 1).sizes == (2,)
    assert (found.steps_per_epoch, found.schedule) == (2, Schedule(2e-3, 4, 2, "linear"))
    assert float(found.schedule(3)) == float(learning_rate(3, 2e-3, 4, 2, "linear")) == pytest.approx(1e-3)
    warnings = found.warnings()
    assert warnings == [
        "25.0% of the training texts are longer than model.max_length=8 and lose their end: 95% have at most 9 tokens.",
        "6.7% of the tokens are [UNK]: is the encoder's vocabulary of the texts' language, and encoder.lower_case "
        "right for it?"]


def test_what_the_terminal_and_the_plots_show(tmp_path, ten_words, capfd):
    file = run_file(tmp_path, ten_words, PAIRS + "good,good,yes\n" * 20)
    before = sorted(tmp_path.iterdir())
    assert cli.main(["check", str(file), "--rows", "2", "--plots", str(tmp_path / "plots"), "--set", "seed=3"]) == 0
    told = capfd.readouterr()
    assert told.err == ""
    lines = told.out.splitlines()
    assert lines[2:8] == [
        "1  no",
        "   text a   good film",
        "   text b   bad films",
        "   tokens   [CLS]  good  film  [SEP]  bad  film  ##s  [SEP]",
        "   ids      2      5     7     3      6    7     9    3",
        "   segments 0      0     0     0      1    1     1    1"]
    said = " ".join(told.out.split())
    for fact in (
            "rows train 24, validation 24; all rows were read labels yes 91.7%, no 8.3% lengths half of the texts have "
            "at most 5 tokens, 95% 8, the longest 9; model.max_length 8 cuts 4.2% unknown",
            "steps 12 an epoch, 24 in 2 epochs, 12 of them warmup learning rate 0.00017 at the first step, 0.002 at "
            "step 11, then falls evenly to 0; 0.00017 at the last "):
        assert fact in said
    assert lines[-5:-3] == [
        "warning: only 2 of 24 training rows are 'no': hold macro_f1 or mcc under evaluation.thresholds to a bound, "
        "accuracy hardly notices that class.",
        "warning: evaluation.thresholds.accuracy.min is 0.75, and answering 'yes' to everything reaches 0.917: "
        "raise it."]
    assert lines[-1] == f"next: textrail run {file} --set seed=3"
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == ["learning_rate.png", "lengths.png"]
    # Nothing else was written.
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "plots"])


def test_a_long_row_is_shown_by_the_ends_of_its_texts():
    columns = [(str(i), str(i)) for i in range(60)]
    shown = [column[0] for column in check_view.elided(columns[:40], columns[40:50])]
    assert shown == [*map(str, range(22)), "…", "39", *map(str, range(40, 50))]
    assert [column[0] for column in check_view.elided(columns)] == [*map(str, range(46)), "…", "59"]
    assert check_view.elided(columns[:40], columns[40:48]) == columns[:48]


@pytest.mark.parametrize("rows, sentence", [
    ("a,b,label\nfine,,no\ngood,good,yes\n",
     "expected rows that can be used; received 2 of 4 that cannot:\n{train}, line 2: empty text "
     "in 'b': 'fine,,no'\n"),
    ("a,b,label\ngood,good,yes\n", "expected a label 'label' with at least two classes in the training split; "
     "received 1 (yes). Check data.label and the rows of the training split."),
    ("a,c,label\ngood,good,yes\n", "expected one column 'b' in {train}; received the columns 'a', 'c', 'label'"),
])
def test_bad_data_are_told_as_the_run_would(tmp_path, ten_words, capfd, rows, sentence):
    assert cli.main(["check", str(run_file(tmp_path, ten_words, rows))]) == 1
    assert capfd.readouterr().err.startswith(f"textrail: {sentence.format(train=tmp_path / 'train.csv')}")


def test_labels_unknown_to_the_training_split_or_drifting_stop_it(tmp_path, ten_words):
    file = run_file(tmp_path, ten_words)
    (tmp_path / "validation.csv").write_text(PAIRS + "good,bad,perhaps\n")
    with pytest.raises(TextrailError, match="a 'label' among no, yes; received 'perhaps'"):
        check.examine(settings.load(str(file)), 1)
    (tmp_path / "validation.csv").write_text(PAIRS + "good,bad,yes\n" * 8)
    with pytest.raises(TextrailError, match=r"a label's share differs by 0\.333 from split validation"):
        check.examine(settings.load(str(file)), 1)
    assert check.examine(settings.load(str(file), ["gate.accept=[label]"]), 1).steps_per_epoch == 2
    with pytest.raises(TextrailError, match=r"model\.max_length of at most 64"):
        check.examine(settings.load(str(file), ["gate.accept=[label]", "model.max_length=65"]), 1)


def test_a_threshold_on_a_class_that_is_not_there_is_told_before_the_training(tmp_path, ten_words):
    file = str(run_file(tmp_path, ten_words))
    with pytest.raises(TextrailError, match=r"received 'f1/yess'\. The nearest is 'f1/yes'"):
        check.examine(settings.load(file, ["evaluation.thresholds.f1/yess.min=0.5"]), 1)
    # Of a larger data set the class may stand among the rows that were not read.
    (tmp_path / "train.csv").write_text(PAIRS * 100)
    assert not check.examine(settings.load(file, ["evaluation.thresholds.f1/perhaps.min=0.5"]), 1, 500).sample.whole


def test_a_loss_that_cannot_come_from_a_new_head_is_a_failure(tmp_path, ten_words, capfd):
    shutil.copytree(ten_words, tmp_path / "loud")
    weights = load_file(ten_words / "model.safetensors")
    weights["encoder.layer.1.output.LayerNorm.weight"] *= 1000
    save_file(weights, tmp_path / "loud" / "model.safetensors", metadata={"format": "pt"})
    assert cli.main(["check", str(run_file(tmp_path, tmp_path / "loud"))]) == 1
    told = capfd.readouterr()
    assert "NOT as it should be (within 0.5)" in " ".join(told.out.split()) and "next:" not in told.out
    assert told.err.startswith(
        "textrail: expected a loss before training within 0.5 of ln(2 classes) = 0.693; received ")


def test_skipped_rows_face_the_gate_and_a_split_needs_rows(tmp_path, ten_words):
    file = run_file(tmp_path, ten_words, PAIRS + "good,,yes\n")
    with pytest.raises(TextrailError, match=r"20\.0% of the rows were skipped \(gate\.max_skipped_rows 0\.05\): "
                                            "2 empty text in 'b'"):
        check.examine(settings.load(str(file), ["data.bad_rows=skip"]), 1)
    found = check.examine(settings.load(str(file), ["data.bad_rows=skip", "gate.max_skipped_rows=0.2"]), 1)
    assert dict(check_view.facts(found))["rows"] == "train 4, validation 4; all rows were read; 2 skipped"
    (tmp_path / "validation.csv").write_text("a,b,label\n")
    with pytest.raises(TextrailError, match="rows in the validation split; received none, of 5 rows read, 1 skipped"):
        check.examine(settings.load(str(file), ["data.bad_rows=skip", "gate.max_skipped_rows=0.2"]), 1)


def test_a_head_that_was_kept_may_know_the_answers(tmp_path, ten_words):
    file = str(run_file(tmp_path, ten_words))
    new = check.examine(settings.load(file), 1)
    kept = dataclasses.replace(new, settings=settings.load(file, ["encoder.head=keep"]))
    for found, loss, is_bad in [(new, 0.1, True), (kept, 0.1, False), (kept, 1.3, True), (kept, math.nan, True)]:
        assert bool(dataclasses.replace(found, loss=loss).problem()) is is_bad


def test_an_opaque_encoder_goes_the_same_way(tmp_path, ten_words):
    saved = write(Convolution(ten_words / "vocab.txt", len(TEN_WORDS)), tmp_path / "saved")
    found = check.examine(settings.load(str(run_file(tmp_path, Path(saved))), ["encoder.opaque=true"]), 2)
    assert found.shown[0].tokens == "[CLS] good film [SEP] bad film ##s [SEP]".split()
    # Words, positions, convolution and head train; of the rest its own `frozen` and `steps` are used.
    assert found.parameters == (10 * 12 + 32 * 12 + 3 * 12 * 12 + 2 * 12 + 2, 12 + 1)
    assert found.precision == ("float32", "the SavedModel computes in its own precision")
    assert found.loss == pytest.approx(math.log(2), abs=0.1)


def test_wrong_use_is_told_before_anything_is_imported(tmp_path, ten_words, capfd):
    file = run_file(tmp_path, ten_words)
    assert cli.main(["check", str(file), "--rows", "0"]) == 2
    assert cli.main(["check", str(file), "--plots", str(file)]) == 2
    assert cli.main(["check", str(file), "--set", "model.max_lenght=9"]) == 2
    assert "max_length" in capfd.readouterr().err


def test_an_estimate_says_so(tmp_path, ten_words):
    rows = "a,b,label\n" + "".join(f"good film {i},bad,{'no' if i % 2 else 'yes'}\n" for i in range(400))
    found = check.examine(settings.load(str(run_file(tmp_path, ten_words, rows))), 1, limit=2000)
    assert not found.sample.whole and len(found.lengths) < 60
    assert found.steps_per_epoch == pytest.approx(200, rel=0.05)   # Of 400 rows, 2 at a time.
    facts = dict(check_view.facts(found))
    assert facts["rows"].startswith("train about ") and "rows were read" in facts["rows"]
    assert facts["steps"].startswith("about ")
