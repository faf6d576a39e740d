import json

import tensorflow as tf
from tfx import types
from tfx.types import standard_artifacts

from components.artifacts import DataBlessing, Report
from components.run_report import MAKERS, Executor, RunReport

TYPES = {"examples": standard_artifacts.Examples, "statistics": standard_artifacts.ExampleStatistics,
         "anomalies": standard_artifacts.ExampleAnomalies, "gate": DataBlessing,
         "transformed_examples": standard_artifacts.Examples, "model": standard_artifacts.Model,
         "model_run": standard_artifacts.ModelRun, "evaluation": standard_artifacts.ModelEvaluation,
         "pushed_model": standard_artifacts.PushedModel}
SETTINGS = {"shape": "translation", "seed": 1, "data": {"source": "csv", "text": "pt", "target": "en"}}


def test_inputs_are_enough_where_metadata_cannot_be_read(tmp_path):
    inputs = {name: kind() for name, kind in TYPES.items()}
    for name, artifact in inputs.items():
        artifact.uri = str(tmp_path / name)
    inputs["examples"].set_int_custom_property("rows_train", 1234)
    inputs["pushed_model"].set_string_custom_property("pushed_destination", "gs://bucket/toy/17")
    for split, texts in (("train", ["o gato", "o cão"]), ("test", ["o gato"])):
        (tmp_path / "examples" / f"Split-{split}").mkdir(parents=True)
        with tf.io.TFRecordWriter(str(tmp_path / "examples" / f"Split-{split}" / "rows.gz"), "GZIP") as writer:
            for text in texts:
                values = tf.train.Feature(bytes_list=tf.train.BytesList(value=[text.encode()]))
                writer.write(tf.train.Example(features=tf.train.Features(
                    feature={"pt": values, "en": values})).SerializeToString())
    report = Report()
    report.uri = str(tmp_path / "report")
    (tmp_path / "report").mkdir()
    Executor().Do({name: [artifact] for name, artifact in inputs.items()}, {"report": [report]}, {
        "run": "toy", "settings": json.dumps(SETTINGS), "command": "textrail run toy --set seed=1", "metadata": ""})
    whole = (tmp_path / "report" / "report.html").read_text("utf-8")
    assert "1,234" in whole and "gs://bucket/toy/17" in whole and "textrail run toy --set seed=1" in whole
    # The rows were measured with Beam: all of the test split's stand in the training split, too.
    assert "half have at most 5" in whole and '<b class="bad">1</b>' in whole and "100.00%" in whole
    assert [path.name for path in (tmp_path / "report").iterdir()] == ["report.html"]


def test_every_input_says_who_makes_it():
    channels = {name: types.Channel(type=kind) for name, kind in TYPES.items()}
    made = RunReport(run="toy", settings=SETTINGS, command="", metadata="", **channels)
    assert set(made.spec.INPUTS) == set(MAKERS) and set(made.inputs) == set(channels)
