"""Artifacts and parameters from Kubeflow's messages to an executor, and back."""

import json

import pytest
from tfx.types import standard_artifacts

from components.artifacts import Report
from components.pusher import Pusher
from kubeflow.entrypoint import component_class, execute, new_artifact, parameters, read_artifact, written
from kubeflow.executor_input import ExecutorInput, Place
from modules.errors import TextrailError
from tests.kubeflow.test_executor_input import message


def test_properties_come_back_as_they_went(tmp_path):
    made = new_artifact(standard_artifacts.Examples, Place("examples", "s3://b/e", str(tmp_path / "e"), {}))
    made.split_names, made.span = '["train", "test"]', 3
    made.set_int_custom_property("rows_train", 240)
    made.set_string_custom_property("file_format", "tfrecords_gzip")
    told = written(made, Place("examples", "s3://b/e", str(tmp_path / "e"), {}), {})
    assert told == {"name": "examples", "uri": "s3://b/e", "metadata": {
        "split_names": '["train", "test"]', "span": 3, "rows_train": 240, "file_format": "tfrecords_gzip"}}
    # ML Metadata of Kubeflow has numbers of one kind only.
    returned = {key: float(value) if isinstance(value, int) else value for key, value in told["metadata"].items()}
    read = read_artifact(standard_artifacts.Examples, Place("12", "s3://b/e", "/s3/b/e", returned))
    assert (read.id, read.uri, read.split_names, read.span) == (12, "/s3/b/e", made.split_names, 3)
    assert read.get_int_custom_property("rows_train") == 240
    assert read.get_string_custom_property("file_format") == "tfrecords_gzip"


def test_a_report_is_shown_as_its_file(tmp_path):
    place = Place("report", "s3://b/report", str(tmp_path / "report"), {})
    assert written(new_artifact(Report, place), place, {})["uri"] == "s3://b/report/report.html"


def test_parameters_have_the_types_of_the_spec():
    task = ExecutorInput(message(parameters={"keep": 5.0, "destination": "/mnt/models", "executor_code": "abc"}))
    assert parameters(Pusher, task) == {"keep": 5, "destination": "/mnt/models"}
    assert isinstance(parameters(Pusher, task)["keep"], int)


@pytest.mark.parametrize("path", ["components.pusher.Pusher", "components.anomaly_gate.AnomalyGate",
                                  "tfx.components.statistics_gen.component.StatisticsGen"])
def test_components_are_found_by_their_paths(path):
    assert component_class(path).__name__ == path.rpartition(".")[2]


def test_an_image_without_the_component_says_so():
    with pytest.raises(TextrailError, match=r"expected the component components\.none\.None in the image"):
        component_class("components.none.None")


def test_an_executor_runs_with_what_the_message_says(tmp_path):
    """ServedModel, which needs neither Beam nor a model: nothing is served yet."""
    model = {"name": "model", "uri": "s3://b/m", "customPath": str(tmp_path / "m")}
    task = ExecutorInput(message(parameters={"destination": str(tmp_path / "none"), "version": ""},
                                 outputs={"model": model, "executor-logs": {"name": "l", "uri": "s3://b/l"}}))
    answer = execute(component_class("components.served_model.ServedModel"), task)
    assert json.loads(json.dumps(answer)) == {
        "artifacts": {"model": {"artifacts": [{"name": "model", "uri": "s3://b/m", "metadata": {"none": 1}}]}}}
