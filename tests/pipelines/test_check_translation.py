"""`textrail check` of a translation: vocabularies, pairs as the model sees them, and what is said of them."""

import dataclasses
import math

import numpy as np
import pytest

from modules.errors import TextrailError
from modules.optimization import Schedule
from pipelines import check, check_translation, check_view, cli, settings
from tests.word_translator import make_word_translator

PAIRS = ["o gato dorme.\tthe cat sleeps.", "a casa é grande.\tthe house is big.", "o gato é grande.\tthe cat is big.",
         "a casa\tthe house"]


def write_run(folder, pairs=PAIRS):
    """Settings of a run on pairs, the same file for each split."""
    for name in ("train.tsv", "validation.tsv"):
        (folder / name).write_text("".join(f"{pair}\n" for pair in pairs), "utf-8")
    file = folder / "pairs.yaml"
    file.write_text("""\
shape: translation
data: {source: csv, path: {train: train.tsv, validation: validation.tsv}, columns: [pt, en], text: pt, target: en}
vocabulary: {size: 64}
model: {max_tokens: 6, layers: 1, hidden_size: 16, num_heads: 2, inner_size: 32}
training: {epochs: 4, warmup_steps: 2, batch_tokens: 64, max_batch: 2, bucket_step: 6, precision: float32}
evaluation: {thresholds: {bleu: {min: 10}}}
""", "utf-8")
    return str(file)


def examined(folder, *overrides):
    return check.examine(settings.load(write_run(folder), overrides), rows=2)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return examined(tmp_path_factory.mktemp("pairs"))


def test_a_pair_has_exactly_these_tokens_lengths_and_loss(found, tmp_path):
    first, second = examined(tmp_path, "model.max_tokens=12").shown
    assert (first.texts, first.slice) == (("o gato dorme.", "the cat sleeps."), "")
    # "dorme" and "sleeps" stand once: nothing that is only theirs is learned.
    assert first.source[0][:3] == ["[START]", "o", "gato"] and first.source[0][-2:] == ["￭.", "[END]"]
    assert first.inputs[0][:3] == ["[START]", "the", "cat"] and first.labels[0][:2] == ["the", "cat"]
    assert second.source[0] == ["[START]", "a", "casa", "é", "grande", "￭.", "[END]"]
    assert second.inputs[0] == ["[START]", "the", "house", "is", "big", "￭."]
    assert second.labels[0] == ["the", "house", "is", "big", "￭.", "[END]"]
    # What a run leaves out of its training is not shown: nobody would see it go through the model.
    (only,) = found.shown
    assert only.texts == ("a casa", "the house")
    for row in (first, second, only):
        assert row.inputs[0][1:] == row.labels[0][:-1] and row.inputs[1][1:] == row.labels[1][:-1]
        assert row.source[1][0] == row.inputs[1][0] == 2 and row.source[1][-1] == row.labels[1][-1] == 3
    assert found.lengths.shape == (4, 2) and found.lengths[1:].tolist() == [[7, 7], [7, 7], [4, 4]]
    assert found.is_dropped.tolist() == [True, True, True, False]
    assert found.reports["source"]["unknown_share"] == 0
    assert found.chance == math.log(found.reports["target"]["size"])
    assert found.loss == pytest.approx(found.chance, abs=0.5) and not found.problem()
    assert found.code.shape == (6, 16) and found.code[0].tolist() == [0, 1] * 8


def test_steps_leave_out_what_is_dropped(found, tmp_path):
    # One pair of four is short enough; the others are two batches more, of at most two.
    assert (found.steps_per_epoch, found.schedule) == (1, Schedule(1.0, 4, 2, "inverse_sqrt", 16))
    longer = examined(tmp_path, "model.max_tokens=12")
    assert longer.steps_per_epoch == 3 and not longer.is_dropped.any()
    assert dict(check_view.facts(found))["learning rate"] == (
        "0.088 at the first step, 0.18 at step 1, then falls with the root of the step; 0.12 at the last")


def test_warnings(found):
    dropped = ("75.0% of the pairs have a text of more than model.max_tokens=6 tokens and are not trained on: 95% of "
               f"the texts have at most {np.percentile(found.lengths, 95):.0f}.")
    assert found.warnings() == [dropped]
    report = found.reports["source"] | {"unknown_share": 0.02, "tokens_per_word": 2.6}
    worse = dataclasses.replace(found, reports=found.reports | {"source": report},
                                schedule=found.schedule._replace(total_steps=1))
    assert worse.warnings() == [
        dropped, "2.0% of the words of 'pt' are [UNK]: raise vocabulary.max_characters.",
        "'pt' takes 2.6 tokens a word: raise vocabulary.size.",
        "training.warmup_steps=2 are more than the 1 steps of the run: the learning rate never reaches its peak."]


def test_a_loss_that_new_weights_cannot_have(found, tmp_path):
    for loss, is_bad in [(found.chance + 0.9, False), (found.chance + 1.1, True), (found.chance - 1.1, True),
                         (math.nan, True)]:
        assert bool(dataclasses.replace(found, loss=loss).problem()) is is_bad
    # Tied embeddings answer what came in, which is mostly wrong: the loss may be √16 above. A joint vocabulary is one.
    tied = examined(tmp_path, "vocabulary.joint=true", "model.tied=all")
    assert tied.bounds == pytest.approx((tied.chance - 1, tied.chance + 5)) and not tied.problem()
    assert tied.reports["source"] == tied.reports["target"]
    assert dict(check_view.facts(tied))["vocabulary"].endswith("; one for both")


def test_what_the_terminal_and_the_plots_show(tmp_path, capfd):
    file = write_run(tmp_path, [f"{pair}\tnews" for pair in PAIRS])
    overrides = ["--set", "data.columns=[pt, en, domain]", "--set", "data.slice=domain", "--set", "model.max_tokens=12"]
    before = sorted(tmp_path.iterdir())
    assert cli.main(["check", file, "--rows", "2", "--plots", str(tmp_path / "plots"),
                     "--workspace", str(tmp_path / "none"), *overrides]) == 0
    told = capfd.readouterr()
    assert told.err == ""
    lines = told.out.splitlines()
    at = lines.index("2  news")
    assert [line.split() for line in lines[at + 1:at + 9:2]] == [
        "source a casa é grande.".split(), "tokens [START] a casa é grande ￭. [END]".split(),
        "inputs [START] the house is big ￭.".split(), "labels the house is big ￭. [END]".split()]
    assert lines[at + 2].split() == "target the house is big.".split()
    said = " ".join(told.out.split())
    assert "rows train 4, validation 4; all rows were read vocabulary pt (source): " in said
    assert "half of the pairs have at most 7 and 7 tokens" in said and "model.max_tokens 12 drops 0.0%" in said
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == [
        "attention.png", "learning_rate.png", "lengths.png", "positions.png"]
    assert all(path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n" for path in (tmp_path / "plots").iterdir())
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "plots"])   # Nothing else was written.


def test_attention_is_of_the_pushed_model_where_there_is_one(tmp_path):
    assert check_translation.pushed_attention(str(tmp_path), "o gato dorme") is None
    make_word_translator(tmp_path / "7")
    found = check_translation.pushed_attention(str(tmp_path), "o gato dorme")
    assert found.source == ["o", "gato", "dorme"] and found.model == "pushed as version 7"
    assert found.weights.shape == (2, 3, 3) and found.weights.sum(-1) == pytest.approx(1)


def test_the_row_of_the_picture_is_the_longest_that_is_readable():
    def row(count):
        side = (["x"] * count, [5] * count)
        return check_translation.ShownRow(("x", "x"), "", side, side, side)

    assert len(check_translation.pictured([row(5), row(20), row(21)]).source[0]) == 20
    assert len(check_translation.pictured([row(30), row(25)]).source[0]) == 25


def test_what_stops_a_run_stops_a_check(tmp_path):
    with pytest.raises(TextrailError, match=r"a vocabulary.size that holds the characters of 'pt'"):
        examined(tmp_path, "vocabulary.size=16")
    with pytest.raises(TextrailError, match=r"received 2 of 2 that cannot:\n.*empty text in 'en'"):
        check.examine(settings.load(write_run(tmp_path, ["o gato\t"])), 1)
    with pytest.raises(TextrailError, match=r"rows of at most 4 tokens in the split train; received none, all of its "
                                            r"3 rows are longer\. Raise model\.max_tokens"):
        check.examine(settings.load(write_run(tmp_path, PAIRS[:3]), ["model.max_tokens=4"]), 1)
    with pytest.raises(TextrailError, match=r"3\.\d% of the rows were skipped \(gate\.max_skipped_rows 0\.03\)"):
        check.examine(settings.load(write_run(tmp_path, [*PAIRS * 8, "o gato\t"]), [
            "data.bad_rows=skip", "gate.max_skipped_rows=0.03"]), 1)
    sliced = write_run(tmp_path, [f"{pair}\t{place % 2}/news" for place, pair in enumerate(PAIRS)])
    columns = ["data.columns=[pt, en, domain]", "data.slice=domain", "evaluation.thresholds.chrf/1/news.min=5"]
    assert check.examine(settings.load(sliced, columns), 1).shown[0].slice == "1/news"
    with pytest.raises(TextrailError, match=r"one of bleu/0/news, bleu/1/news, chrf/0/news, chrf/1/news; received "
                                            r"'bleu/mews'\. The nearest is 'bleu/\d/news'"):
        check.examine(settings.load(sliced, [*columns, "evaluation.thresholds.bleu/mews.min=5"]), 1)
