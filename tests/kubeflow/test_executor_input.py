"""What the launcher says, as it says it, and what it reads."""

import json

import pytest

from kubeflow.executor_input import ExecutorInput, local_path
from modules.errors import TextrailError


def message(inputs=None, parameters=None, outputs=None, file="/s3/b/task/output_metadata.json") -> str:
    return json.dumps({
        "inputs": {"artifacts": {key: {"artifacts": [one]} for key, one in (inputs or {}).items()},
                   "parameterValues": parameters or {}},
        "outputs": {"artifacts": {key: {"artifacts": [one]} for key, one in (outputs or {}).items()},
                    "outputFile": str(file)}})


@pytest.mark.parametrize(("uri", "path"), [
    ("s3://bucket/a/b", "/s3/bucket/a/b"), ("minio://bucket/a", "/minio/bucket/a"), ("gs://bucket/a", "/gcs/bucket/a")])
def test_a_uri_lies_where_the_launcher_puts_it(uri, path):
    assert local_path(uri) == path


def test_another_scheme_is_refused():
    with pytest.raises(TextrailError, match=r"s3://, minio://, gs://; received hdfs://a/b\. Set another --pipeline"):
        local_path("hdfs://a/b")


def test_kubeflows_own_output_and_properties_are_left_out():
    task = ExecutorInput(message(
        inputs={"model": {"name": "5", "uri": "s3://b/m", "metadata": {"blessed": 1, "display_name": "x"}}},
        outputs={"model": {"name": "model", "uri": "s3://b/n"}, "executor-logs": {"uri": "s3://b/logs"}}))
    assert list(task.outputs) == ["model"]
    assert task.inputs["model"][0].metadata == {"blessed": 1}


def test_a_custom_path_goes_before_that_of_the_uri():
    task = ExecutorInput(message(inputs={"model": {"name": "5", "uri": "s3://b/m", "customPath": "/elsewhere"}}))
    assert task.inputs["model"][0].path == "/elsewhere"


def test_parameters_get_paths_for_what_was_brought_and_for_nothing_else():
    task = ExecutorInput(message(
        inputs={"imported_data_path": {"name": "1", "uri": "s3://b/a"}, "model": {"name": "2", "uri": "s3://b/m"}},
        parameters={"data": '{"path": "s3://b/a/*.csv"}', "other": "s3://b/ab s3://b/a.csv s3://b/m", "count": 3}))
    assert task.parameters == {"data": '{"path": "/s3/b/a/*.csv"}', "other": "s3://b/ab s3://b/a.csv s3://b/m",
                               "count": 3}


def test_on_a_volume_the_properties_say_where_an_artifact_lies():
    task = ExecutorInput(message(outputs={"model": {"name": "model", "uri": "s3://b/run/model"}}), root="/mnt/runs")
    made = task.outputs["model"]
    assert (made.path, made.uri) == ("/mnt/runs/b/run/model", "s3://b/run/model")
    behind = ExecutorInput(message(inputs={"model": {
        "name": "7", "uri": made.uri, "metadata": task.stored_at(made)}}), root="/mnt/runs")
    assert behind.inputs["model"][0].path == made.path
    assert behind.inputs["model"][0].metadata == {}


def test_an_answer_is_written_whole(tmp_path):
    file = tmp_path / "task" / "output_metadata.json"
    ExecutorInput(message(file=file)).answer({"parameterValues": {"found": "é"}})
    assert json.loads(file.read_text("utf-8")) == {"parameterValues": {"found": "é"}}
    assert list(file.parent.iterdir()) == [file]


def test_something_else_than_a_message_is_refused():
    with pytest.raises(TextrailError, match="Let Kubeflow start this"):
        ExecutorInput("{{$}}")
