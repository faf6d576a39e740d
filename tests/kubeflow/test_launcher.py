"""From the YAML to the pushed model, every task in a process of its own that sees no more than Kubeflow shows it."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from components.versions import read_manifest, versions
from pipelines import settings
from tests.kubeflow.launcher import Cluster, Finished, TaskFailed
from tests.pipelines.project import Project
from tests.pipelines.test_classification import BAD, GOOD, write_reviews

pytest.importorskip("kfp.pipeline_spec", reason="compiling for Kubeflow needs the extra `kubeflow`")


@pytest.fixture(scope="module")
def project(tmp_path_factory, tiny_encoder) -> Project:
    folder = tmp_path_factory.mktemp("project")
    for seed, (split, rows) in enumerate({"train": 160, "validation": 40, "test": 60}.items()):
        write_reviews(folder / f"{split}.csv", rows, seed)
    return Project(folder, "moods", {
        "data": {"source": "csv", "text": "review", "label": "sentiment",
                 "path": {split: f"{split}.csv" for split in ("train", "validation", "test")}},
        "encoder": {"source": str(tiny_encoder)},
        "model": {"max_length": 24, "pooling": "mean", "dropout": 0.0},
        "training": {"epochs": 4, "learning_rate": 3e-3, "batch_tokens": 384, "bucket_step": 8,
                     "precision": "float32"},
        "evaluation": {"thresholds": {"accuracy": {"min": 0.8, "max_drop": 0.02}}, "length_bands": [8, 12]}})


class OnKubeflow:
    """The project's run, with its data in the store of a cluster, and what is pushed on a volume."""

    def __init__(self, project: Project, folder: Path):
        self.cluster, self.models, self._folder = Cluster(folder / "cluster"), folder / "models", folder
        self.models.mkdir(parents=True)
        store = self.cluster.path("s3://texts/moods")
        store.mkdir(parents=True)
        told = yaml.safe_load((project.folder / project.file).read_text())
        for split, name in told["data"]["path"].items():
            (store / name).write_bytes((project.folder / name).read_bytes())
            told["data"]["path"][split] = f"s3://texts/moods/{name}"
        encoder = self.cluster.path("s3://texts/encoder")
        encoder.mkdir()
        for file in Path(told["encoder"]["source"]).iterdir():
            (encoder / file.name).write_bytes(file.read_bytes())
        told["encoder"]["source"] = "s3://texts/encoder"
        told["push"] = {"destination": str(self.models / "moods")}
        told["kubeflow"] = {"volumes": [{"claim": "models", "path": str(self.models)}]}
        self.file = folder / "moods.yaml"
        self.file.write_text(yaml.safe_dump(told))

    def run(self, *overrides: str, **options) -> dict[str, Finished]:
        from kubeflow import compile as kubeflow

        documents = kubeflow.compile_run(settings.load(str(self.file), overrides), "moods", "textrail:test",
                                         "s3://artifacts/textrail", **options)
        kubeflow.write(documents, self._folder / "compiled.yaml")
        return self.cluster.run(self._folder / "compiled.yaml")

    def pushed(self) -> list[int]:
        return versions(str(self.models / "moods"))


@pytest.fixture(scope="module")
def kubeflow(project, tmp_path_factory) -> OnKubeflow:
    return OnKubeflow(project, tmp_path_factory.mktemp("kubeflow"))


@pytest.fixture(scope="module")
def first(kubeflow) -> dict[str, Finished]:
    return kubeflow.run()


def test_every_task_runs_and_a_model_is_pushed(kubeflow, first):
    assert [name for name, task in first.items() if task.cached] == []
    assert list(first)[-1] == "RunReport" and "Lookup" in first
    version, = kubeflow.pushed()
    assert first["Pusher"].artifacts["pushed_model"]["metadata"]["pushed_version"] == str(version)
    assert first["ExampleGen"].artifacts["examples"]["metadata"]["rows_train"] == 160
    report = first["RunReport"].artifacts["report"]
    assert report["uri"].endswith("/report.html") and "<html" in kubeflow.cluster.path(report["uri"]).read_text()


def test_the_model_is_that_of_the_local_runner(project, kubeflow, first):
    import tensorflow as tf
    import tensorflow_text  # noqa: F401  # its ops are in the graph

    done = project.run()
    assert done.returncode == 0, done.stdout + done.stderr
    local = project.folder / "workspace" / "moods" / "pushed"
    texts = tf.constant([f"the {word} film was so {word}" for word in (*GOOD, *BAD)])
    answers = []
    for folder in (local, kubeflow.models / "moods"):
        path = folder / str(versions(str(folder))[0])
        answers.append(tf.saved_model.load(str(path)).signatures["serving_default"](review=texts))
        assert read_manifest(str(path))["classes"] == ["negative", "positive"]
    assert answers[0].keys() == answers[1].keys()
    for key, value in answers[0].items():
        if value.dtype == tf.string:
            np.testing.assert_array_equal(value, answers[1][key])
        else:
            np.testing.assert_allclose(value, answers[1][key], atol=1e-5)


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
