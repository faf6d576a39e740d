"""What counts for the cache and what does not, on a project of four files."""

import ast
import re
import shutil

import pytest

from components.code_fingerprint import PROJECT, code_fingerprint, executor_fingerprint

TASK = '''
import os
import json
from modules.encode import encode, other
from modules import train as trainer

LIMIT = 8

def helper(text):
    """Cuts."""
    return text[:LIMIT]

def preprocessing_fn(inputs):
    return encode(helper(inputs))

def run_fn(args):
    from modules.late import late
    return trainer.run(args, late, preprocessing_fn)
'''


@pytest.fixture
def project(tmp_path):
    (tmp_path / "modules").mkdir()
    files = {"task": TASK, "encode": "from modules.deep import deep\ndef encode(x): return deep(x)\n",
             "deep": "def deep(x): return x\n", "train": "def run(*args): pass\n", "late": "late = 1\n"}
    for name, text in files.items():
        (tmp_path / "modules" / f"{name}.py").write_text(text)
    return tmp_path


def changed(project, module: str, old: str, new: str) -> tuple[bool, bool]:
    """Whether an edit changes the fingerprints of preprocessing_fn and run_fn."""
    def both() -> list[str]:
        return [code_fingerprint(f"modules.task.{name}", project) for name in ("preprocessing_fn", "run_fn")]

    before, path = both(), project / "modules" / f"{module}.py"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return tuple(a != b for a, b in zip(before, both(), strict=True))


@pytest.mark.parametrize("module, old, new, expected", [
    ("task", "late, preprocessing_fn)", "late, preprocessing_fn, 1)", (False, True)),  # the training half
    ("task", "text[:LIMIT]", "text[1:LIMIT]", (True, True)),  # a function it calls
    ("task", "LIMIT = 8", "LIMIT = 9", (True, True)),  # a constant that function uses
    ("task", "import os\n", "", (False, False)),  # nobody's
    ("task", "encode, other", "encode, another", (False, False)),  # a neighbour on the same line
    ("task", "LIMIT = 8", "LIMIT = 8  # tokens\n\n", (False, False)),  # comments and layout
    ("encode", "deep(x)", "deep(x + 1)", (True, True)),
    ("deep", "return x", "return -x", (True, True)),  # imported by what is imported
    ("train", "pass", "return 1", (False, True)),
    ("late", "late = 1", "late = 2", (False, True)),  # imported inside the function
])
def test_an_edit_counts_where_it_is_used(project, module, old, new, expected):
    assert changed(project, module, old, new) == expected


def test_it_is_a_sha256_of_source_and_imports_nothing(project):
    (project / "modules" / "deep.py").write_text("raise SystemExit\n")
    assert re.fullmatch("[0-9a-f]{64}", code_fingerprint("modules.task.preprocessing_fn", project))


def test_an_unknown_name_is_told(project):
    with pytest.raises(KeyError, match="gone"):
        code_fingerprint("modules.task.gone", project)


def test_the_training_half_of_the_classifier_does_not_concern_transform():
    own = code_fingerprint("modules.classifier.preprocessing_fn")
    assert own == code_fingerprint("modules.classifier.preprocessing_fn") and len(own) == 64


@pytest.mark.parametrize("executor, edited", [
    ("components.example_gen.Executor", "source_csv"), ("components.example_gen.Executor", "splits_writer"),
    ("components.schema_gen.SchemaGen_Executor", "schema_gen"),
    ("components.anomaly_gate.AnomalyGate_Executor", "anomaly_gate"),
    ("components.encoder_importer.EncoderImporter_Executor", "encoder_importer"),
    ("components.encoder_importer.EncoderImporter_Executor", "encoder_sources"),
    ("components.text_transform.Executor", "text_transform"), ("components.trainer.Executor", "trainer"),
    ("components.evaluator.Executor", "judging"), ("components.evaluator.Executor", "classification_metrics"),
    ("components.model_check.Executor", "model_check_script"), ("components.pusher.Executor", "pusher")])
def test_an_executor_s_fingerprint_sees_all_that_it_runs(tmp_path, executor, edited):
    for package in ("components", "modules"):
        shutil.copytree(PROJECT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    before = executor_fingerprint(executor, tmp_path)
    path = tmp_path / "components" / f"{edited}.py"
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):  # Every function does one thing more.
        if isinstance(node, ast.FunctionDef):
            node.body.append(ast.Pass())
    path.write_text(ast.unparse(tree))
    assert executor_fingerprint(executor, tmp_path) != before
    others = {"components.example_gen.Executor", "components.trainer.Executor"} - {executor}
    for other in others:
        assert executor_fingerprint(other, tmp_path) == executor_fingerprint(other), f"{other} does not run {edited}"


def test_transform_and_trainer_do_not_run_the_task_s_module_as_a_whole(tmp_path):
    for package in ("components", "modules"):
        shutil.copytree(PROJECT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "modules" / "classifier.py").open("a") as file:
        file.write("more = 1\n")
    for executor in ("components.text_transform.Executor", "components.trainer.Executor"):
        assert executor_fingerprint(executor, tmp_path) == executor_fingerprint(executor)


def test_executors_of_others_have_no_fingerprint():
    assert executor_fingerprint("tfx.components.statistics_gen.executor.Executor") == executor_fingerprint("") == ""
