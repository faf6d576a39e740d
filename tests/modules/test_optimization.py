import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from modules import optimization
from modules.errors import TextrailError
from modules.optimization import AdamW, Schedule, choose_precision, decays, learning_rate


def rates(schedule: str, steps: int = 11, warmup: int = 4) -> list[float]:
    return [float(learning_rate(tf.constant(step, tf.int64), 2.0, 10, warmup, schedule)) for step in range(steps)]


def test_linear_schedule_has_the_exact_values():
    assert rates("linear") == pytest.approx([0.5, 1, 1.5, 2, 2, 5 / 3, 4 / 3, 1, 2 / 3, 1 / 3, 0], abs=1e-6)


def test_cosine_schedule_is_half_way_down_in_the_middle():
    values = rates("cosine")
    assert values[:5] == pytest.approx([0.5, 1, 1.5, 2, 2])
    assert values[7] == pytest.approx(1.0)
    assert values[5] == pytest.approx(1 + math.cos(math.pi / 6))


def test_constant_schedule_and_no_warmup():
    assert rates("constant", warmup=0) == [2.0] * 11


def test_the_schedule_of_a_run_is_that_of_its_settings():
    schedule = Schedule.of({"learning_rate": 2.0, "warmup": 0.45, "schedule": "linear", "epochs": 2}, 10)
    assert schedule == (2.0, 10, 4, "linear", 1)
    assert schedule(tf.range(11)).numpy().tolist() == rates("linear")
    schedule = Schedule.of({"learning_rate": 2.0, "warmup_steps": 4, "schedule": "inverse_sqrt"}, 10, 16)
    assert schedule == (2.0, 10, 4, "inverse_sqrt", 16)


def test_inverse_sqrt_schedule_has_the_papers_values():
    # 2 · 16^-0.5 · min(step^-0.5, step · 4^-1.5), and no end at the 10th step.
    expected = [0.5 * min(step**-0.5, step / 8) for step in range(1, 13)]
    assert expected[:5] == [0.0625, 0.125, 0.1875, 0.25, 0.5 * 5**-0.5]
    schedule = Schedule(2.0, 10, 4, "inverse_sqrt", 16)
    assert schedule(tf.range(12)).numpy().tolist() == pytest.approx(expected, rel=1e-6)
    # The base model: 512 wide, 4000 steps of warmup.
    paper = Schedule(1.0, 100_000, 4000, "inverse_sqrt", 512)
    assert [float(paper(step)) for step in (0, 3999, 99_999)] == pytest.approx(
        [1.74693e-7, 6.98771e-4, 1.39754e-4], rel=1e-5)


@pytest.mark.parametrize("name, expected", [
    ("classifier/bert/block_0/inner/kernel", True), ("bert/embeddings/words", True), ("head/bias", False),
    ("bert/block_3/attention_norm/gamma", False), ("bert/embeddings/norm/beta", False)])
def test_decay_spares_biases_and_layer_norms(name, expected):
    assert decays(name) is expected


def test_adamw_takes_the_steps_that_keras_takes():
    random = np.random.default_rng(0)
    start = {"kernel": random.normal(size=(3, 2)).astype("float32"), "bias": random.normal(size=2).astype("float32")}
    ours = {name: tf.Variable(value) for name, value in start.items()}
    theirs = {name: keras.Variable(value, name=name) for name, value in start.items()}
    optimizer = AdamW(list(ours.values()), list(ours), weight_decay=0.1, clip_norm=1.0, epsilon=1e-7)
    # Keras's epsilon is relative to the corrected second moment, the fused kernel's to the raw one; at 1e-7 they agree.
    peer = keras.optimizers.AdamW(0.05, weight_decay=0.1, global_clipnorm=1.0, epsilon=1e-7)
    peer.exclude_from_weight_decay(var_names=["bias"])
    for _ in range(5):
        gradients = [tf.constant(random.normal(size=v.shape).astype("float32")) * 3 for v in start.values()]
        optimizer.apply(gradients, tf.constant(0.05))
        peer.apply(gradients, list(theirs.values()))
    for name in start:
        np.testing.assert_allclose(ours[name].numpy(), np.array(theirs[name]), atol=2e-5)


def test_without_decay_it_is_adam_with_the_papers_numbers():
    random, start = np.random.default_rng(0), [1.0, -2.0, 3.0]
    ours, theirs = tf.Variable(start), keras.Variable(np.array(start, "float32"), name="kernel")
    optimizer = AdamW([ours], ["kernel"], weight_decay=0.0, clip_norm=0, beta_1=0.9, beta_2=0.98, epsilon=1e-9)
    peer = keras.optimizers.Adam(0.05, 0.9, 0.98, 1e-9)
    for _ in range(5):
        gradient = tf.constant(random.normal(size=3), tf.float32)
        optimizer.apply([gradient], tf.constant(0.05))
        peer.apply([gradient], [theirs])
    np.testing.assert_allclose(ours.numpy(), np.array(theirs), rtol=1e-5)


def test_gradient_norm_is_clipped_before_the_step_and_reported_unclipped():
    variable = tf.Variable([1.0, 1.0])
    optimizer = AdamW([variable], ["kernel"], weight_decay=0.0, clip_norm=1.0)
    norm = optimizer.apply([tf.constant([3.0, 4.0])], tf.constant(0.1))
    assert float(norm) == pytest.approx(5.0)
    np.testing.assert_allclose(optimizer.first_moments[0].numpy(), [0.06, 0.08], rtol=1e-5)  # a tenth of [0.6, 0.8]


def test_a_float16_overflow_changes_no_weight_and_halves_the_loss_scale():
    variable = tf.Variable([1.0])
    optimizer = AdamW([variable], ["kernel"], scale_loss=True)
    scale = float(optimizer.loss_scale)
    optimizer.apply([tf.constant([math.inf])], tf.constant(0.1))
    assert variable.numpy() == [1.0]
    assert float(optimizer.loss_scale) == scale / 2
    optimizer.apply([tf.constant([scale / 2])], tf.constant(0.1))
    assert variable.numpy() < 1.0
    assert float(optimizer.loss_scale) == scale / 2


def test_rows_looked_up_twice_get_the_sum_of_their_gradients():
    table = tf.Variable(tf.ones([3, 2]))
    optimizer = AdamW([table], ["words"], weight_decay=0.0, clip_norm=0)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.gather(table, [1, 1]))
    norm = optimizer.apply([tape.gradient(loss, table)], tf.constant(0.1))
    assert float(norm) == pytest.approx(math.sqrt(8))
    np.testing.assert_allclose(table.numpy()[[0, 2]], 1)


def test_auto_precision_follows_the_cpu(monkeypatch):
    if tf.config.list_physical_devices("GPU"):
        pytest.skip("this machine has a GPU, which decides instead")
    for flags, expected in [({"avx2"}, "float32"), ({"avx512_bf16"}, "bfloat16"), ({"amx_bf16"}, "bfloat16")]:
        monkeypatch.setattr(optimization, "cpu_flags", lambda flags=flags: flags)
        precision, reason = choose_precision("auto")
        assert precision == expected
        assert all(flag in reason for flag in flags - {"avx2"})
    assert choose_precision("bfloat16") == ("bfloat16", "as set in training.precision")
    with pytest.raises(TextrailError, match=r"a GPU for training\.precision=float16"):
        choose_precision("float16")
