import json
import subprocess
import sys
from pathlib import Path

import pytest
from tfx import types
from tfx.types import standard_artifacts

from components.model_check import SCRIPT, Executor, ModelCheck, check
from modules.errors import TextrailError
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
