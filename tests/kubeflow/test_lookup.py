"""What the first task finds, and that it finds the same as long as nothing changed."""

import json
import os
from pathlib import Path

from kubeflow.executor_input import ExecutorInput
from kubeflow.lookup import date_by_content, look, run
from pipelines.place import recipe
from tests.kubeflow.test_executor_input import message

READS = {"shape": "classification", "text": "review", "text_pair": None, "target": None}


def request(tmp_path: Path, forced: bool = False, **read) -> dict:
    return {"read": {"schema": [None], **read}, "destination": str(tmp_path / "pushed"), "code": "c", "reads": READS,
            "forced": forced}


def serve(tmp_path: Path, version: str, **facts) -> None:
    folder = tmp_path / "pushed" / version
    (folder / "assets.extra").mkdir(parents=True)
    (folder / "saved_model.pb").touch()
    manifest = {**READS, "recipe": recipe("c", {"schema": ""}), "model": "/s3/b/model", "attempt": "a",
                "baseline_version": "6"} | facts
    (folder / "assets.extra" / "textrail.json").write_text(json.dumps(manifest))


def test_nothing_served_is_compared_with_nothing(tmp_path):
    found = look(request(tmp_path))
    assert (found["schema"], found["baseline"]) == ("", "")
    assert found["recipe"] == recipe("c", {"schema": ""}) and len(found["attempt"]) == 32


def test_a_model_of_the_same_recipe_is_the_runs_own_unless_it_is_to_be_a_new_one(tmp_path):
    serve(tmp_path, "7")
    found = look(request(tmp_path))
    assert (found["baseline"], found["attempt"]) == ("6", "a")
    found = look(request(tmp_path, forced=True))
    assert found["baseline"] == "7" and found["attempt"] != "a"
    serve(tmp_path, "8", recipe="of other data")
    assert look(request(tmp_path))["baseline"] == "8"


def test_files_that_were_brought_again_are_the_same(tmp_path):
    """Weights count by size and time of change, and what was downloaded was changed a moment ago."""
    file = tmp_path / "weights" / "model.safetensors"
    file.parent.mkdir()
    times = []
    for content, written_at in ((b"first", 1e9), (b"first", 1.1e9), (b"other", 1e9)):
        file.write_bytes(content)
        os.utime(file, (written_at, written_at))
        date_by_content(file.parent)
        times.append(file.stat().st_mtime)
    assert times[0] == times[1] != times[2]


def test_the_answer_has_parameters_alone(tmp_path):
    task = ExecutorInput(message(parameters={"request": json.dumps(request(tmp_path))}))
    assert set(run(task)) == {"parameterValues"}
    assert set(run(task)["parameterValues"]) == {"schema", "recipe", "baseline", "attempt"}
