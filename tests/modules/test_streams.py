"""One training on one device, on two devices and in two processes: the same batches, the same curve, each other's
checkpoints."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from modules.errors import TextrailError
from modules.streams import Streams, dealt
from modules.train_worker import cluster

PROGRAM = """
import json, os, sys
from pathlib import Path
import numpy as np, tensorflow as tf
folder, strategy, streams, last = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
if strategy == "mirrored":
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from modules.training import TrainArgs, Training, choose_strategy
where = choose_strategy(strategy)
from modules.batching import Buckets, LengthBatches
settings = {"epochs": 3, "learning_rate": 0.05, "schedule": "linear", "warmup": 0.1, "weight_decay": 0.01,
            "clip_norm": 1.0, "xla": False, "early_stopping_metric": "accuracy", "patience": 5, "bucket_step": 4,
            "batch_tokens": 96, "max_batch": 16, "evaluations_per_epoch": 1, "checkpoint_seconds": 0.0,
            "shuffle_buffer": 40, "keep_checkpoints": 2, "average_checkpoints": 2, "loading": {"streams": streams}}
files = sorted(map(str, folder.parent.glob("*.gz")))
run = folder / f"run{os.environ.get('NUMBER', '')}"
run.mkdir(parents=True, exist_ok=True)
args = TrainArgs(files, files, "", "", "", str(run), str(folder / "checkpoints"), {"training": settings, "seed": 3})
buckets = Buckets.of_run(settings, 12, where.num_replicas_in_sync)
batches = LengthBatches(args, {"ids$ragged_values": tf.int64, "label": tf.int64}, buckets, 0, where)
with where.scope():
    table, kernel = tf.Variable(tf.reshape(tf.range(80.0) / 80, [20, 4])), tf.Variable(tf.ones([4, 2]))

def forward(batch, training):
    mask = tf.cast(batch["ids"] > 0, tf.float32)
    mean = tf.einsum("bl,blh->bh", mask, tf.gather(table, batch["ids"])) / tf.reduce_sum(mask, 1, keepdims=True)
    logits = mean @ kernel
    return {"loss": tf.reduce_sum(tf.nn.sparse_softmax_cross_entropy_with_logits(batch["label"], logits)),
            "accuracy": tf.reduce_sum(tf.cast(tf.argmax(logits, -1) == batch["label"], tf.float32)),
            "weight": tf.cast(tf.shape(logits)[0], tf.float32)}

training = Training(forward=forward, trained=[("table", table), ("kernel", kernel)], state=[],
                    batches=batches.of_epoch, steps_per_epoch=batches.steps_per_epoch, validation=batches.validation,
                    settings=settings, scale_loss=False, strategy=where, run_dir=str(run),
                    checkpoint_dir=args.checkpoint_dir)
step = training.train_step

def counted(batch):
    if last and training.history.step == last:
        training._save(0.0)
        os._exit(9)
    return step(batch)

training.train_step = counted
history = training.fit()
(run / "end.json").write_text(json.dumps({
    "rounds": [{key: one[key] for key in ("step", "train", "validation")} for one in history.rounds],
    "kernel": kernel.numpy().tolist(), "table": table.numpy().tolist(), "average": history.average["steps"]}))
"""


@pytest.fixture(scope="module")
def records(tmp_path_factory) -> Path:
    """Four files of texts of 1 to 12 tokens, of unequal numbers; a text with token 7 is of class 1."""
    folder, random = tmp_path_factory.mktemp("records"), np.random.default_rng(0)
    for number, rows in enumerate((41, 30, 37, 29)):
        with tf.io.TFRecordWriter(str(folder / f"{number}.gz"), "GZIP") as writer:
            for _ in range(rows):
                ids = random.integers(1, 20, random.integers(1, 13)).tolist()
                features = tf.train.Features(feature={
                    "ids$ragged_values": tf.train.Feature(int64_list=tf.train.Int64List(value=ids)),
                    "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[int(7 in ids)]))})
                writer.write(tf.train.Example(features=features).SerializeToString())
    return folder


def train(folder: Path, strategy: str, streams: int = 2, last: int = 0, workers: int = 1) -> dict | None:
    """A training in processes of its own. Returns what the first one found; none if it ended at step `last`."""
    ports = []
    for _ in range(workers):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            ports.append(f"localhost:{free.getsockname()[1]}")
    running = []
    for number in range(workers):
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "TF_CPP_MIN_LOG_LEVEL": "2"}
        if strategy == "multi_worker":
            environment |= {"NUMBER": str(number), "TF_CONFIG": json.dumps(
                {"cluster": {"worker": ports}, "task": {"type": "worker", "index": number}})}
        running.append(subprocess.Popen([sys.executable, "-c", PROGRAM, str(folder), strategy, str(streams), str(last)],
                                        env=environment, stderr=subprocess.PIPE, text=True))
    for process in running:
        errors = process.communicate(timeout=600)[1]
        assert process.returncode == (9 if last else 0), errors[-3000:]
    return None if last else json.loads(
        (folder / f"run{'0' if strategy == 'multi_worker' else ''}" / "end.json").read_text())


def assert_same(found: dict, expected: dict, resumed_in: int | None = None) -> None:
    """Of the round that a training was resumed in, `train` is told of the steps behind that alone."""
    assert len(found["rounds"]) == len(expected["rounds"]) == 3
    for number, (one, other) in enumerate(zip(found["rounds"], expected["rounds"], strict=True)):
        assert one["step"] == other["step"]
        for split in ("train", "validation") if number != resumed_in else ("validation",):
            assert one[split] == pytest.approx(other[split], abs=2e-5)
    assert found["average"] == expected["average"]
    for name in ("kernel", "table"):
        np.testing.assert_allclose(found[name], expected[name], atol=2e-5)


def test_devices_processes_and_what_they_left_behind_make_one_training(records):
    expected = train(records / "one", "one_device")
    losses = [one["train"]["loss"] for one in expected["rounds"]]
    assert losses == sorted(losses, reverse=True)
    assert_same(train(records / "two", "mirrored"), expected)
    assert_same(train(records / "cluster", "multi_worker", workers=2), expected)
    assert sorted(path.name for path in (records / "cluster/run0/checkpoints").iterdir())[0] == "average.safetensors"
    # Cut off in the second epoch, in two processes; one device takes it up.
    cut = expected["rounds"][0]["step"] + 3
    train(records / "cut", "multi_worker", last=cut, workers=2)
    assert_same(train(records / "cut", "one_device"), expected, resumed_in=1)


def streams_of(parts, steps):
    spec = {"ids": tf.TensorSpec([None, None], tf.int32), "label": tf.TensorSpec([None], tf.int64)}
    return Streams(lambda stream: tf.data.Dataset.from_generator(lambda: parts[stream], output_signature=spec),
                   len(parts), steps, {"ids": 4})


def test_one_device_joins_parts_and_pads_them():
    parts = [[{"ids": [[5, 6]], "label": [1]}, {"ids": [[1]], "label": [0]}], [{"ids": [[7, 8, 9]], "label": [0]}]]
    first, second = streams_of(parts, 2).distributed(tf.distribute.get_strategy())
    assert first["ids"].numpy().tolist() == [[5, 6, 4], [7, 8, 9]]
    assert first["label"].numpy().tolist() == [1, 0]
    assert second["ids"].numpy().tolist() == [[1]], "a stream that is at its end adds no rows"
    only, = streams_of(parts, 2).distributed(tf.distribute.get_strategy(), skip=1)
    assert only["label"].numpy().tolist() == [0]


def test_files_are_dealt_and_too_few_are_refused():
    assert [dealt(["c", "a", "b"], stream, 2) for stream in (0, 1)] == [["a", "c"], ["b"]]
    with pytest.raises(TextrailError, match="at least 4 files of transformed examples"):
        dealt(["a"], 0, 4)


@pytest.mark.parametrize("config", ["", "{", '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
                                    '{"cluster": {"worker": ["a:1"]}, "task": {"type": "ps", "index": 0}}'])
def test_a_cluster_that_is_none_is_refused(monkeypatch, config):
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(TextrailError, match="Set it for every process"):
        cluster()


def test_the_chief_comes_first(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": {"chief": ["a:1"], "worker": ["b:1", "c:1"]},
                                                "task": {"type": "worker", "index": 1}}))
    assert cluster() == (2, 3)
