"""On a real Flink all comes out as in this process, whoever is killed meanwhile; what could not work is told."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import tensorflow as tf
import yaml

from components import example_gen, instance_gen, vocabulary_gen
from components.artifacts import Vocabulary
from components.beam_runner import make_pipeline
from modules.errors import TextrailError
from pipelines import bulk, preflight, pretraining
from pipelines.beam_sections import Beam
from pipelines.predict import Dialect
from pipelines.pretraining_sections import Settings
from pipelines.settings import load
from tests.cluster.cluster import free_ports, wait_until
from tests.conftest import takes_minutes
from tests.pipelines.project import TRANSLATION, Project, states
from tests.pipelines.test_pretraining import document
from tests.pipelines.test_translation import write_pairs
from tests.word_classifier import save_classifier

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]   # A busy machine is given time.
HERE = Beam().model_dump()
TOY = {
    "shape": "translation",
    "data": {"source": "csv", "columns": ["pt", "en", "kind"], "text": "pt", "target": "en", "slice": "kind",
             "path": {split: f"{split}-*.tsv" for split in ("train", "validation", "test")}},
    "vocabulary": {"size": 120},
    "model": {"max_tokens": 20, "layers": 1, "hidden_size": 32, "num_heads": 4, "inner_size": 64, "dropout": 0.0},
    "training": {"epochs": 1, "schedule": "linear", "learning_rate": 5e-3, "warmup_steps": 5, "batch_tokens": 768,
                 "max_batch": 32, "bucket_step": 4, "precision": "float32", "label_smoothing": 0.0},
    "decoding": {"beams": 1, "n_best": 1},
    "evaluation": {"thresholds": {"bleu": {"min": 0}}, "length_bands": [7]}}


def on(flink, **keys) -> dict:
    return Beam(**{"runner": "flink", "job_endpoint": flink.job_endpoint, "parallelism": 2, "preflight_seconds": 600.0,
                   **keys}).model_dump()


def refused(place: dict, root: Path, *reads: str) -> str:
    with pytest.raises(TextrailError) as caught:
        preflight.check(place, str(root), reads)
    assert list(root.iterdir()) == [], "nothing stays behind"
    return str(caught.value)


def test_what_could_not_work_is_told_before_a_run(flink, tmp_path):
    (root := tmp_path / "artifacts").mkdir()
    port, = free_ports(1)
    told = refused(on(flink, environment="EXTERNAL", worker_pool=f"localhost:{port}", preflight_seconds=10.0), root)
    assert "expected an answer of a worker within 10 s" in told
    assert f"Is a pool of workers at localhost:{port} of each" in told
    # Flink would have gone on looking for one.
    wait_until("an end of that job", lambda: not [job for job in flink.jobs() if job["name"].startswith(
        "textrail-preflight") and job["state"] not in ("CANCELED", "FAILED")])
    # All versions and the code agree, or that would be told first.
    told = refused(on(flink, environment="EXTERNAL", worker_pool=flink.worker_pool), root, "/nowhere/rows.csv")
    assert re.search(r"expected a file that the workers on \S+ can read; received /nowhere/rows.csv, where they", told)


def test_workers_of_older_code_are_told(flink, tmp_path):
    (root := tmp_path / "artifacts").mkdir()
    old = Project(tmp_path, "old", {})
    (tmp_path / "modules/subwords.py").write_text((tmp_path / "modules/subwords.py").read_text() + "\n# Older.\n")
    port, = free_ports(1)
    with subprocess.Popen([sys.executable, "-m", "pipelines.cli", "workers", "--port", str(port)], cwd=tmp_path,
                          env=old.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as pool:
        try:
            told = refused(on(flink, environment="EXTERNAL", worker_pool=f"localhost:{port}"), root)
        finally:
            pool.kill()
    assert re.search(r"the same code of textrail on the workers on \S+ as here; received other source files", told)


def records(folder: Path) -> dict[str, list[bytes]]:
    """File → its records; those of an example that are equal are so in bytes."""
    return {str(path.relative_to(folder)): [
        tf.train.Example.FromString(record).SerializeToString(deterministic=True)
        for record in tf.data.TFRecordDataset(str(path), "GZIP").as_numpy_iterator()]
        for path in folder.rglob("*.gz")}


def made(project: Project, component: str, output: str) -> Path:
    found, = (project.folder / "workspace/toy/pipeline" / component / output).iterdir()
    return found


def files(project: Project) -> set[str]:
    """Names of all that a run has made, with # for numbers."""
    folder = project.folder / "workspace/toy/pipeline"
    return {re.sub(r"\d+", "#", str(path.relative_to(folder))) for path in folder.rglob("*") if path.is_file()}


@takes_minutes
def test_a_run_that_was_killed_gives_what_it_gives_in_this_process(flink, tmp_path):
    here, there = projects = [Project(tmp_path / where, "toy", TOY) for where in ("here", "flink")]
    for project in projects:
        for seed, (split, rows) in enumerate({"train": 300, "validation": 40, "test": 60}.items()):
            for part in (1, 2):
                write_pairs(project.folder / f"{split}-{part}.tsv", rows // 2, 10 * seed + part)
    place = [word for key, value in on(flink).items() if value is not None and key != "options"
             for word in ("--set", f"beam.{key}={json.dumps(value)}")]
    with there.start("run", there.file, *place) as killed, here.start("run", here.file) as process:
        flink.wait_for("textrail-vocabularygen")
        killed.kill()
        killed.communicate()
        again = there.run(*place)
        out, err = process.communicate()
    assert process.returncode == 0, out + err
    assert again.returncode == 0, again.stdout + again.stderr
    before = ["ExampleGen", "StatisticsGen", "SchemaGen", "ExampleValidator", "AnomalyGate"]
    assert states(again) == {name: "cached" if name in before else "done" for name in TRANSLATION} | {
        "ServedModel": states(again)["ServedModel"]}
    assert files(there) == files(here), "no half artifact is left"
    for name in ("source/vocab.txt", "target/vocab.txt"):
        ours, theirs = (made(project, "VocabularyGen", "vocabulary") / name for project in projects)
        assert ours.read_bytes() == theirs.read_bytes(), name
    for component, output in (("ExampleGen", "examples"), ("TextTransform", "transformed_examples")):
        ours, theirs = (records(made(project, component, output)) for project in projects)
        assert sum(map(len, ours.values())) == 400 and ours == theirs
    assert there.verdict()["metrics"] == pytest.approx(here.verdict()["metrics"], rel=1e-5)
    # Where the work was done is no reason to do it again.
    cached = there.run()
    assert cached.returncode == 0 and set(states(cached).values()) == {"cached"}, cached.stdout + cached.stderr


def prepared(settings: Settings, place: dict, folder: Path) -> dict[str, Path]:
    """What pretraining prepares of its documents: the outputs of its three components, by their names."""
    from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
    from tfx.types import standard_artifacts

    made = {"examples": [standard_artifacts.Examples()], "vocabulary": [Vocabulary()],
            "transformed_examples": [standard_artifacts.Examples()]}
    for name, (artifact,) in made.items():
        artifact.uri = str(folder / name)
        (folder / name).mkdir(parents=True)
    data = settings.data.model_dump_json(exclude={"schema_file"})
    for executor, inputs, output, properties in (
            (example_gen.Executor, [], "examples", {"data": data, "fingerprint": ""}),
            (vocabulary_gen.Executor, ["examples"], "vocabulary",
             {"settings": json.dumps(pretraining.vocabulary_settings(settings))}),
            (instance_gen.Executor, ["examples", "vocabulary"], "transformed_examples",
             {"settings": json.dumps(pretraining.instance_settings(settings))})):
        context = BaseBeamExecutor.Context(
            tmp_dir=str(folder / "tmp"), unique_id="1",
            make_beam_pipeline_fn=lambda output=output: make_pipeline(place, output, str(folder)))
        executor(context).Do({key: made[key] for key in inputs}, {output: made[output]}, properties)
    return {name: Path(artifact.uri) for name, (artifact,) in made.items()}


def test_pretraining_prepares_what_it_prepares_in_this_process(flink, tmp_path):
    draw = random.Random(1)
    for number in (1, 2):
        (tmp_path / f"texts-{number}.txt").write_text("\n\n".join(document(draw) for _ in range(40)) + "\n")
    (tmp_path / "animals.yaml").write_text(yaml.safe_dump({
        "shape": "pretraining", "data": {"path": "texts-*.txt", "documents": "block"}, "vocabulary": {"size": 200},
        "instances": {"max_length": 32}, "evaluation": {"thresholds": {"masked_accuracy": {"min": 0}}}}))
    settings = load(str(tmp_path / "animals.yaml"))
    here, there = (prepared(settings, place, tmp_path / name) for name, place in (("a", HERE), ("b", on(flink))))
    assert (here["vocabulary"] / "vocab.txt").read_bytes() == (there["vocabulary"] / "vocab.txt").read_bytes()
    for output in ("examples", "transformed_examples"):
        ours, theirs = records(here[output]), records(there[output])
        assert sum(map(len, ours.values())) >= 80 and ours == theirs


def test_bulk_prediction_outlives_a_worker_and_a_taskmanager(flink, tmp_path, monkeypatch):
    monkeypatch.setattr(bulk, "MEGABYTE", 400)   # About ten rows in a part.
    save_classifier(tmp_path / "pushed/1", ["review"])
    for number in range(4):
        (tmp_path / f"in{number}.csv").write_text("id,review\n" + "".join(
            f"{number}-{row},a {'good' if row % 3 else 'dull'} film of the year {number}\n" for row in range(400)))

    def answered(place: dict, folder: Path) -> tuple[bulk.Done, dict[str, bytes]]:
        done = bulk.predict_files(str(tmp_path / "pushed"), "", [str(tmp_path / "in*.csv")], str(folder), place,
                                  Dialect(), part_mb=1)
        return done, {path.name: path.read_bytes() for path in folder.iterdir() if path.name != bulk.MANIFEST}

    expected = answered(HERE, tmp_path / "here")
    assert expected[0].rows == 1600 and expected[0].parts == len(expected[1]) > 100
    killer = Killer(flink, tmp_path / "there")
    killer.start()
    found = answered(on(flink, environment="EXTERNAL", worker_pool=flink.worker_pool), tmp_path / "there")
    killer.join()
    assert killer.killed == ["worker", "taskmanager"], "the job was over before"
    assert found[0]._replace(kept=0) == expected[0] and found[1] == expected[1]
    wait_until("an end of all workers, that of the dead TaskManager, too", lambda: not flink.workers())


class Killer(threading.Thread):
    """Kills the Python worker once the first parts of an output are there, and the TaskManager at the next ones."""

    def __init__(self, flink, output: Path):
        super().__init__(daemon=True)
        self._flink, self._output, self.killed = flink, output, []

    def run(self) -> None:
        for victim in ("worker", "taskmanager"):
            before = self._parts()
            while self._parts() < before + 5:
                time.sleep(0.02)
            workers = self._flink.workers()
            for worker in workers:   # Nothing moves until the victim is dead, however fast the job is.
                os.kill(worker, signal.SIGSTOP)
            if (self._output / bulk.MANIFEST).exists() or not workers:
                return
            if victim == "taskmanager":
                self._flink.kill(victim)
            for worker in workers:
                os.kill(worker, signal.SIGKILL if victim == "worker" else signal.SIGCONT)
            self.killed.append(victim)
        self._flink.start("taskmanager")

    def _parts(self) -> int:
        return len(list(self._output.glob("part*")))
