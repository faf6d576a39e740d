import json
import math
from pathlib import Path

import pytest
from tfx.types import standard_artifacts

from components.evaluator import Evaluator, Executor
from components.verdict import load_samples, load_verdict, verdict_sentence
from modules.errors import TextrailError

# What the keyword model makes of these by hand: 15 + 16 right in short texts, 5 + 4 wrong in long ones.
ROWS = ([("good", "positive")] * 16 + [("bad film it was", "positive")] * 4
        + [("bad", "negative")] * 15 + [("good good and so on", "negative")] * 5)
LOSS = (31 * math.log(1 + math.exp(-1)) + 4 * math.log(1 + math.exp(1)) + 5 * math.log(1 + math.exp(2))) / 40


def model_artifact(folder: Path) -> standard_artifacts.Model:
    model = standard_artifacts.Model()
    model.uri = str(folder)
    return model


@pytest.fixture(scope="module")
def candidate(tmp_path_factory, keyword_model):
    folder = tmp_path_factory.mktemp("candidate")
    keyword_model(folder / "Format-Serving")
    return model_artifact(folder)


@pytest.fixture(scope="module")
def examples(tmp_path_factory, examples_artifact):
    return examples_artifact(tmp_path_factory.mktemp("examples") / "e",
                             {"train": ROWS, "validation": ROWS[:20], "test": ROWS})


SINGLE = {"text": "text", "text_pair": None, "label": "label"}


def run(tmp_path, examples, model, thresholds, baseline=None, data=SINGLE):
    """Judges in a real Beam pipeline; gives the folder of the evaluation, its verdict and the blessing."""
    outputs = {"evaluation": standard_artifacts.ModelEvaluation(), "blessing": standard_artifacts.ModelBlessing()}
    for name, artifact in outputs.items():
        artifact.uri = str(tmp_path / name)
    inputs = {"examples": [examples], "model": [model]} | ({"baseline_model": [baseline]} if baseline else {})
    settings = {"evaluation": {"thresholds": thresholds, "length_bands": [2], "overlap_bands": [50]},
                "data": data}
    context = Executor.Context(beam_pipeline_args=["--runner=DirectRunner"], tmp_dir=str(tmp_path), unique_id="1")
    Executor(context).Do(inputs, {name: [artifact] for name, artifact in outputs.items()},
                         {"settings": json.dumps(settings)})
    return load_verdict(tmp_path / "evaluation"), outputs["blessing"]


def test_numbers_are_those_worked_out_by_hand(tmp_path, examples, candidate):
    none_served = standard_artifacts.Model()
    none_served.uri = str(tmp_path / "none")
    none_served.set_int_custom_property("none", 1)
    verdict, blessing = run(tmp_path, examples, candidate,
                            {"accuracy": {"min": 0.775}, "loss": {"max": 1.0, "max_drop": 0.0}}, none_served)

    assert (verdict["split"], verdict["examples"], verdict["baseline_metrics"]) == ("test", 40, None)
    assert verdict["confusion"] == {"classes": ["negative", "positive"], "counts": [[15, 5], [4, 16]]}
    assert verdict["metrics"] == pytest.approx({
        "accuracy": 31 / 40, "loss": LOSS, "auc": (16 * 15 + 4 * 15 / 2) / 400,
        "mcc": (16 * 15 - 5 * 4) / math.sqrt(21 * 20 * 20 * 19),
        "precision/positive": 16 / 21, "recall/positive": 16 / 20, "f1/positive": 32 / 41,
        "precision/negative": 15 / 19, "recall/negative": 15 / 20, "f1/negative": 30 / 39,
        "macro_f1": (32 / 41 + 30 / 39) / 2}, abs=1e-6)

    slices = {item["slice"]: (item["examples"], item["metrics"]["accuracy"]) for item in verdict["slices"]}
    assert slices == {"label=negative": (20, 0.75), "label=positive": (20, 0.8),
                      "length_band=1-2": (31, 1.0), "length_band=>2": (9, 0.0)}
    positive = verdict["slices"][1]["metrics"]
    assert positive["auc"] is None and positive["recall/negative"] is None  # no negative example in this slice

    kept = load_samples(tmp_path / "evaluation")
    sure, surer = 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(-2))
    assert kept["calibration"] == [{"examples": 35, "confidence": pytest.approx(sure), "accuracy": 31 / 35},
                                   {"examples": 5, "confidence": pytest.approx(surer), "accuracy": 0.0}]
    surest = {"text": "good good and so on", "label": "negative", "predicted": "positive",
              "score": pytest.approx(surer)}
    others = {"text": "bad film it was", "label": "positive", "predicted": "negative", "score": pytest.approx(sure)}
    assert kept["mistakes"] == [surest] * 5 + [others] * 4

    assert verdict["passed"] and blessing.get_int_custom_property("blessed") == 1
    assert [path.name for path in Path(blessing.uri).iterdir()] == ["BLESSED"]
    assert blessing.get_string_custom_property("current_model") == candidate.uri
    assert "all 2 thresholds" in verdict_sentence(verdict)

    import tensorflow_model_analysis as tfma
    loaded = dict(tfma.load_eval_result(str(tmp_path / "evaluation")).get_metrics_for_all_slices())
    assert loaded[()]["accuracy"]["doubleValue"] == 0.775


def test_better_than_the_served_model_is_blessed_and_worse_is_not(tmp_path, examples, candidate, keyword_model):
    # The served model takes "bad" for praise, and its classes stand in another order.
    keyword_model(tmp_path / "served" / "Format-Serving", classes=("positive", "negative"), keywords=("bad", "good"))
    served = model_artifact(tmp_path / "served")
    verdict, blessing = run(tmp_path, examples, candidate,
                            {"accuracy": {"min": 0.7, "max_drop": 0.0}, "loss": {"max_drop": 0.0}}, served)
    assert verdict["baseline_metrics"]["accuracy"] == 9 / 40
    assert verdict["baseline_metrics"]["recall/positive"] == 4 / 20
    assert verdict["baseline_metrics"]["auc"] == pytest.approx(1 - verdict["metrics"]["auc"])
    assert [(row["verdict"], row["why"]) for row in verdict["rows"]] == [("passed", ""), ("passed", "")]
    assert verdict["rows"][0]["change"] == pytest.approx(22 / 40)
    assert blessing.get_int_custom_property("blessed") == 1
    assert blessing.get_string_custom_property("baseline_model") == served.uri

    # The other way round the candidate falls behind in accuracy, though it stands above its bound.
    verdict, blessing = run(tmp_path / "reverse", examples, served,
                            {"accuracy": {"min": 0.2, "max_drop": 0.01}}, candidate)
    assert verdict["confusion"] == {"classes": ["positive", "negative"], "counts": [[4, 16], [15, 5]]}
    assert not verdict["passed"] and blessing.get_int_custom_property("blessed") == 0
    assert [path.name for path in Path(blessing.uri).iterdir()] == ["NOT_BLESSED"]
    assert verdict["rows"][0]["why"] == "0.225 is 0.55 worse than the served model's 0.775, allowed are 0.01"
    assert "accuracy: 0.225 is 0.55 worse" in verdict_sentence(verdict)


def test_a_score_that_is_not_a_number_fails_every_metric(tmp_path, examples, keyword_model):
    keyword_model(tmp_path / "broken" / "Format-Serving", broken_word="so")
    verdict, blessing = run(tmp_path, examples, model_artifact(tmp_path / "broken"), {"accuracy": {"min": 0.1}})
    assert verdict["rows"][0]["value"] is None and "not a number" in verdict["rows"][0]["why"]
    assert verdict["examples"] == 40 and set(verdict["metrics"].values()) == {None}
    assert blessing.get_int_custom_property("blessed") == 0


def test_three_classes_on_validation_where_test_is_empty(tmp_path, examples_artifact, keyword_model):
    keyword_model(tmp_path / "m" / "Format-Serving", classes=("a", "b", "c"), keywords=("x", "y", "z"))
    rows = [("x", "a")] * 3 + [("y", "b")] * 2 + [("x", "b")] * 2 + [("z", "c")] * 4 + [("y", "c")]
    artifact = examples_artifact(tmp_path / "e", {"train": rows, "validation": rows, "test": []})
    verdict, _ = run(tmp_path, artifact, model_artifact(tmp_path / "m"), {"precision/c": {"min": 1.0}})
    assert verdict["split"] == "validation" and verdict["passed"] and "auc" not in verdict["metrics"]
    assert verdict["confusion"]["counts"] == [[3, 0, 0], [2, 2, 0], [0, 1, 4]]
    # Gorodkin: (9·12 - (3·5 + 4·3 + 5·4)) / sqrt((144 - 50)(144 - 50))
    assert verdict["metrics"]["mcc"] == pytest.approx(61 / 94)


def test_pairs_are_sliced_by_the_words_they_share(tmp_path, examples_artifact, candidate):
    rows = ([("good film", "positive", "a film, good")] * 3      # 2 of 3 words
            + [("good film", "negative", "Film: good!")] * 2     # all words, and still another label
            + [("bad", "negative", "it was poor")])              # none
    artifact = examples_artifact(tmp_path / "e", {"train": rows, "test": rows})
    verdict, _ = run(tmp_path, artifact, candidate, {"accuracy": {"min": 0.1}, "accuracy/Film: good!": {"min": 0.1}},
                     data={**SINGLE, "text_pair": "other", "slice": "other"})
    slices = {item["slice"]: (item["examples"], item["metrics"]["accuracy"]) for item in verdict["slices"]
              if "word_overlap" in item["slice"]}
    assert slices == {"word_overlap=0-50": (1, 1.0), "word_overlap=>50": (5, 0.6),
                      "label=negative, word_overlap=0-50": (1, 1.0), "label=negative, word_overlap=>50": (2, 0.0),
                      "label=positive, word_overlap=>50": (3, 1.0)}
    # The settings may name a column, here the second text, whose values slice, and bound the metrics of one.
    assert [row["verdict"] for row in verdict["rows"]] == ["passed", "failed"]
    assert verdict["metrics"]["accuracy/a film, good"] == 1.0
    assert ("other=it was poor", 1) in [(part["slice"], part["examples"]) for part in verdict["slices"]]


def test_a_label_that_the_model_does_not_know_is_told(tmp_path, examples_artifact, candidate):
    artifact = examples_artifact(tmp_path / "e", {"train": ROWS, "test": [("good", "mixed")]})
    with pytest.raises(Exception, match=r"labels among the model's classes .* received label='mixed'"):
        run(tmp_path, artifact, candidate, {"accuracy": {"min": 0.5}})


def test_a_threshold_on_an_unknown_metric_names_the_nearest(tmp_path, examples, candidate):
    with pytest.raises(TextrailError, match="nearest is 'recall/positive'"):
        run(tmp_path, examples, candidate, {"recall/positve": {"min": 0.5}})


def test_component_takes_channels_and_settings():
    from tfx import types
    channels = {name: types.Channel(type=kind) for name, kind in (
        ("examples", standard_artifacts.Examples), ("model", standard_artifacts.Model))}
    evaluation = {"thresholds": {"accuracy": {"min": 0.5}}, "length_bands": [16, 32], "overlap_bands": [50]}
    settings = {"seed": 3, "evaluation": evaluation, "data": {**SINGLE, "path": "rows.csv"}, "training": {}}
    component = Evaluator(settings=settings, **channels)
    assert component.outputs["blessing"].type is standard_artifacts.ModelBlessing
    # The cache sees thresholds and bands, and nothing that judging does not read.
    assert json.loads(component.exec_properties["settings"]) == {
        "seed": 3, "evaluation": evaluation, "data": {**SINGLE, "target": None, "slice": None}}
