"""From the YAML to the pushed model, every task in a process of its own that sees no more than Kubeflow shows it.

The other shapes are run so, too, where they are run by the local runner: `tests/pipelines/test_pairs.py` and others.
"""

import json

import pytest

from tests.kubeflow.launcher import Finished, TaskFailed
from tests.kubeflow.project import OnKubeflow
from tests.pipelines.project import Project
from tests.pipelines.test_classification import BAD, GOOD, moods

pytest.importorskip("kfp.pipeline_spec", reason="compiling for Kubeflow needs the extra `kubeflow`")


@pytest.fixture(scope="module")
def project(tmp_path_factory, tiny_encoder) -> Project:
    return moods(tmp_path_factory.mktemp("project"), tiny_encoder)


@pytest.fixture(scope="module")
def kubeflow(project, tmp_path_factory) -> OnKubeflow:
    return OnKubeflow(project, tmp_path_factory.mktemp("kubeflow"), fresh=True)


@pytest.fixture(scope="module")
def first(kubeflow) -> dict[str, Finished]:
    return kubeflow.run()


def test_every_task_runs_and_a_model_is_pushed(kubeflow, first):
    assert [name for name, task in first.items() if task.cached] == []
    assert list(first)[-1] == "RunReport" and "Lookup" in first
    version, = kubeflow.pushed()
    assert first["Pusher"].artifacts["pushed_model"]["metadata"]["pushed_version"] == str(version)
    assert first["ExampleGen"].artifacts["examples"]["metadata"]["rows_train"] == 240
    report = first["RunReport"].artifacts["report"]
    assert report["uri"].endswith("/report.html") and "<html" in kubeflow.cluster.path(report["uri"]).read_text()


def test_the_model_is_that_of_the_local_runner(project, kubeflow, first):
    done = project.run()
    assert done.returncode == 0, done.stdout + done.stderr
    kubeflow.assert_local_model(review=[f"the {word} film was so {word}" for word in (*GOOD, *BAD)])


def test_a_second_run_only_looks(kubeflow, first):
    second = kubeflow.run()
    assert [name for name, task in second.items() if not task.cached] == [
        name for name in second if name == "Lookup" or name.startswith("import-")]
    assert len(kubeflow.pushed()) == 1


def test_a_gate_fails_its_task_with_our_sentence_last(project, kubeflow, first):
    (kubeflow.cluster.path("s3://texts/schema.pbtxt")).write_text(
        'feature { name: "review" type: BYTES } feature { name: "stars" type: BYTES }')
    with pytest.raises(TaskFailed) as failure:
        kubeflow.run("data.schema_file=s3://texts/schema.pbtxt")
    assert failure.value.task == "SchemaGen"
    assert failure.value.line.startswith("textrail: expected a feature 'sentiment' in ")
    assert len(kubeflow.pushed()) == 1


def test_kubeflows_messages_are_understood():
    """Two that a real cluster sent, see the golden file."""
    from benchmarks import SHARED
    from kubeflow.executor_input import ExecutorInput

    golden = SHARED / "golden" / "kfp_containers.json"
    if not golden.exists():
        pytest.skip(f"no messages of a real Kubeflow in {golden.parent}")
    generated, statistics = (ExecutorInput(json.dumps(one["executor_input"])) for one in json.loads(golden.read_text()))
    assert list(generated.outputs) == ["examples"] and list(statistics.outputs) == ["statistics"]
    assert generated.outputs["examples"].path.startswith("/minio/mlpipeline/v2/artifacts/a/")
    examples, = statistics.inputs["examples"]
    assert examples.path == "/minio/" + examples.uri.removeprefix("minio://")
    assert examples.metadata == {"file_format": "tfrecords_gzip", "payload_format": "FORMAT_TF_EXAMPLE",
                                 "split_names": '["train", "eval"]', "tfx_version": "1.21.0"}
