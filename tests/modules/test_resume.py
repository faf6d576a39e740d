"""A training of the translator that is killed in the middle of an epoch, and goes on as if nothing had been."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.modules.test_batching import write_pairs

# Trains on the records given, writes a line a step, its number and loss, and hangs after the step given.
PROGRAM = """
import json, sys, time
from pathlib import Path
import keras, tensorflow as tf
from modules.batching import Buckets, LengthBatches
from modules.training import TrainArgs, Training, choose_strategy
from modules.translator import build_translator, sums

records, folder, last = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
(folder / "run").mkdir(parents=True, exist_ok=True)
settings = {"seed": 3,
    "model": {"layers": 1, "decoder_layers": None, "hidden_size": 16, "num_heads": 2, "inner_size": 32,
              "dropout": 0.3, "norm": "post", "tied": "none"},
    "training": {"epochs": 2, "learning_rate": 1.0, "schedule": "inverse_sqrt", "warmup_steps": 20, "beta_1": 0.9,
                 "beta_2": 0.98, "epsilon": 1e-9, "weight_decay": 0.0, "clip_norm": 0.0, "xla": False,
                 "early_stopping_metric": "loss", "patience": 5, "evaluations_per_epoch": 2, "checkpoint_seconds": 0.01,
                 "shuffle_buffer": 50, "keep_checkpoints": 3, "average_checkpoints": 2}}
args = TrainArgs([records], [records], "", "", "", str(folder / "run"), str(folder / "checkpoints"), settings)
keras.utils.set_random_seed(settings["seed"])
model = build_translator(settings, 121, 121, "float32")
features = {"source_ids$ragged_values": tf.int64, "target_ids$ragged_values": tf.int64}
batches = LengthBatches(args, features, Buckets.of(12, 4, 96, 64, texts=2), 0)
training = Training(
    forward=lambda batch, is_training: sums(model, batch, is_training, 0.1),
    trained=[(one.path, one.value) for one in model.trainable_variables], state=[model.seeds.state.value],
    batches=batches.of_epoch, steps_per_epoch=batches.steps_per_epoch, validation=batches.validation,
    settings=settings["training"], scale_loss=False, strategy=choose_strategy("one_device"), run_dir=args.run_dir,
    checkpoint_dir=args.checkpoint_dir, width=16, unit="target_tokens")
step = training.train_step

def told(batch):
    found = step(batch)
    with open(folder / "losses", "a") as file:
        print(int(training.step.numpy()), float(found["loss"]) / float(found["weight"]), file=file, flush=True)
    time.sleep(1000 if training.step.numpy() == last else 0)
    return found

training.train_step = told
history = training.fit()
(folder / "end").write_text(json.dumps([[one["validation"] for one in history.rounds], history.average]))
"""


def start(records: str, folder: Path, last: int = 0) -> subprocess.Popen:
    folder.mkdir(exist_ok=True)
    return subprocess.Popen([sys.executable, "-c", PROGRAM, records, str(folder), str(last)],
                            cwd=Path(__file__).parents[2], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def wait(process: subprocess.Popen) -> None:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-3000:]


def losses(folder: Path) -> list[tuple[int, float]]:
    lines = (folder / "losses").read_text().splitlines() if (folder / "losses").exists() else []
    return [(int(step), float(loss)) for step, loss in (line.split() for line in lines if len(line.split()) == 2)]


def test_a_killed_translator_goes_on_with_the_losses_of_an_unbroken_training(tmp_path):
    records = write_pairs(tmp_path / "pairs.gz", [(2 + i % 9, 2 + i * 7 % 10) for i in range(120)], sign=1)
    wait(start(records, tmp_path / "whole"))
    expected = losses(tmp_path / "whole")
    epoch = len(expected) // 2
    # Three quarters into the second epoch, of which the first half is in a checkpoint.
    killed, last = start(records, tmp_path / "killed", epoch * 7 // 4), epoch * 7 // 4
    while killed.poll() is None and len(losses(tmp_path / "killed")) < last:
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    _, errors = killed.communicate()
    before = losses(tmp_path / "killed")
    assert len(before) == last, errors[-3000:]
    assert not (tmp_path / "killed" / "end").exists()
    wait(start(records, tmp_path / "killed"))
    after = losses(tmp_path / "killed")[len(before):]
    assert epoch + 1 < after[0][0] <= last and after[-1][0] == expected[-1][0] == 2 * epoch
    for part in (before, after):
        for step, loss in part:
            assert loss == pytest.approx(expected[step - 1][1], rel=1e-4), step
    ends = [json.loads((tmp_path / name / "end").read_text()) for name in ("whole", "killed")]
    for unbroken, resumed in zip(ends[0][0] + [ends[0][1]["validation"]], ends[1][0] + [ends[1][1]["validation"]],
                                 strict=True):
        assert resumed == pytest.approx(unbroken, rel=1e-4)
    assert {path.name for path in (tmp_path / "killed" / "run" / "checkpoints").iterdir()} == {
        path.name for path in (tmp_path / "whole" / "run" / "checkpoints").iterdir()}
