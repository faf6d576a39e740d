"""The whole pipeline, shrunk: it must learn, cache, stop at gates, keep the better model and survive a kill.

Runs happen as a user starts them, each in a process of its own, on a copy of the code that a test may edit.
"""

import csv
import json
import random
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.pipelines.project import COMPONENTS, Project, states

GOOD = "good great loved enjoyed fun funny bright best nice rich".split()
BAD = "bad awful hated bored boring dull worst poor slow cold".split()
FILLER = "the a film book story food place service was and it this room staff with very so but we they".split()


def write_reviews(path: Path, rows: int, seed: int, labels=("negative", "positive")) -> None:
    """Reviews of filler words around words of one mood; no two moods in one review."""
    draw = random.Random(seed)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["review", "sentiment"])
        for i in range(rows):
            words = draw.choices(FILLER, k=draw.randint(3, 12)) + draw.choices((BAD, GOOD)[i % 2], k=2)
            draw.shuffle(words)
            writer.writerow([" ".join(words), labels[i % 2]])


def moods(folder: Path, encoder: Path) -> Project:
    """A run that tells good reviews from bad ones, in an empty folder."""
    for seed, (split, rows) in enumerate({"train": 240, "validation": 60, "test": 80}.items()):
        write_reviews(folder / f"{split}.csv", rows, seed)
    return Project(folder, "moods", {
        "data": {"source": "csv", "text": "review", "label": "sentiment",
                 "path": {split: f"{split}.csv" for split in ("train", "validation", "test")}},
        "encoder": {"source": str(encoder)},
        "model": {"max_length": 24, "pooling": "mean", "dropout": 0.0},
        "training": {"epochs": 4, "learning_rate": 3e-3, "batch_tokens": 384, "bucket_step": 8,
                     "precision": "float32"},
        "evaluation": {"thresholds": {"accuracy": {"min": 0.8, "max_drop": 0.02}}, "length_bands": [8, 12]}})


@pytest.fixture(scope="module")
def project(tmp_path_factory, tiny_encoder) -> Project:
    return moods(tmp_path_factory.mktemp("project"), tiny_encoder)


@pytest.fixture(scope="module")
def first(project) -> subprocess.CompletedProcess:
    return project.run()


def test_a_run_learns_and_pushes(project, first):
    assert first.returncode == 0, first.stdout + first.stderr
    assert states(first) == dict.fromkeys(COMPONENTS, "done")
    assert len(project.pushed()) == 1
    assert project.verdict()["metrics"]["accuracy"] >= 0.8  # the larger class has half of the rows
    history = json.loads(next(project.folder.glob("workspace/moods/pipeline/Trainer/model_run/*/history.json"))
                         .read_text())
    losses = [one["train"]["loss"] for one in history["rounds"]]
    assert losses[-1] < 0.7 * losses[0]


def test_its_report_tells_of_it(project, first):
    page, = (project.folder / "workspace" / project.name).glob("pipeline/RunReport/report/*/report.html")
    whole = page.read_text("utf-8")
    assert f"report: {page}" in first.stdout
    assert '<span class="badge good">pushed</span>' in whole and f"pushed/{project.pushed()[0]}" in whole
    assert all(f"<b>{name}</b>" in whole for name in COMPONENTS if name != "RunReport")
    for part in ("Calibration", "Learning rate, as it was run", "Length of texts, in tokens"):
        assert f"<h3>{part}</h3>" in whole
    assert f"textrail run {project.folder / project.file} --set seed=" in whole


def test_the_pushed_model_answers_plain_strings(project, first):
    done = project.call("predict", "moods", "the film was great fun and we loved it", "awful dull food", "--json")
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["label"] for answer in answers] == ["positive", "negative"]


def test_a_second_run_executes_nothing(project, first):
    before = project.pushed()
    done = project.run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert states(done) == dict.fromkeys(COMPONENTS, "cached")
    assert project.pushed() == before


def test_a_worse_model_is_not_pushed_over_a_better_one(project, first):
    before = project.pushed()
    done = project.run("--set", "training.learning_rate=1e-9", "--set", "training.epochs=1",
                       "--set", "evaluation.thresholds.accuracy.min=0")
    assert done.returncode == 1
    assert states(done)["TextTransform"] == "cached"
    assert states(done)["Trainer"] == states(done)["Evaluator"] == "done"
    assert states(done)["Pusher"] == "failed"
    assert "worse than the served model's" in done.stdout + done.stderr
    assert project.pushed() == before


def test_a_changed_label_stops_before_training(project, first):
    before = project.pushed()
    original = (project.folder / "test.csv").read_bytes()
    try:
        write_reviews(project.folder / "test.csv", 80, 2, labels=("negative", "meh"))
        done = project.run()
    finally:
        (project.folder / "test.csv").write_bytes(original)
    assert done.returncode == 1
    assert states(done)["ExampleGen"] == "done"
    assert states(done)["AnomalyGate"] == "failed"
    assert "Trainer" not in states(done)
    assert "meh" in done.stdout + done.stderr
    assert project.pushed() == before


def test_an_edit_of_the_training_code_runs_the_trainer_and_not_the_transform(project, first):
    code = project.folder / "modules" / "classifier.py"
    original = code.read_text()
    edited = original.replace("def run_fn(args: TrainArgs) -> None:", "def run_fn(args: TrainArgs) -> 'None':")
    assert edited != original
    code.write_text(edited)
    try:
        done = project.run()
    finally:
        code.write_text(original)
    assert done.returncode == 0, done.stdout + done.stderr
    # Which model is served has not changed since a run before this one compared with it.
    served = {"ServedModel": states(done)["ServedModel"]}
    assert states(done) == dict.fromkeys(COMPONENTS[:7], "cached") | dict.fromkeys(COMPONENTS[7:], "done") | served
    assert len(project.pushed()) == 2


def test_a_killed_training_resumes(project, first):
    arguments = ("--set", "training.epochs=40", "--set", "training.patience=40", "--set",
                 "training.checkpoint_seconds=0.1", "--set", "seed=7")
    process = project.start("run", "moods.yaml", *arguments)
    checkpoints = project.folder / "workspace" / "moods" / "checkpoints"
    deadline = time.monotonic() + 300
    while not list(checkpoints.glob("*/checkpoint")) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    done = project.run(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"resumed at step [1-9]\d* of", done.stdout)
    assert not list(checkpoints.glob("*"))


def test_a_version_deleted_by_hand_is_pushed_again(project, first):
    shutil.rmtree(project.folder / "workspace" / "moods" / "pushed")
    done = project.run()
    assert done.returncode == 0, done.stdout + done.stderr
    assert states(done)["Trainer"] == "cached"
    assert states(done)["Pusher"] == "done"
    assert len(project.pushed()) == 1


def test_another_settings_file_of_the_same_name_does_not_push_over_it(project, first):
    (project.folder / "other").mkdir()
    text = (project.folder / "moods.yaml").read_text().replace(": train.csv", ": ../train.csv").replace(
        ": test.csv", ": ../test.csv").replace(": validation.csv", ": ../validation.csv")
    (project.folder / "other" / "moods.yaml").write_text(text)
    done = project.call("run", "other/moods.yaml")
    assert done.returncode == 2
    assert "Rename the settings file" in done.stderr
