import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
from tfx import types
from tfx.types import standard_artifacts

from components import model_check_script
from components.model_check import SCRIPT, Executor, ModelCheck, check
from modules import serving
from modules.errors import TextrailError
from modules.manifest import MANIFEST
from modules.mask_filling import export_pretrainer
from tests.components.conftest import serialized
from tests.word_translator import make_word_translator


def test_a_good_model_is_blessed(tmp_path, keyword_model, examples_artifact):
    keyword_model(tmp_path / "m" / "Format-Serving")
    model, blessing = standard_artifacts.Model(), standard_artifacts.InfraBlessing()
    model.uri, blessing.uri = str(tmp_path / "m"), str(tmp_path / "blessing")
    examples = examples_artifact(tmp_path / "e", {"train": [("bad", "negative")], "test": [("good one", "positive")]})
    Executor().Do({"model": [model], "examples": [examples]}, {"blessing": [blessing]},
                  {"settings": json.dumps({"data": {"text": "text"}})})
    assert [path.name for path in Path(blessing.uri).iterdir()] == ["INFRA_BLESSED"]
    assert blessing.get_int_custom_property("blessed") == 1


def test_wrong_output_names_are_refused(tmp_path, keyword_model):
    with pytest.raises(TextrailError, match=r"answers \['class', 'classes', 'score', 'scores'\]"):
        check(str(keyword_model(tmp_path / "m", output_name="class")), ["text"], [])


def test_scores_that_are_not_numbers_are_refused(tmp_path, keyword_model, example_bytes):
    model = keyword_model(tmp_path / "m", broken_word="so")
    with pytest.raises(TextrailError, match="not finite"):
        check(str(model), ["text"], [example_bytes("so good", "positive")])


def test_a_translator_is_blessed(tmp_path, examples_artifact):
    make_word_translator(tmp_path / "m/Format-Serving", name="text")
    model, blessing = standard_artifacts.Model(), standard_artifacts.InfraBlessing()
    model.uri, blessing.uri = str(tmp_path / "m"), str(tmp_path / "blessing")
    rows = [{"pt": "o gato preto dorme.", "en": "the black cat sleeps."}, {"pt": "uma casa", "en": "a house"}]
    examples = examples_artifact(tmp_path / "e", {"train": rows, "test": rows})
    Executor().Do({"model": [model], "examples": [examples]}, {"blessing": [blessing]},
                  {"settings": json.dumps({"data": {"text": "pt"}})})
    assert blessing.get_int_custom_property("blessed") == 1


@pytest.mark.parametrize("fault, sentence", [
    ("batch", r"'A plain sentence\.' is translated as 'A plain sentence\.1' .* alone and as 'A plain sentence\.11' "),
    ("blank", "'', which says nothing, is translated as 'the'"),
    ("attention", r"attention over the source of 'A plain sentence\.' does not sum to 1"),
    ("examples", r"\(-1\.0400\) by the signature examples and as 'the cat sleeps\.' \(-0\.0400\) by serving_default"),
    ("truncated", "truncated is False for 5000 words, where 12 tokens are read"),
])
def test_a_translator_that_answers_wrongly_is_refused(tmp_path, fault, sentence):
    model = make_word_translator(tmp_path / "m", fault=fault)
    with pytest.raises(TextrailError, match=sentence):
        check(str(model), ["pt"], [serialized({"pt": "o gato dorme.", "en": "the cat sleeps."})])


def test_a_pretrained_encoder_is_blessed(tmp_path, tiny_pretrainer, examples_artifact):
    shutil.copytree(tiny_pretrainer[1], tmp_path / "m/Format-Serving")
    model, blessing = standard_artifacts.Model(), standard_artifacts.InfraBlessing()
    model.uri, blessing.uri = str(tmp_path / "m"), str(tmp_path / "blessing")
    rows = [{"text": "The film was bad, and long.\nNobody came."}, {"text": "good"}]
    Executor().Do({"model": [model], "examples": [examples_artifact(tmp_path / "e", {"train": rows})]},
                  {"blessing": [blessing]}, {"settings": json.dumps({"data": {"text": "text"}})})
    assert blessing.get_int_custom_property("blessed") == 1


def test_a_model_that_answers_in_python_and_not_in_tensorflow_serving_is_refused(tmp_path, tiny_pretrainer):
    """As tf.saved_model.save writes one of Keras's variables: what restores them fills others."""
    def plain_save(module, folder, signatures):
        tf.saved_model.save(module, folder, signatures=dict(signatures))

    with mock.patch.object(serving, "save", plain_save):
        export_pretrainer(tiny_pretrainer[0], str(tmp_path / "m"), max_length=16, top=3, passes=3)
    (tmp_path / "m" / MANIFEST).write_text((tiny_pretrainer[1] / MANIFEST).read_text())
    with pytest.raises(TextrailError, match=r"TensorFlow Serving cannot ask it: .*Could not find variable"):
        check(str(tmp_path / "m"), ["text"], [])


@pytest.mark.parametrize("changes, sentence", [
    ({}, ""), ({"probabilities": [[[0.2, 0.5], [0.5, 0.1]], [[0.9, 0.1], [0, 0]]]}, "probabilities do not descend"),
    ({"probabilities": [[[0.9, 0.2], [0.5, 0.1]], [[0.9, 0.1], [0, 0]]]}, "sum to more than 1"),
    ({"counts": [1, 2]}, r"'the \[MASK\] is \[MASK\]' has 2 masks, of which 1 were seen"),
    ({"counts": [1, 1]}, "words has room for 2 masks, where the most of a text are 1"),
    ({"truncated": [False, True]}, ""), ({"words": [[["a", "b"], ["a", "c"]], [["b", "a"], ["", ""]]]}, "not all of"),
    ({"words": [[["a", "b"], ["a", "b"]], [["b", "a"], ["b", ""]]]}, "has words behind the last of its 1 masks"),
    ({"probabilities": [[[math.nan, 0.2], [0.5, 0.1]], [[0.9, 0.1], [0, 0]]]}, "not finite numbers")])
def test_answers_for_masks_make_sense(tmp_path, changes, sentence):
    (tmp_path / "assets.extra/encoder").mkdir(parents=True)
    (tmp_path / "assets.extra/encoder/vocab.txt").write_text("a\nb\n")
    shape = model_check_script.Pretraining({"text": "text", "top": 2, "max_length": 16}, str(tmp_path))
    answer = {"words": [[["a", "b"], ["a", "b"]], [["b", "a"], ["", ""]]],
              "probabilities": [[[0.5, 0.2], [0.5, 0.1]], [[0.9, 0.1], [0, 0]]], "counts": [2, 1],
              "truncated": [False, False]} | changes
    answer = {name: np.array(value) for name, value in answer.items()}
    answer["words"] = answer["words"].astype("S").astype(object)
    rows = [["the [MASK] is [MASK]", "[MASK]"]]
    if sentence:
        with pytest.raises(model_check_script.Failure, match=sentence):
            shape.look(rows, answer)
    else:
        shape.look(rows, answer)
        assert shape.asked("a b c d") == "a b [MASK] d" and shape.asked("a") == "a [MASK]"


@pytest.mark.parametrize("fault, sentence", [
    ("batch", r"for 'The film was \[MASK\] and \[MASK\]\.' the probabilities are .* alone and .* in a batch"),
    ("judging", r"judging foretells '.+' with a loss of [\d.]+, serving_default with a probability of [\d.]+"),
])
def test_a_pretrained_encoder_that_answers_wrongly_is_refused(tmp_path, tiny_pretrainer, fault, sentence):
    with pytest.raises(TextrailError, match=sentence):
        check(str(make_faulty_pretrainer(tmp_path / "m", tiny_pretrainer[1], fault)), ["text"], [])


def make_faulty_pretrainer(folder, source, fault):
    """A SavedModel around another one, which spoils its answers."""
    inner = tf.saved_model.load(str(source))
    serve, judge = (inner.signatures[name] for name in ("serving_default", "examples"))

    def answer(text):
        found = dict(serve(text=text))
        rows = tf.cast(tf.shape(text)[0], tf.float32)
        return found | {"probabilities": found["probabilities"] / (rows if fault == "batch" else 1.0)}

    def judged(examples):
        found = dict(judge(examples=examples))
        return found | {"masked_loss": found["masked_loss"] + (0.1 if fault == "judging" else 0.0)}

    module = tf.Module()
    module.inner = inner
    text, examples = (tf.TensorSpec([None], tf.string, name) for name in ("text", "examples"))
    tf.saved_model.save(module, str(folder), signatures={
        "serving_default": tf.function(answer).get_concrete_function(text),
        "examples": tf.function(judged).get_concrete_function(examples),
        "transform_features": inner.signatures["transform_features"]})
    return shutil.copytree(source / "assets.extra", folder / "assets.extra").parent


def test_a_model_that_needs_an_op_nobody_registers_is_refused(tmp_path, keyword_model):
    model = keyword_model(tmp_path / "m")
    graph = model / "saved_model.pb"
    name = b"WhitespaceTokenizeWithOffsetsV2"
    assert name in graph.read_bytes()
    graph.write_bytes(graph.read_bytes().replace(name, b"Whitespace_ForgottenOpOfNobody_"[:len(name)]))
    with pytest.raises(TextrailError, match="ForgottenOpOfNobody"):
        check(str(model), ["text"], [])


def test_a_model_that_takes_too_long_is_refused(tmp_path, keyword_model):
    with pytest.raises(TextrailError, match=r"within 0\.01 s"):
        check(str(keyword_model(tmp_path / "m")), ["text"], [], timeout=0.01)


def test_neither_this_project_nor_tfx_can_be_imported_in_the_process(tmp_path):
    probe = f"""
import runpy, sys
sys.meta_path.insert(0, runpy.run_path({SCRIPT!r})["Refuse"])
refused = []
for name in ("modules", "components.verdict", "pipelines", "tfx", "tensorflow_transform"):
    try:
        __import__(name)
    except ImportError:
        refused.append(name)
import json, tensorflow, tensorflow_text
print(json.dumps([refused, sorted(name for name in sys.modules if name.split(".")[0] in ("modules", "tfx"))]))
"""
    done = subprocess.run([sys.executable, "-I", "-c", probe], cwd=tmp_path, capture_output=True, text=True, check=True)
    refused, present = json.loads(done.stdout.splitlines()[-1])
    assert refused == ["modules", "components.verdict", "pipelines", "tfx", "tensorflow_transform"] and present == []


def test_component_keeps_only_the_text_columns():
    channels = {name: types.Channel(type=kind) for name, kind in (
        ("model", standard_artifacts.Model), ("examples", standard_artifacts.Examples))}
    component = ModelCheck(settings={"data": {"text": "review", "text_pair": None, "label": "mood"}}, **channels)
    assert json.loads(component.exec_properties["settings"]) == {"data": {"text": "review", "text_pair": None}}
