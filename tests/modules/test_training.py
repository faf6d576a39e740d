import json
import logging
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import load_file

from modules import progress
from modules.errors import TextrailError
from modules.training import Training, choose_strategy, means

SETTINGS = {"epochs": 3, "learning_rate": 0.05, "schedule": "linear", "warmup": 0.1, "weight_decay": 0.01,
            "clip_norm": 1.0, "xla": False, "early_stopping_metric": "accuracy", "patience": 5,
            "evaluations_per_epoch": 1, "checkpoint_seconds": 0.0}


class Line:
    """Which side of a line points are on: a linear model that learns in a few steps."""

    def __init__(self, strategy: tf.distribute.Strategy | None = None):
        random = np.random.default_rng(0)
        self.points = random.normal(size=(256, 4)).astype("float32")
        self.sides = (self.points[:, 0] + self.points[:, 1] > 0).astype("int64")
        self.dataset = tf.data.Dataset.from_tensor_slices({"x": self.points, "y": self.sides})
        self.strategy = strategy or tf.distribute.get_strategy()
        with self.strategy.scope():
            self.kernel = tf.Variable(tf.zeros([4, 2]))
            self.bias = tf.Variable(tf.zeros([2]))

    def forward(self, batch, training):
        logits = batch["x"] @ self.kernel + self.bias
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(batch["y"], logits)
        correct = tf.cast(tf.argmax(logits, -1) == batch["y"], tf.float32)
        return {"loss": tf.reduce_sum(loss), "accuracy": tf.reduce_sum(correct),
                "weight": tf.cast(tf.shape(logits)[0], tf.float32)}

    def batches(self, epoch: int) -> tf.data.Dataset:
        return self.dataset.shuffle(256, seed=epoch, reshuffle_each_iteration=False).batch(30)

    def training(self, folder: Path, forward=None, batches=None, run_dir=None, unit="examples", **changes
                 ) -> Training:
        trained = [("kernel", self.kernel), ("bias", self.bias)]
        return Training(forward=forward or self.forward, trained=trained, state=[], batches=batches or self.batches,
                        steps_per_epoch=9, validation=self.dataset.batch(64),
                        settings=SETTINGS | changes, scale_loss=False, strategy=self.strategy,
                        run_dir=run_dir or str(folder / "run"), checkpoint_dir=str(folder / "checkpoints"), unit=unit)


@pytest.fixture(autouse=True)
def run_folder(tmp_path):
    (tmp_path / "run").mkdir()


def losses(history) -> list[float]:
    return [one["train"]["loss"] for one in history.rounds]


def test_it_learns_and_says_so(tmp_path, caplog):
    line = Line()
    progress.LOGGER.addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.INFO):
            history = line.training(tmp_path).fit()
    finally:
        progress.LOGGER.removeHandler(caplog.handler)
    assert history.step == 27
    assert [one["epoch"] for one in history.rounds] == [1, 2, 3]
    assert losses(history) == sorted(losses(history), reverse=True)
    assert history.rounds[-1]["validation"]["accuracy"] > 0.9
    assert json.loads((tmp_path / "run" / "history.json").read_text())["rounds"] == history.rounds
    lasting = [record for record in caplog.records if getattr(record, "progress", {}).get("lasting")]
    assert len(lasting) == 3
    assert lasting[-1].getMessage().startswith("epoch 3/3, step 27/27: train loss 0.")
    assert list((tmp_path / "run").glob("events.out.tfevents.*"))


def test_a_cut_off_training_resumes_to_the_very_same_weights(tmp_path):
    def cut_batches(epoch: int):
        dataset = line.batches(epoch)
        if epoch == 1:
            def stop(position, batch):
                tf.debugging.assert_less(position, tf.constant(5, tf.int64), message="cut off here")
                return batch
            dataset = dataset.enumerate().map(stop)
        return dataset

    (tmp_path / "whole" / "run").mkdir(parents=True)
    whole = Line()
    expected = whole.training(tmp_path / "whole").fit()
    line = Line()
    with pytest.raises(tf.errors.InvalidArgumentError, match="cut off here"):
        line.training(tmp_path, batches=cut_batches).fit()
    line = Line()
    resumed = line.training(tmp_path).fit()
    assert resumed.step == expected.step == 27
    np.testing.assert_allclose(line.kernel.numpy(), whole.kernel.numpy(), rtol=1e-6)
    assert resumed.rounds[-1]["validation"] == pytest.approx(expected.rounds[-1]["validation"])


def test_the_best_weights_are_kept_and_patience_ends_training(tmp_path):
    line = Line()
    history = line.training(tmp_path, epochs=50, learning_rate=3.0, schedule="constant", patience=2).fit()
    best = max(range(len(history.rounds)), key=lambda i: history.rounds[i]["validation"]["accuracy"])
    assert history.best_round == best
    assert len(history.rounds) == best + 3 < 50
    answers = line.forward({"x": line.points, "y": line.sides}, False)
    assert float(answers["accuracy"]) / 256 == pytest.approx(history.rounds[best]["validation"]["accuracy"])


def weights_in(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    return {path.stem: load_file(path) for path in sorted(folder.iterdir())}


def test_the_last_rounds_and_the_best_are_kept_as_weights(tmp_path):
    line = Line()
    history = line.training(tmp_path, epochs=5, keep_checkpoints=2, learning_rate=3.0, schedule="constant").fit()
    found = weights_in(tmp_path / "run" / "checkpoints")
    assert set(found) == {"best", "step-36", "step-45"}
    assert set(found["best"]) == {"000 kernel", "001 bias"}
    np.testing.assert_array_equal(found["best"]["000 kernel"], line.kernel.numpy())
    best = f"step-{history.rounds[history.best_round]['step']}"
    if best in found:
        np.testing.assert_array_equal(found["best"]["001 bias"], found[best]["001 bias"])
    assert history.average is None


@pytest.mark.parametrize("learning_rate, taken", [(2.0, True), (0.001, False)])
def test_the_mean_of_the_last_rounds_is_taken_if_it_is_better(tmp_path, learning_rate, taken):
    # Steps much too large go to and fro around the best weights, and small ones go on towards them.
    line = Line()
    history = line.training(tmp_path, epochs=6, learning_rate=learning_rate, schedule="constant", weight_decay=0.0,
                            average_checkpoints=3, keep_checkpoints=4, early_stopping_metric="loss").fit()
    found = weights_in(tmp_path / "run" / "checkpoints")
    assert set(found) == {"average", "best", "step-27", "step-36", "step-45", "step-54"}
    for key in ("000 kernel", "001 bias"):
        np.testing.assert_allclose(found["average"][key], np.mean([found[f"step-{i}"][key] for i in (36, 45, 54)], 0),
                                   rtol=1e-5)
    assert history.average["steps"] == [36, 45, 54] and history.average["taken"] is taken
    assert json.loads((tmp_path / "run" / "history.json").read_text())["average"] == history.average
    np.testing.assert_array_equal(line.kernel.numpy(), found["average" if taken else "best"]["000 kernel"])
    loss = float(line.forward({"x": line.points, "y": line.sides}, False)["loss"]) / 256
    best = history.rounds[history.best_round]["validation"]["loss"]
    assert loss == pytest.approx(min(best, history.average["validation"]["loss"]), rel=1e-5)


def test_speeds_are_told_in_the_unit_that_weights_count(tmp_path):
    history = Line().training(tmp_path, epochs=1, unit="target_tokens").fit()
    assert history.rounds[0]["target_tokens_per_second"] > 0


def test_several_validation_rounds_an_epoch(tmp_path):
    history = Line().training(tmp_path, epochs=2, evaluations_per_epoch=2).fit()
    assert [one["step"] for one in history.rounds] == [4, 9, 13, 18]


def test_a_loss_that_is_no_number_stops_with_a_sentence(tmp_path):
    line = Line()

    def forward(batch, training):
        sums = line.forward(batch, training)
        return sums | {"loss": sums["loss"] * math.nan}

    with pytest.raises(TextrailError, match="a finite training loss; received nan within the steps up to 9"):
        line.training(tmp_path, forward=forward).fit()


def test_a_validation_loss_that_is_no_number_stops_before_it_can_pass_for_the_best(tmp_path):
    line = Line()

    def forward(batch, training):
        sums = line.forward(batch, training)
        return sums if training else sums | {"loss": sums["loss"] * math.nan}

    with pytest.raises(TextrailError, match="a finite validation loss; received nan within the steps up to 9"):
        line.training(tmp_path, forward=forward, early_stopping_metric="loss").fit()


def test_the_history_goes_where_a_uri_says(tmp_path):
    history = Line().training(tmp_path, run_dir=f"file://{tmp_path}/run", epochs=1).fit()
    assert json.loads((tmp_path / "run" / "history.json").read_text())["rounds"] == history.rounds
    assert list((tmp_path / "run").glob("events.out.tfevents.*"))


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    Line().training(tmp_path, epochs=1).fit()
    line = Line()
    line.kernel = tf.Variable(tf.zeros([5, 2]))
    with pytest.raises(TextrailError, match="Delete that folder"):
        line.training(tmp_path).fit()


def test_unavailable_devices_are_refused():
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("this machine has a GPU")
    with pytest.raises(TextrailError, match="GPUs for"):
        choose_strategy("mirrored")
    with pytest.raises(TextrailError, match="a TPU for"):
        choose_strategy("tpu")


def test_two_devices_learn_what_one_learns(tmp_path):
    # Logical devices must be set before TensorFlow starts, hence in a process of its own.
    program = f"""
import sys; sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[2])]!r}
from pathlib import Path
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_visible_devices([cpu])
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from test_training import Line
from modules.training import choose_strategy
found = []
for name, parts in (("one_device", 1), ("mirrored", 1), ("mirrored", 3)):
    folder = Path({str(tmp_path)!r}) / f"{{name}}{{parts}}"
    (folder / "run").mkdir(parents=True)
    line = Line(choose_strategy(name))
    history = line.training(folder, accumulate=parts).fit()
    found.append([line.kernel.numpy(), [one["train"]["loss"] for one in history.rounds]])
assert line.strategy.num_replicas_in_sync == 2
for kernel, losses in found[1:]:
    np.testing.assert_allclose(found[0][0], kernel, atol=1e-5)
    np.testing.assert_allclose(found[0][1], losses, atol=1e-5)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


def test_parts_of_a_batch_make_the_step_of_the_whole(tmp_path):
    found = []
    for parts in (1, 4, 40):   # of 30 rows, 16 at the end of an epoch
        (tmp_path / str(parts) / "run").mkdir(parents=True)
        line = Line()
        history = line.training(tmp_path / str(parts), accumulate=parts, weight_decay=0.0).fit()
        found.append((line.kernel.numpy(), history.step, losses(history)))
    for kernel, step, loss in found[1:]:
        assert step == 27
        np.testing.assert_allclose(kernel, found[0][0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(loss, found[0][2], rtol=1e-5)


def several(line):
    """Two losses of which one counts only some points, and of some parts of a batch none."""
    def forward(batch, training):
        whole, counts = line.forward(batch, training), tf.cast(batch["x"][:, 2] > 1, tf.float32)
        part = tf.reduce_sum((batch["x"] @ line.kernel)[:, 0] ** 2 * counts)
        return {"side_loss": whole["loss"], "side_accuracy": whole["accuracy"], "side_weight": whole["weight"],
                "size_loss": part, "size_weight": tf.reduce_sum(counts), "weight": 2 * whole["weight"]}
    return forward


def test_several_losses_have_weights_of_their_own_in_parts_too(tmp_path):
    found = []
    for parts in (1, 7):
        (tmp_path / str(parts) / "run").mkdir(parents=True)
        line = Line()
        history = line.training(tmp_path / str(parts), forward=several(line), accumulate=parts,
                                early_stopping_metric="side_accuracy").fit()
        found.append((line.kernel.numpy(), history.rounds))
    for one, other in zip(found[0][1], found[1][1], strict=True):
        assert one["train"] == pytest.approx(other["train"], rel=1e-4)
        assert one["validation"] == pytest.approx(other["validation"], rel=1e-4)
        assert one["train"]["loss"] == pytest.approx(one["train"]["side_loss"] + one["train"]["size_loss"])
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-4, atol=1e-6)
    # By hand: the first step's gradient is that of the sum of both means.
    line = Line()
    batch = next(iter(line.batches(0)))
    line.kernel.assign(tf.random.stateless_normal([4, 2], [1, 2]))
    with tf.GradientTape() as tape:
        sums = several(line)(batch, True)
        loss = sums["side_loss"] / 30 + sums["size_loss"] / sums["size_weight"]
    expected = tape.gradient(loss, line.kernel)
    _, gradients = line.training(tmp_path, forward=several(line))._accumulated(batch, 7)
    np.testing.assert_allclose(gradients[0], expected, rtol=1e-5, atol=1e-6)


def test_means_divide_sums_by_the_weight():
    assert means([{"loss": 3.0, "weight": 2.0, "gradient_norm": 1.0}, {"loss": 1.0, "weight": 2.0,
                                                                     "gradient_norm": 3.0}]) == {
        "loss": 1.0, "gradient_norm": 2.0}
    several = [{"a_loss": 3.0, "a_accuracy": 1.0, "a_weight": 2.0, "b_loss": 1.0, "b_weight": 4.0, "weight": 9.0}] * 2
    assert means(several) == {"loss": 1.75, "a_loss": 1.5, "a_accuracy": 0.5, "b_loss": 0.25}
