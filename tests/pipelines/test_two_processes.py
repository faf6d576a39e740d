"""A training of two processes by the command, in every shape: cut off, taken up by one, and the same as one of two."""

import json
import re
import signal
import socket
import time
from contextlib import ExitStack
from copy import copy

import pytest

from tests.conftest import takes_minutes
from tests.pipelines.project import Project
from tests.pipelines.test_classification import moods
from tests.pipelines.test_pretraining import animals
from tests.pipelines.test_translation import toy

ALWAYS = ("--set", "training.loading.streams=2", "--set", "training.checkpoint_seconds=0.1")
OF_TWO = ("--set", "training.strategy=multi_worker")


@pytest.fixture(params=["classification", pytest.param("translation", marks=takes_minutes),
                        pytest.param("pretraining", marks=takes_minutes)])
def project(request, tmp_path, tiny_encoder) -> Project:
    return {"classification": lambda: moods(tmp_path, tiny_encoder), "translation": lambda: toy(tmp_path),
            "pretraining": lambda: animals(tmp_path)}[request.param]()


def on_machines(project: Project, count: int) -> list[Project]:
    """The project as each of several machines sees it that train together."""
    with ExitStack() as stack:
        ports = [stack.enter_context(socket.create_server(("localhost", 0))).getsockname()[1] for _ in range(count)]
    hosts, found = [f"localhost:{port}" for port in ports], [copy(project) for _ in ports]
    for number, one in enumerate(found):
        one.environment = project.environment | {"TF_CONFIG": json.dumps(
            {"cluster": {"worker": hosts}, "task": {"type": "worker", "index": number}})}
    return found


def rounds(project: Project) -> list[dict]:
    """Of the newest training."""
    folder = project.folder / "workspace" / project.name / "pipeline" / "Trainer" / "model_run"
    newest = max(folder.iterdir(), key=lambda path: int(path.name))
    return json.loads((newest / "history.json").read_text())["rounds"]


def test_one_process_takes_up_what_two_began_and_ends_where_two_end(project):
    here, there = on_machines(project, 2)
    checkpoints = project.folder / "workspace" / project.name / "checkpoints"

    with there.start("train-worker", "--wait-minutes", "5") as other, \
            here.start("run", project.file, *ALWAYS, *OF_TWO) as run:
        deadline = time.monotonic() + 300
        while not list(checkpoints.glob("*/checkpoint")) and time.monotonic() < deadline:
            assert run.poll() is None, run.communicate() + other.communicate()
            time.sleep(0.05)
        other.send_signal(signal.SIGKILL)
        out, err = run.communicate()
    assert run.returncode == 1 and re.search(r"received the end of process 1 \(localhost:\d+\)", err), out + err

    done = project.run(*ALWAYS)
    assert done.returncode == 0, done.stdout + done.stderr
    resumed = int(re.search(r"resumed at step ([1-9]\d*) of", done.stdout)[1])
    by_one = rounds(project)

    with there.start("train-worker", "--wait-minutes", "5") as other:
        done = here.run(*ALWAYS, *OF_TWO)
        out, err = other.communicate()
    assert done.returncode == other.returncode == 0, done.stdout + done.stderr + out + err
    assert out.splitlines()[-1] == "the training is over"
    by_two = rounds(project)

    assert [one["step"] for one in by_one] == [two["step"] for two in by_two] and len(by_two) > 3
    for one, two in zip(by_one, by_two, strict=True):
        # Of the round that it took up, `train` is told of the steps behind that alone.
        for split in ("train", "validation") if one["step"] > resumed + by_one[0]["step"] else ("validation",):
            assert one[split]["loss"] == pytest.approx(two[split]["loss"], rel=1e-2, abs=1e-4), (split, one["step"])
