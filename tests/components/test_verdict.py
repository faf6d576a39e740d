import json
import math
import subprocess
import sys

import pytest

from components.verdict import (
    check_thresholds,
    load_verdict,
    metric_names,
    pretraining_metric_names,
    threshold_rows,
    translation_metric_names,
    verdict_sentence,
)
from modules.errors import TextrailError


def test_rows_tell_value_bounds_change_and_why():
    rows = threshold_rows({"accuracy": {"min": 0.9, "max_drop": 0.02}, "loss": {"max": 0.5, "max_drop": 0.1}},
                 {"accuracy": 0.88, "loss": 0.45}, {"accuracy": 0.9, "loss": 0.3})
    assert rows[0] == {"metric": "accuracy", "value": 0.88, "min": 0.9, "max": None, "max_drop": 0.02,
                       "baseline": 0.9, "change": pytest.approx(-0.02), "verdict": "failed",
                       "why": "0.88 is below the bound 0.9"}  # a drop of exactly max_drop is acceptable
    assert rows[1]["verdict"] == "failed"
    assert rows[1]["why"] == "0.45 is 0.15 worse than the served model's 0.3, allowed are 0.1"


@pytest.mark.parametrize(("value", "passed"), [(0.9, True), (0.9 - 1e-12, True), (0.8999, False), (math.nan, False)])
def test_a_bound_is_met_by_its_own_value(value, passed):
    row, = threshold_rows({"accuracy": {"min": 0.9}}, {"accuracy": value}, None)
    assert (row["verdict"] == "passed") is passed and (row["baseline"], row["change"]) == (None, None)


def test_nothing_falls_behind_a_served_value_that_is_missing_or_broken():
    for baseline in (None, {"f1/new": 0.5}, {"accuracy": math.nan}):
        row, = threshold_rows({"accuracy": {"max_drop": 0.0}}, {"accuracy": 0.1}, baseline)
        assert row["verdict"] == "passed" and row["change"] is None


def test_perplexity_and_losses_worsen_as_they_grow_and_accuracies_as_they_fall():
    allowed = {name: {"min": 0, "max_drop": 0.5} for name in pretraining_metric_names(True)}
    served = {"masked_accuracy": 2.0, "masked_loss": 2.0, "pseudo_perplexity": 20.0, "next_accuracy": 2.0}
    grown = threshold_rows(allowed, {name: value + 1 for name, value in served.items()}, served)
    fallen = threshold_rows(allowed, {name: value - 1 for name, value in served.items()}, served)
    assert {row["metric"] for row in grown if row["verdict"] == "failed"} == {"masked_loss", "pseudo_perplexity"}
    assert {row["metric"] for row in fallen if row["verdict"] == "failed"} == {"masked_accuracy", "next_accuracy"}
    assert {row["change"] for row in grown} == {1} and {row["change"] for row in fallen} == {-1}


def test_sentences_and_file(tmp_path):
    rows = threshold_rows({"accuracy": {"min": 0.9}, "loss": {"max": 1}, "mcc": {"min": 0.5}},
                 {"accuracy": 0.871, "loss": 0.4, "mcc": math.nan}, None)
    (tmp_path / "verdict.json").write_text(
        json.dumps({"passed": False, "split": "test", "examples": 300, "rows": rows}, allow_nan=False))
    sentence = verdict_sentence(load_verdict(tmp_path))
    assert "accuracy: 0.871 is below the bound 0.9, and mcc: not a number" in sentence
    assert "(300 examples of the test split)" in sentence and "loss" not in sentence


def test_names_of_metrics():
    assert metric_names(["no", "yes"])[:6] == ["accuracy", "loss", "macro_f1", "mcc", "auc", "precision/no"]
    known = metric_names(["no", "yes"])
    check_thresholds(["auc", "f1/yes"], known)
    with pytest.raises(TextrailError, match="accuracy"):
        check_thresholds(["acuracy"], known)
    with pytest.raises(TextrailError, match="received 'auc'"):
        check_thresholds(["auc"], metric_names(["a", "b", "c"]))
    with pytest.raises(TextrailError, match="at least one threshold"):
        check_thresholds([], known)
    with pytest.raises(TextrailError, match="received 'next_accuracy'"):
        check_thresholds(["next_accuracy"], pretraining_metric_names(next_sentence=False))


def test_names_of_metrics_of_slices():
    known = translation_metric_names()
    assert translation_metric_names(["seen"]) == [*known, "bleu/seen", "chrf/seen"] == [
        "bleu", "chrf", "bleu/seen", "chrf/seen"]
    check_thresholds(["chrf", "bleu/seen"], known, slices=True)
    check_thresholds(["accuracy/seen"], metric_names(["no", "yes"]), slices=True)
    with pytest.raises(TextrailError, match=r"received 'bleu/sen'.*nearest is 'bleu/seen'"):
        check_thresholds(["bleu/sen"], translation_metric_names(["seen", "unseen"]))
    with pytest.raises(TextrailError, match="received 'blue/seen'"):
        check_thresholds(["blue/seen"], known, slices=True)
    with pytest.raises(TextrailError, match="nearest is 'recall/no'"):
        check_thresholds(["recall/on"], metric_names(["no", "yes"]), slices=True)


def test_the_terminal_reads_verdicts_and_versions_without_tensorflow():
    code = "import sys, components.verdict, components.versions; print({'tensorflow', 'tfx'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
