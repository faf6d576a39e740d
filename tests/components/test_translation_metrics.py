import functools

import numpy as np
import pytest
import sacrebleu
import tensorflow_model_analysis as tfma

from components.translation_metrics import TranslationMetrics, sentence_chrf, signatures

PAIRS = [
    ("The black cat sleeps on top of the old chair.", "The black cat is sleeping on the old chair."),
    ("I don't know where she lives, do you?", "I do not know where she lives, do you?"),
    ("Tom's brother bought 3 books (and a map).", "Tom's brother bought three books, and a map."),
    ("the the the the", "The train left at 7:30 p.m."),
    ("", "Nobody answered."),
    ("café ½ naïve “quoted” — 日本", "Café ½ naïve “quoted” – 日本語"),
]


def metrics(pairs: list, lower_case: bool, model_name: str = "") -> dict:
    """What the metric makes of hypotheses and references, summed in two halves as workers of Beam sum them."""
    computations = TranslationMetrics(lower_case=lower_case).computations(
        eval_config=None, model_names=[model_name] if model_name else None)
    inputs = [tfma.metrics.StandardMetricInputs(
        label=np.array([[reference]], dtype=object),
        prediction={model_name: np.array([said], dtype=object), "other": np.array([said[::-1]], dtype=object)}
        if model_name else np.array([said], dtype=object)) for said, reference in pairs]
    found: dict = {}
    for computation in computations:
        if isinstance(computation, tfma.metrics.DerivedMetricComputation):
            found |= computation.result(found)
        else:
            combiner = computation.combiner
            halves = [functools.reduce(combiner.add_input, inputs[half::2], combiner.create_accumulator())
                      for half in range(2)]
            found |= combiner.extract_output(combiner.merge_accumulators(halves))
    return {key.name: value for key, value in found.items() if key.model_name == model_name}


@pytest.mark.parametrize("lower_case", [False, True])
def test_they_are_sacrebleu_s_numbers(lower_case):
    hypotheses, references = map(list, zip(*PAIRS, strict=True))
    found = metrics(PAIRS, lower_case)
    assert found["bleu"] == sacrebleu.corpus_bleu(hypotheses, [references], lowercase=lower_case).score > 20
    expected = sacrebleu.CHRF(lowercase=lower_case).corpus_score(hypotheses, [references]).score
    assert found["chrf"] == expected > 40
    assert sentence_chrf(*PAIRS[0], lower_case) == sacrebleu.CHRF(lowercase=lower_case).sentence_score(
        PAIRS[0][0], [PAIRS[0][1]]).score


def test_each_model_has_its_own_values():
    assert metrics(PAIRS, False, "candidate")["bleu"] == metrics(PAIRS, False)["bleu"]
    assert metrics(PAIRS, False, "candidate")["chrf"] == metrics(PAIRS, False)["chrf"]


def test_nothing_translated_is_0_and_everything_100():
    assert metrics([("", reference) for _, reference in PAIRS], False)["bleu"] == 0
    assert metrics([("", reference) for _, reference in PAIRS], False)["chrf"] == 0
    perfect = metrics([(reference, reference) for _, reference in PAIRS], False)
    assert perfect["bleu"] == pytest.approx(100) and perfect["chrf"] == 100


def test_real_sentences(shared_data):
    lines = (shared_data / "data/pt_en/ted_validation.tsv").read_text("utf-8").splitlines()[:300]
    references = [line.split("\t")[1] for line in lines]
    hypotheses = [" ".join(word for number, word in enumerate(reference.split()) if number % 7 != 3)
                  for reference in references]
    found = metrics(list(zip(hypotheses, references, strict=True)), False)
    assert found["bleu"] == sacrebleu.corpus_bleu(hypotheses, [references]).score
    assert found["chrf"] == sacrebleu.corpus_chrf(hypotheses, [references]).score


def test_signatures_say_how_the_numbers_came_about():
    assert signatures(False) == {
        "bleu": f"nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:{sacrebleu.__version__}",
        "chrf": f"nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:{sacrebleu.__version__}"}
    assert "case:lc" in signatures(True)["bleu"] and "case:lc" in signatures(True)["chrf"]


def test_bleu_s_interval_is_that_of_sacrebleu_s_bootstrap():
    random, words = np.random.default_rng(3), "the a cat dog sat slept on in mat house red blue".split()
    references = [" ".join(random.choice(words, 8)) for _ in range(300)]
    said = [" ".join(word if random.random() < 0.8 else str(random.choice(words)) for word in reference.split())
            for reference in references]
    found = metrics(list(zip(said, references, strict=True)), False)
    low, high = found["bleu:low"], found["bleu:high"]
    theirs = sacrebleu.BLEU().corpus_score(said, [references], n_bootstrap=1000)
    assert (low + high) / 2 == pytest.approx(theirs._mean, abs=0.4)
    assert (high - low) / 2 == pytest.approx(theirs._ci, rel=0.25)
    assert low < found["bleu"] < high and found["chrf:low"] < found["chrf"] < found["chrf:high"]
