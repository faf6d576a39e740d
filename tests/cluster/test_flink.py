"""On a real Flink all comes out as in this process, whoever is killed meanwhile."""

import json
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import tensorflow as tf

from modules.errors import TextrailError
from pipelines import bulk, preflight
from pipelines.beam_sections import Beam
from pipelines.predict import Dialect
from tests.pipelines.project import TRANSLATION, Project, states
from tests.pipelines.test_translation import write_pairs
from tests.word_classifier import save_classifier

pytestmark = pytest.mark.slow
SETTINGS = {
    "shape": "translation",
    "data": {"source": "csv", "columns": ["pt", "en", "kind"], "text": "pt", "target": "en", "slice": "kind",
             "path": {split: f"{split}-*.tsv" for split in ("train", "validation", "test")}},
    "vocabulary": {"size": 120},
    "model": {"max_tokens": 20, "layers": 1, "hidden_size": 32, "num_heads": 4, "inner_size": 64, "dropout": 0.0},
    "training": {"epochs": 1, "schedule": "linear", "learning_rate": 5e-3, "warmup_steps": 50, "batch_tokens": 768,
                 "max_batch": 32, "bucket_step": 4, "precision": "float32", "label_smoothing": 0.0},
    "decoding": {"beams": 1, "n_best": 1},
    "evaluation": {"thresholds": {"bleu": {"min": 0}}, "length_bands": [7]}}


def on(flink, **keys) -> dict:
    return Beam(runner="flink", job_endpoint=flink.job_endpoint, parallelism=2, preflight_seconds=300.0, **keys
                ).model_dump()


def settings_of(place: dict) -> list[str]:
    return [word for key, value in place.items() if value is not None and key != "options"
            for word in ("--set", f"beam.{key}={json.dumps(value)}")]


def test_the_look_at_the_workers(flink, tmp_path):
    for place in (on(flink), on(flink, environment="EXTERNAL", worker_pool=flink.worker_pool)):
        seen = preflight.check(place, str(tmp_path), [__file__])
        assert seen.versions == preflight.worker_probe_here()["versions"]
    nowhere = on(flink, environment="EXTERNAL", worker_pool="localhost:1") | {"preflight_seconds": 20.0}
    with pytest.raises(TextrailError) as caught:
        preflight.check(nowhere, str(tmp_path), [])
    assert "Is a pool of workers at localhost:1 of each" in str(caught.value)


def records(folder: Path) -> Counter:
    return Counter(record for path in folder.rglob("*.gz")
                   for record in tf.data.TFRecordDataset(str(path), "GZIP").as_numpy_iterator())


def made(project: Project, component: str, output: str) -> Path:
    found, = (project.folder / "workspace/toy/pipeline" / component / output).iterdir()
    return found


def test_a_run_gives_what_it_gives_in_this_process(flink, tmp_path):
    projects = {}
    for where in ("direct", "flink"):
        folder = tmp_path / where
        folder.mkdir()
        for seed, (split, rows) in enumerate({"train": 300, "validation": 40, "test": 60}.items()):
            for part in (1, 2):
                write_pairs(folder / f"{split}-{part}.tsv", rows // 2, 10 * seed + part)
        project = projects[where] = Project(folder, "toy", SETTINGS)
        done = project.run(*(settings_of(on(flink)) if where == "flink" else ()))
        assert done.returncode == 0, done.stdout + done.stderr
        assert states(done) == dict.fromkeys(TRANSLATION, "done")
    here, there = projects.values()
    for name in ("source/vocab.txt", "target/vocab.txt"):
        ours, theirs = (made(project, "VocabularyGen", "vocabulary") / name for project in (here, there))
        assert ours.read_bytes() == theirs.read_bytes(), name
    for component, output in (("ExampleGen", "examples"), ("TextTransform", "transformed_examples")):
        ours, theirs = (records(made(project, component, output)) for project in (here, there))
        assert sum(ours.values()) == 400 and ours == theirs
    assert there.verdict()["metrics"] == pytest.approx(here.verdict()["metrics"], rel=1e-5)
    # Where the work was done is no reason to do it again.
    again = there.run()
    assert again.returncode == 0 and set(states(again).values()) == {"cached"}, again.stdout + again.stderr


@pytest.mark.parametrize("victim", ["taskmanager", "pool"])
def test_who_is_killed_is_not_missed(flink, tmp_path, victim):
    save_classifier(tmp_path / "pushed/1", ["review"])
    for number in range(8):
        (tmp_path / f"in{number}.csv").write_text("id,review\n" + "".join(
            f"{number}-{row},{'good' if row % 3 else 'dull'} {'x' * 400}\n" for row in range(20_000)))
    place = on(flink, environment="EXTERNAL", worker_pool=flink.worker_pool)
    killer = Killer(flink, victim, tmp_path / "out")
    killer.start()
    done = bulk.predict_files(str(tmp_path / "pushed"), "", [str(tmp_path / "in*.csv")], str(tmp_path / "out"), place,
                              Dialect(), part_mb=1)
    killer.join()
    assert killer.met, "nothing was running when the killer came"
    assert done.rows == 160_000
    found = [line.split(",") for path in sorted((tmp_path / "out").glob("part*"))
             for line in path.read_text().splitlines()[1:]]
    assert [row[0] for row in found] == [f"{number}-{row}" for number in range(8) for row in range(20_000)]
    assert all(row[2] == ("pos" if int(row[0].split("-")[1]) % 3 else "neg") for row in found)


class Killer(threading.Thread):
    """Kills a part of Flink once the first parts of an output are there, and starts it anew."""

    def __init__(self, flink, victim: str, output: Path):
        super().__init__(daemon=True)
        self._flink, self._victim, self._output, self.met = flink, victim, output, False

    def run(self) -> None:
        while len(list(self._output.glob("part*"))) < 4:
            time.sleep(0.2)
        self.met = not (self._output / bulk.MANIFEST).exists()
        self._flink.kill(self._victim)
        self._flink.start(self._victim)
