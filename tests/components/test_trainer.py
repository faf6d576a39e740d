"""The Trainer beyond one process: the same model as on one device, cut off and taken up, and nothing left behind."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from tfx.types import standard_artifacts

from components.artifacts import Encoder
from components.trainer import Executor
from modules import progress, train_worker
from modules.errors import TextrailError
from tests.components.transforming import COLUMN, LABEL, transform

# Without dropout, whose draws depend on how a batch is shared out.
SETTINGS = {
    "seed": 3, "data": {"text": "text", "text_pair": None, "label": "stars"},
    "model": {"max_length": 16, "pooling": "mean", "dropout": 0.0, "fine_tune_layers": "all"},
    "training": {"epochs": 4, "learning_rate": 3e-3, "schedule": "linear", "warmup": 0.1, "weight_decay": 0.01,
                 "clip_norm": 1.0, "batch_tokens": 96, "max_batch": 8, "bucket_step": 8, "shuffle_buffer": 100,
                 "precision": "float32", "xla": False, "early_stopping_metric": "loss", "patience": 9,
                 "evaluations_per_epoch": 1, "checkpoint_seconds": 1e9, "keep_checkpoints": 2,
                 "average_checkpoints": 2, "loading": {"streams": 2}}}
MOODS = {"good": ["good film", "great story", "we loved it", "nice warm room"],
         "bad": ["bad film", "awful story", "we hated it", "poor cold room"]}


@pytest.fixture(scope="module")
def inputs(tiny_encoder, tmp_path_factory) -> dict:
    """What the Trainer is given: examples in a file for each split, which two streams share by their records."""
    folder = tmp_path_factory.mktemp("inputs")
    rows = [{"text": f"{text} {filler}", "stars": stars} for stars, texts in MOODS.items() for text in texts
            for filler in ("", "and we will go again", "the staff was there", "very fast phone")]
    graph, _ = transform(folder, tiny_encoder, {"train": rows * 4, "validation": rows[:31]},
                         COLUMN.format("text", "") + COLUMN.format("stars", LABEL), max_length=16)
    made = {"examples": standard_artifacts.Examples(), "transform_graph": standard_artifacts.TransformGraph(),
            "encoder": Encoder()}
    for name, uri in (("examples", folder / "out"), ("transform_graph", graph), ("encoder", tiny_encoder)):
        made[name].uri = str(uri)
    made["examples"].split_names = '["train", "validation"]'
    return {name: [artifact] for name, artifact in made.items()}


def train(inputs, folder: Path, strategy: str, checkpoints: Path | None = None) -> Path:
    """Runs the Trainer; gives the folder of its ModelRun."""
    outputs = {"model": standard_artifacts.Model(), "model_run": standard_artifacts.ModelRun()}
    for name, artifact in outputs.items():
        artifact.uri = str(folder / name)
        (folder / name).mkdir(parents=True, exist_ok=True)
    training = SETTINGS["training"] | {"strategy": strategy}
    Executor().Do(inputs, {name: [artifact] for name, artifact in outputs.items()}, {
        "settings": json.dumps(SETTINGS | {"training": training}), "run_fn": "modules.classifier.run_fn", "code": "1",
        "checkpoints": str(checkpoints or folder / "checkpoints")})
    return folder / "model_run"


@pytest.fixture(scope="module")
def on_one(inputs, tmp_path_factory) -> Path:
    return train(inputs, tmp_path_factory.mktemp("one"), "one_device")


@pytest.fixture
def worker(monkeypatch, tmp_path):
    """A function that starts the second of two processes, of which this is the first."""
    hosts, started = [], []
    for _ in range(2):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            hosts.append(f"localhost:{free.getsockname()[1]}")
    configs = [json.dumps({"cluster": {"worker": hosts}, "task": {"type": "worker", "index": number}})
               for number in (0, 1)]
    monkeypatch.setenv("TF_CONFIG", configs[0])
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    def start() -> subprocess.Popen:
        started.append(subprocess.Popen(
            [sys.executable, "-m", "pipelines.cli", "train-worker", "--wait-minutes", "5"], text=True,
            env={**os.environ, "TF_CONFIG": configs[1]}, cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
        return started[0]

    yield start
    for one in started:
        one.kill()
        one.communicate()


@pytest.fixture
def children(monkeypatch) -> list[subprocess.Popen]:
    """The processes that the Trainer has started."""
    found, start = [], subprocess.Popen

    def noted(*arguments, **options):
        found.append(start(*arguments, **options))
        return found[-1]

    monkeypatch.setattr(train_worker.subprocess, "Popen", noted)
    return found


def assert_same(found: Path, expected: Path, but_training_of: int | None = None) -> None:
    """Of the round that a training was resumed in, `train` is told of the steps behind that alone."""
    rounds, others = (json.loads((run / "history.json").read_text())["rounds"] for run in (found, expected))
    assert len(rounds) == len(others) == 4
    for number, (one, other) in enumerate(zip(rounds, others, strict=True)):
        assert one["step"] == other["step"]
        for split in ("train", "validation") if number != but_training_of else ("validation",):
            assert one[split] == pytest.approx(other[split], rel=1e-3, abs=1e-4), (number, split)
    files = sorted(path.name for path in (expected / "checkpoints").iterdir())
    assert files[0] == "average.safetensors" and files == sorted(
        path.name for path in (found / "checkpoints").iterdir())
    weights, other = (load_file(run / "checkpoints" / "average.safetensors") for run in (found, expected))
    for name, values in weights.items():
        np.testing.assert_allclose(values, other[name], atol=2e-4, err_msg=name)


def test_two_processes_train_what_one_device_trains(inputs, on_one, worker, children, tmp_path):
    other = worker()
    run = train(inputs, tmp_path, "multi_worker")
    said, _ = other.communicate(timeout=300)
    assert other.returncode == 0 and said.endswith("the training is over\n"), said[-3000:]
    losses = [one["train"]["loss"] for one in json.loads((run / "history.json").read_text())["rounds"]]
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0] / 2
    assert_same(run, on_one)
    assert (tmp_path / "model/Format-Serving/saved_model.pb").exists()
    assert not list((tmp_path / "checkpoints").iterdir()) and not list(tmp_path.glob("textrail-worker-*"))
    assert children[0].poll() == 0


def test_one_device_takes_up_what_was_cut_off_in_two_processes(inputs, on_one, worker, children, tmp_path):
    other, handler, seen = worker(), logging.Handler(), []

    def emit(record: logging.LogRecord) -> None:
        seen.append(record.getMessage())
        if "validation" in seen[-1]:   # The first round is over and kept.
            other.send_signal(signal.SIGKILL)

    handler.emit = emit
    progress.LOGGER.addHandler(handler)
    try:
        with pytest.raises(TextrailError, match=r"received the end of process 1 \(localhost:\d+\)\. Look at its out"):
            train(inputs, tmp_path / "cut", "multi_worker", tmp_path / "kept")
        assert children[0].poll() is not None, "the Trainer leaves no process behind"
        run = train(inputs, tmp_path / "whole", "one_device", tmp_path / "kept")
    finally:
        progress.LOGGER.removeHandler(handler)
    resumed, = (one for one in seen if one.startswith("resumed at step"))
    steps = [one["step"] for one in json.loads((on_one / "history.json").read_text())["rounds"]]
    assert steps[0] <= int(resumed.split()[3]) < steps[-1]
    assert_same(run, on_one, but_training_of=int(resumed.split()[3]) // steps[0])


def test_who_does_not_come_is_named_and_no_process_stays(inputs, worker, children, monkeypatch, tmp_path):
    monkeypatch.setattr(train_worker, "WAIT_SECONDS", 0.1)
    with pytest.raises(TextrailError, match=r"received nothing of process 1 \(localhost:\d+\)\. Start `textrail"):
        train(inputs, tmp_path, "multi_worker")
    assert children[0].poll() is not None


@pytest.mark.parametrize("index, streams, said", [
    (1, 2, r"the run in the first process of TF_CONFIG, at localhost:\d+; received it in process 1"),
    (0, 3, "expected training.loading.streams that 2 devices can share equally; received 3. Set it to a mul")])
def test_a_run_that_cannot_train_so_is_refused_before_it_begins(worker, monkeypatch, index, streams, said):
    config = json.loads(os.environ["TF_CONFIG"])
    config["task"]["index"] = index
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    with pytest.raises(TextrailError, match=said):
        train_worker.check_is_first(streams)
