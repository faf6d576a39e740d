"""Translators judged in a real Beam pipeline, each number held against sacrebleu's own."""

import hashlib
import json

import pytest
import sacrebleu
from tfx.types import standard_artifacts

from components.evaluator import Executor
from components.verdict import load_samples, load_verdict
from modules.errors import TextrailError
from tests.word_translator import WORDS, make_word_translator

DATA = {"text": "pt", "target": "en", "label": None, "slice": "kind"}
ROWS = [{"pt": pt, "en": en, "kind": kind} for pt, en, kind in [
    ("o gato preto dorme.", "The black cat sleeps.", "seen"),
    ("a casa é grande.", "the house is big.", "seen"),
    ("o gato é preto.", "the cat is black.", "seen"),
    ("a casa grande é preto.", "the big house is black.", "unseen"),
    ("o gato grande dorme em casa.", "the big cat sleeps at home.", "unseen"),
    ("a casa dorme.", "nothing alike", "unseen"),
    ("o gato", "the cat", ""),
]]


def translated(text, words=WORDS):
    """What the word translator makes of a sentence."""
    return " ".join(words.get(word, word) for word in text.replace(".", " .").split()).replace(" .", ".")


def bleu_and_chrf(rows, words=WORDS, lower_case=False):
    said, references = [translated(row["pt"], words) for row in rows], [[row["en"] for row in rows]]
    return {"bleu": sacrebleu.corpus_bleu(said, references, lowercase=lower_case).score,
            "chrf": sacrebleu.CHRF(lowercase=lower_case).corpus_score(said, references).score}


def model_artifact(folder, **options):
    make_word_translator(folder / "Format-Serving", **options)
    model = standard_artifacts.Model()
    model.uri = str(folder)
    return model


@pytest.fixture(scope="module")
def candidate(tmp_path_factory):
    return model_artifact(tmp_path_factory.mktemp("candidate"))


@pytest.fixture(scope="module")
def examples(tmp_path_factory, examples_artifact):
    return examples_artifact(tmp_path_factory.mktemp("examples") / "e", {"train": ROWS, "test": ROWS})


def run(folder, rows, model, thresholds, baseline=None, data=DATA, **evaluation):
    outputs = {"evaluation": standard_artifacts.ModelEvaluation(), "blessing": standard_artifacts.ModelBlessing()}
    for name, artifact in outputs.items():
        artifact.uri = str(folder / name)
    inputs = {"examples": [rows], "model": [model]} | ({"baseline_model": [baseline]} if baseline else {})
    settings = {"seed": 7, "data": data, "evaluation": {
        "thresholds": thresholds, "length_bands": [5, 6], "lower_case": False, "examples": 2} | evaluation}
    context = Executor.Context(beam_pipeline_args=["--runner=DirectRunner"], tmp_dir=str(folder), unique_id="1")
    Executor(context).Do(inputs, {name: [artifact] for name, artifact in outputs.items()},
                         {"settings": json.dumps(settings)})
    return load_verdict(folder / "evaluation"), outputs["blessing"]


@pytest.fixture(scope="module")
def judged(tmp_path_factory, examples, candidate):
    """Folder, verdict and blessing beside a served model that knows fewer words."""
    folder = tmp_path_factory.mktemp("judged")
    few = {"o": "the", "a": "the"}
    served = model_artifact(folder / "served", words=few)
    thresholds = {"bleu": {"min": 10.0, "max_drop": 0.0}, "chrf/unseen": {"min": 99.0},
                  "bleu/seen": {"min": 1.0, "max_drop": 1.0}}
    return folder, few, *run(folder, examples, candidate, thresholds, served)


def test_numbers_of_all_rows_and_of_slices_are_sacrebleu_s(judged):
    _, few, verdict, _ = judged
    for metrics, words in ((verdict["metrics"], WORDS), (verdict["baseline_metrics"], few)):
        of_slices = {f"{name}/{value}": number
                     for value, kind in (("seen", "seen"), ("unseen", "unseen"), ("(none)", ""))
                     for name, number in bleu_and_chrf([row for row in ROWS if row["kind"] == kind], words).items()}
        assert metrics == pytest.approx(bleu_and_chrf(ROWS, words) | of_slices, abs=1e-9)
    assert verdict["shape"] == "translation" and verdict["examples"] == 7

    bands = {"1-5": [ROWS[6]], "6-6": [ROWS[5]], ">6": ROWS[:5]}  # tokens, [START] and [END] included
    assert [(part["slice"], part["examples"]) for part in verdict["slices"]] == [
        ("kind=(none)", 1), ("kind=seen", 3), ("kind=unseen", 3),
        ("length_band=1-5", 1), ("length_band=6-6", 1), ("length_band=>6", 5)]
    for part in verdict["slices"][3:]:
        assert part["metrics"] == pytest.approx(bleu_and_chrf(bands[part["slice"].partition("=")[2]]), abs=1e-9)
    assert verdict["signatures"]["bleu"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")


def test_a_slice_and_the_served_model_hold_up_the_push(judged):
    _, few, verdict, blessing = judged
    assert [(row["metric"], row["verdict"]) for row in verdict["rows"]] == [
        ("bleu", "passed"), ("chrf/unseen", "failed"), ("bleu/seen", "passed")]
    assert verdict["rows"][0]["baseline"] == pytest.approx(bleu_and_chrf(ROWS, few)["bleu"])
    assert verdict["rows"][1]["why"].endswith("is below the bound 99")
    assert blessing.get_int_custom_property("blessed") == 0


def test_worst_best_and_random_translations_are_kept(judged):
    folder, _, _, _ = judged
    kept = load_samples(folder / "evaluation")
    assert list(kept) == ["worst", "random", "best"]
    quality = {row["pt"]: sacrebleu.sentence_chrf(translated(row["pt"]), [row["en"]]).score for row in ROWS}
    assert [sample["source"] for sample in kept["worst"]] == sorted(quality, key=quality.get)[:2]
    assert [sample["chrf"] for sample in kept["best"]] == sorted((chrf for chrf in quality.values()), reverse=True)[:2]
    assert kept["worst"][0] == {
        "source": "a casa dorme.", "reference": "nothing alike", "translation": "the house sleeps.",
        "score": pytest.approx(-0.04), "chrf": pytest.approx(quality["a casa dorme."])}
    drawn = sorted(ROWS, key=lambda row: hashlib.sha256(f"7 {row['pt']}".encode()).hexdigest())[:2]
    assert [sample["source"] for sample in kept["random"]] == [row["pt"] for row in drawn]


def test_lower_case_and_nothing_kept(tmp_path, examples, candidate):
    verdict, _ = run(tmp_path, examples, candidate, {"chrf": {"min": 1.0}}, data={**DATA, "slice": None},
                     lower_case=True, examples=0)
    assert verdict["metrics"] == pytest.approx(bleu_and_chrf(ROWS, lower_case=True), abs=1e-9)
    assert verdict["metrics"]["bleu"] > bleu_and_chrf(ROWS)["bleu"]
    assert "case:lc" in verdict["signatures"]["chrf"] and load_samples(tmp_path / "evaluation") == {}
    assert verdict["passed"] and verdict["baseline_metrics"] is None


def test_a_threshold_on_a_slice_that_no_row_has_names_the_nearest(tmp_path, examples, candidate):
    with pytest.raises(TextrailError, match=r"received 'bleu/unsen'\. The nearest is 'bleu/unseen'"):
        run(tmp_path, examples, candidate, {"bleu/unsen": {"min": 1.0}})
    with pytest.raises(TextrailError, match="one of bleu, chrf; received 'bleu/unseen'"):
        run(tmp_path / "none", examples, candidate, {"bleu/unseen": {"min": 1.0}}, data={**DATA, "slice": None})


def test_real_sentences_through_the_pipeline(tmp_path, examples_artifact, candidate, shared_data):
    """300 sentences, most of them unknown to the model, in the order of their lengths and back."""
    lines = (shared_data / "data/pt_en/ted_validation.tsv").read_text("utf-8").splitlines()[:300]
    rows = [dict(zip(("pt", "en"), line.split("\t"), strict=True)) for line in lines]
    artifact = examples_artifact(tmp_path / "e", {"train": rows[:1], "validation": rows})
    verdict, _ = run(tmp_path, artifact, candidate, {"chrf": {"min": 1.0}}, data={**DATA, "slice": None})
    words = [row["pt"].replace(".", " . ").split()[:10] for row in rows]  # the model's longest
    said = [" ".join(WORDS.get(word, word) for word in row).replace(" .", ".") for row in words]
    assert verdict["metrics"]["chrf"] == sacrebleu.corpus_chrf(said, [[row["en"] for row in rows]]).score
    assert verdict["metrics"]["bleu"] == sacrebleu.corpus_bleu(said, [[row["en"] for row in rows]]).score
