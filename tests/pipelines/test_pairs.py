"""Pairs end to end, from TSV without quoting by way of TFRecords: the model must know first text from second."""

import json
import random
from pathlib import Path

import numpy as np
import pytest

from components.sources import make_source
from pipelines import settings
from tests.kubeflow.project import OnKubeflow
from tests.pipelines.project import Project

MOODS = {"0": "bad awful boring dull worst poor".split(), "1": "good great fun funny best nice".split()}


def write_pairs(path: Path, rows: int, seed: int) -> None:
    """Pairs in the layout of GLUE: the label is the mood of the second text, the first has either; stray quotes."""
    draw = random.Random(seed)
    lines = ["label\tid\tbefore\tafter"]
    for i in range(rows):
        label = "01"[i % 2]
        before, after = (f"the {draw.choice(MOODS[mood])} {draw.choice(['film', 'book', 'room'])}"
                         for mood in (draw.choice("01"), label))
        lines.append(f'{label}\t{i}\t" {before}\t{after} , it was')
    path.write_text("\n".join(lines) + "\n", encoding="utf-8-sig")


@pytest.fixture(scope="module")
def project(tmp_path_factory, tiny_encoder) -> Project:
    folder = tmp_path_factory.mktemp("pairs")
    for seed, (split, rows) in enumerate({"train": 600, "validation": 60, "test": 100}.items()):
        write_pairs(folder / f"{split}.tsv", rows, seed)
    return Project(folder, "pairs", {
        "data": {"source": "csv", "quoting": "none", "text": "before", "text_pair": "after", "label": "label",
                 "label_names": {"0": "gloomy", "1": "merry"},
                 "path": {split: f"{split}.tsv" for split in ("train", "validation", "test")}},
        "encoder": {"source": str(tiny_encoder)},
        "model": {"max_length": 24, "pooling": "mean", "dropout": 0.0},
        "training": {"epochs": 8, "learning_rate": 3e-3, "batch_tokens": 384, "bucket_step": 8,
                     "precision": "float32", "patience": 8},
        "evaluation": {"thresholds": {"f1/merry": {"min": 0.9}, "mcc": {"min": 0.8}}, "length_bands": [16],
                       "overlap_bands": [20]}})


@pytest.fixture(scope="module")
def pushed(project) -> Project:
    done = project.call("convert", "pairs.yaml", "records", "--shard-mb", "1")
    assert done.returncode == 0, done.stderr
    done = project.run("--set", "data.source=tfrecord", "--set", "data.path=records")
    assert done.returncode == 0, done.stdout + done.stderr
    return project


def test_it_learns_which_text_is_the_second(pushed):
    verdict = pushed.verdict()
    assert verdict["examples"] == 100 and verdict["confusion"]["classes"] == ["gloomy", "merry"]
    slices = {item["slice"]: item["examples"] for item in verdict["slices"]}
    assert slices["word_overlap=0-20"] + slices["word_overlap=>20"] == 100
    assert (slices["label=merry, word_overlap=0-20"] + slices["label=merry, word_overlap=>20"]
            == slices["label=merry"] == 50)
    labels = []
    for before, after in (("the dull room", "the great film"), ("the great film", "the dull room")):
        done = pushed.call("predict", "pairs", "--text-a", before, "--text-b", after, "--json")
        assert done.returncode == 0, done.stderr
        labels.append(json.loads(done.stdout)["label"])
    assert labels == ["merry", "gloomy"]


def test_a_file_of_two_columns_is_answered(pushed):
    done = pushed.call("predict", "pairs", "--file", "test.tsv", "--out", "answers.tsv")
    assert done.returncode == 0, done.stderr
    header, *rows = [line.split("\t") for line in
                     (pushed.folder / "answers.tsv").read_text("utf-8").splitlines()]
    assert len(rows) == 100 and header[-3:] == ["score", "gloomy", "merry"]
    named = {"0": "gloomy", "1": "merry"}
    right = sum(named[row[0]] == row[header.index("predicted_label")] for row in rows)
    assert right >= 90 and all(row[2].startswith('" the') for row in rows)


def test_on_kubeflow_it_is_the_same_model(pushed, tmp_path):
    """With its artifacts on a volume, of which the cluster's store then has none."""
    kubeflow = OnKubeflow(pushed, tmp_path, {"source": "tfrecord", "path": "records"})
    done = kubeflow.run(pipeline_root=str(kubeflow.models / "runs"))
    kept = Path(done["Trainer"].artifacts["model"]["metadata"]["stored_at"])
    assert kept.is_relative_to(kubeflow.models / "runs") and (kept / "Format-Serving" / "saved_model.pb").is_file()
    assert not kubeflow.cluster.path(done["Trainer"].artifacts["model"]["uri"]).exists()
    words = [word for mood in MOODS.values() for word in mood]
    kubeflow.assert_local_model(before=[f"the {word} film" for word in words],
                                after=[f"the {word} room" for word in reversed(words)])


def test_mrpc_reads_the_same_rows_from_tfds_and_from_files(tmp_path):
    """The layout of TFDS's `glue/mrpc`, class names and a test split without labels included."""
    tfds = pytest.importorskip("tensorflow_datasets", reason="tensorflow-datasets is missing: uv sync --extra tfds")
    from tensorflow_datasets.core import registered

    with registered.skip_registration():   # TFDS has a Glue of its own.
        class Glue(tfds.core.GeneratorBasedBuilder):
            VERSION = tfds.core.Version("2.0.0")
            BUILDER_CONFIGS = (tfds.core.BuilderConfig(name="mrpc"),)

            def _info(self):
                return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict({
                    "sentence1": tfds.features.Text(), "sentence2": tfds.features.Text(), "idx": np.int32,
                    "label": tfds.features.ClassLabel(names=["not_equivalent", "equivalent"])}))

            def _split_generators(self, dl_manager):
                return {split: self._generate_examples(split) for split in ("train", "validation", "test")}

            def _generate_examples(self, split):
                for i in range(4):
                    yield i, {"sentence1": f'" {split} {i}', "sentence2": f"other {i}", "idx": i,
                              "label": -1 if split == "test" else i % 2}

    Glue(config="mrpc", data_dir=str(tmp_path), file_format="tfrecord").download_and_prepare()
    for split in ("train", "validation"):
        (tmp_path / f"{split}.tsv").write_text("label\tsentence1\tsentence2\n" + "".join(
            f'{i % 2}\t" {split} {i}\tother {i}\n' for i in range(4)))
    files = ", ".join(f"{split}: {tmp_path / split}.tsv" for split in ("train", "validation"))
    found = []
    for overrides in ([f"data.data_dir={tmp_path}"],
                      ["data.source=csv", "data.quoting=none", f"data.path={{{files}}}"]):
        source = make_source(settings.load("mrpc", overrides).data.model_dump())
        found.append({piece.split: sorted(source.read(piece)) for piece in source.pieces()})
    assert found[0] == found[1]
    assert found[0]["validation"] == [(b'" validation %d' % i, b"other %d" % i,
                                       (b"not_equivalent", b"equivalent")[i % 2]) for i in range(4)]
