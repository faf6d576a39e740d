"""Batches for several devices: the same on any number of them, in every shape."""

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
from modules.streams import Streams, are_dealt, check_shared, dealt
from tests.modules import test_translation

# Two runs, each on one device and on two, in the arguments of which no two share a folder.
PROGRAM = """
import json, sys
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_visible_devices([cpu])
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from modules import pretraining, translation
from modules.training import TrainArgs
for shape, args in json.load(sys.stdin):
    {"translation": translation, "pretraining": pretraining}[shape].run_fn(TrainArgs(**args))
"""
# A process of two, which prints what both hold.
SHARING = """
import json, os
import numpy as np
import tensorflow as tf
from modules.streams import everybodys, the_firsts
strategy = tf.distribute.MultiWorkerMirroredStrategy()
own = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
print(json.dumps({"numbers": everybodys(strategy, {own: [own, 7]}, 2),
                  "array": the_firsts(strategy, np.full([2, 3], own + 0.1, np.float32)).tolist()}))
"""
TRAINING = test_translation.TRAINING | {
    "epochs": 2, "batch_tokens": 256, "max_batch": 16, "bucket_step": 8, "learning_rate": 0.01, "schedule": "constant",
    "warmup": 0.0, "keep_checkpoints": 0, "average_checkpoints": 0, "loading": {"streams": 2}}


def pretraining_arguments(folder: Path, encoder: Path) -> dict:
    """Of a run that goes on from an encoder, on two files of 30 and 21 examples."""
    random, files = np.random.default_rng(0), []
    for rows in (30, 21):
        files.append(str(folder / f"{rows}.gz"))
        with tf.io.TFRecordWriter(files[-1], "GZIP") as writer:
            for _ in range(rows):
                ids = [2, *random.integers(5, 100, random.integers(4, 14)).tolist(), 3]
                writer.write(tf.train.Example(features=tf.train.Features(feature={
                    "token_ids$ragged_values": tf.train.Feature(int64_list=tf.train.Int64List(value=ids))
                })).SerializeToString())
    return {"train_files": files, "validation_files": files, "transform_graph": "", "encoder": str(encoder),
            "settings": {"seed": 3, "data": {"text": "text"}, "masking": {"mask_rate": 0.3}, "model": {"dropout": 0.0},
                         "instances": {"max_length": 16, "next_sentence": False}, "filling": {"top": 2},
                         "evaluation": {"passes": 2}, "training": TRAINING}}


def translation_arguments(folder: Path) -> dict:
    """Of 90 pairs in one file, of which each stream takes every other one."""
    vocabulary = test_translation.make_vocabulary(folder / "vocabulary")
    rows, file = test_translation.texts(90, 6), str(folder / "pairs.gz")
    test_translation.write_pairs(file, test_translation.Vocabularies.read(vocabulary), rows)
    return {"train_files": [file], "validation_files": [file], "encoder": "", "vocabulary": vocabulary,
            "transform_graph": test_translation.make_graph(folder / "graph", vocabulary),
            "settings": test_translation.SETTINGS | {"training": TRAINING}}


def test_two_devices_translate_and_pretrain_as_one_does(tiny_encoder, tmp_path):
    # Without dropout, whose draws depend on how a batch is shared out; classification is in test_classifier.
    runs, shapes = [], {"translation": translation_arguments(tmp_path),
                        "pretraining": pretraining_arguments(tmp_path, tiny_encoder)}
    for shape, args in shapes.items():
        for strategy in ("one_device", "mirrored"):
            folder = tmp_path / shape / strategy
            (folder / "run").mkdir(parents=True)
            runs.append((shape, args | {
                "serving_dir": str(folder / "model"), "run_dir": str(folder / "run"),
                "checkpoint_dir": str(folder / "checkpoints"),
                "settings": args["settings"] | {"training": TRAINING | {"strategy": strategy}}}))
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=Path(__file__).parents[2], input=json.dumps(runs),
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    for shape in shapes:
        one, two = (json.loads((tmp_path / shape / strategy / "run/history.json").read_text())["rounds"]
                    for strategy in ("one_device", "mirrored"))
        assert [found["step"] for found in one] == [found["step"] for found in two]
        for found, other in zip(one, two, strict=True):
            for split in ("train", "validation"):
                assert found[split] == pytest.approx(other[split], rel=2e-3, abs=2e-3), (shape, split)
        assert one[1]["train"]["loss"] < one[0]["train"]["loss"]
        assert (tmp_path / shape / "mirrored/model/saved_model.pb").exists()


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


def test_files_are_dealt_where_there_are_enough():
    assert [dealt(["c", "a", "b", "d"], stream, 2) for stream in (0, 1)] == [["a", "c"], ["b", "d"]]
    assert [are_dealt(["a"] * count, 4) for count in (1, 3, 4, 5, 8, 31, 32, 33)] == [
        False, False, True, False, True, False, True, True]


def test_streams_that_devices_cannot_share_are_refused():
    check_shared(6, 3)
    with pytest.raises(TextrailError, match=r"that 2 devices can share equally; received 3\. Set it to a mul"):
        check_shared(3, 2)


def test_processes_share_numbers_and_the_first_ones_array():
    with socket.socket() as one, socket.socket() as other:
        for free in (one, other):
            free.bind(("localhost", 0))
        hosts = [f"localhost:{free.getsockname()[1]}" for free in (one, other)]
    processes = [subprocess.Popen(
        [sys.executable, "-c", SHARING], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
        env={**os.environ, "TF_CONFIG": json.dumps({"cluster": {"worker": hosts},
                                                    "task": {"type": "worker", "index": index}})})
        for index in range(2)]
    for process in processes:
        found = json.loads(process.communicate(timeout=300)[0])
        assert found["numbers"] == [[0, 7], [1, 7]]
        np.testing.assert_array_equal(np.float32(found["array"]), np.full([2, 3], 0.1, np.float32))
