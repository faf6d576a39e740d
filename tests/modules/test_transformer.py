import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from modules.errors import TextrailError
from modules.transformer import (
    ACTIVATIONS,
    AddNorm,
    Dropout,
    RandomBytes,
    SelfAttention,
    activate,
    additive_mask,
    attend,
)


def random_bytes(rate, seed=0):
    return RandomBytes(rate, keras.random.SeedGenerator(seed))


def test_attention_worked_by_hand():
    # Head width 4 scales by 1/2. Scores of the query (2, 0, 0, 0): 0, ln 3 and a masked one -> weights 1/4, 3/4, 0.
    query = tf.constant([[[[2.0, 0, 0, 0]]]])
    key = tf.constant([[[[0.0, 1, 1, 1], [math.log(3), 0, 0, 0], [100, 0, 0, 0]]]])
    value = tf.constant([[[[4.0, 0, 0, 8], [0, 4, 0, 8], [9, 9, 9, 9]]]])
    mask = additive_mask(tf.constant([[1, 1, 0]]), "float32")
    for training in (False, True):
        result = attend(query, key, value, mask, random_bytes(0), training)
        np.testing.assert_allclose(result, [[[[1, 3, 0, 8]]]], rtol=1e-6)


def test_one_product_for_query_key_value_is_the_textbook_formula():
    keras.utils.set_random_seed(1)
    layer = SelfAttention(8, 2, random_bytes(0), keras.initializers.RandomNormal(stddev=0.5))
    layer.qkv.bias.assign(np.linspace(-1, 1, 24))
    x, lengths = np.random.default_rng(0).normal(size=(3, 5, 8)).astype("float32"), [5, 3, 1]
    input_mask = tf.sequence_mask(lengths, 5, tf.int32)
    for training in (False, True):
        ours = layer(tf.reshape(x, [15, 8]), additive_mask(input_mask, "float32"), training=training)
        kernel, bias = layer.qkv.kernel.numpy(), layer.qkv.bias.numpy()
        for row, length in enumerate(lengths):
            contexts, rows = [], x[row, :length]
            for head in (slice(0, 4), slice(4, 8)):
                query, key, value = (
                    rows @ kernel[:, part:part + 8][:, head] + bias[part:part + 8][head] for part in (0, 8, 16))
                weights = np.exp(query @ key.T / 2)
                contexts.append(weights / weights.sum(-1, keepdims=True) @ value)
            expected = np.concatenate(contexts, -1) @ layer.output_dense.kernel.numpy()  # its bias is 0
            np.testing.assert_allclose(np.reshape(ours, [3, 5, 8])[row, :length], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_mask_cannot_overflow(dtype):
    mask = additive_mask(tf.constant([[1, 0]]), dtype)
    assert mask.shape == (1, 1, 1, 2) and mask.dtype == dtype
    score = tf.constant(-2000, dtype)
    assert np.isfinite(tf.cast(mask + score, tf.float32)).all()
    np.testing.assert_array_equal(tf.cast(tf.nn.softmax(mask + score), tf.float32), [[[[1, 0]]]])


def test_attention_gradient_with_dropout_is_that_of_the_plain_formula():
    random = np.random.default_rng(0)
    query, key, value = (tf.constant(random.normal(size=(2, 3, 5, 4)), tf.float32) for _ in range(3))
    upstream = tf.constant(random.normal(size=(2, 3, 5, 4)), tf.float32)
    mask = additive_mask(tf.sequence_mask([5, 3], 5, tf.int32), "float32")
    draw = random_bytes(0.3, seed=5).draw(tf.constant([2, 3, 5, 5]), True)

    def plain(query, key, value):
        weights = tf.nn.softmax(tf.matmul(query, key, transpose_b=True) / 2 + mask)
        return tf.matmul(weights * tf.cast(draw >= 77, tf.float32) * (256 / 179), value)  # 0.3 * 256 is about 77

    def result_and_gradients(function):
        with tf.GradientTape() as tape:
            tape.watch([query, key, value])
            result = function(query, key, value)
        return [result, *tape.gradient(result, [query, key, value], output_gradients=upstream)]

    ours = result_and_gradients(lambda *x: attend(*x, mask, random_bytes(0.3, seed=5), True))
    for received, expected in zip(ours, result_and_gradients(plain), strict=True):
        np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_keeps_the_expectation(rate, dtype):
    layer, x = Dropout(rate, keras.random.SeedGenerator(0), dtype=dtype), tf.ones([1000, 401], dtype)
    y = tf.cast(layer(x, training=True), tf.float32).numpy()
    kept = y > 0
    threshold = round(rate * 256)
    # 401,000 draws: five deviations of the share are 0.0024 at 0.1 and 0.004 at 0.5.
    assert kept.mean() == pytest.approx(1 - threshold / 256, abs=0.004)
    assert len(np.unique(y[kept])) == 1
    expected = tf.cast(tf.constant(256 / (256 - threshold)), dtype)
    assert y[kept][0] == tf.cast(expected, tf.float32)
    assert kept.mean(axis=0).min() > 0 and kept.mean(axis=1).min() > 0.3  # no stripes
    np.testing.assert_array_equal(layer(x), x)


def test_dropout_drops_the_same_elements_of_the_gradient():
    layer, x = Dropout(0.5, keras.random.SeedGenerator(0)), tf.ones([30, 7])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True)
    np.testing.assert_array_equal(tape.gradient(y, x), y)


def test_every_draw_differs_and_a_seed_repeats_them():
    def draws(seed):
        source = random_bytes(0.5, seed)
        return [source.draw(tf.constant([10, 10]), True).numpy() for _ in range(2)]

    np.testing.assert_array_equal(draws(1), draws(1))
    assert not np.array_equal(draws(1)[0], draws(1)[1])
    assert not np.array_equal(draws(1)[0], draws(2)[0])
    assert np.unique(random_bytes(0.5).draw(tf.constant([5000]), True)).size == 256


def test_nothing_is_drawn_without_need():
    assert random_bytes(0).draw(tf.constant([3]), True) is None
    assert random_bytes(0.5).draw(tf.constant([3]), False) is None


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_impossible_rates_are_refused(rate):
    with pytest.raises(TextrailError, match="at least 0 and below 1"):
        random_bytes(rate)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_activations_and_their_slopes(name):
    x = tf.constant(np.linspace(-6, 6, 1201)[None], tf.float32)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        plain, trained = activate(x, name, False), activate(x, name, True)
    np.testing.assert_allclose(trained, plain, rtol=0, atol=1e-6)
    np.testing.assert_allclose(tape.gradient(trained, x), tape.gradient(plain, x), rtol=0, atol=5e-6)


def test_gelu_is_the_exact_one():
    assert activate(tf.constant([[1.0]]), "gelu", False).numpy() == pytest.approx(0.8413447, abs=1e-6)
    assert activate(tf.constant([[1.0]]), "gelu_new", False).numpy() == pytest.approx(0.8411920, abs=1e-6)


def test_add_norm_by_hand():
    layer = AddNorm(2, 1e-12)
    layer.gamma.assign([1, 10])
    layer.beta.assign([0, 5])
    for training in (False, True):
        np.testing.assert_allclose(layer(tf.constant([[1.0, 3.0], [8.0, 0.0]]), training=training), [[-1, 15], [1, -5]])
        np.testing.assert_allclose(
            layer(tf.constant([[1.0, 3.0]]), tf.constant([[5.0, 0.0]]), training=training), [[1, -5]])


def test_add_norm_gradient_with_dropout_is_that_of_the_plain_formula():
    random = np.random.default_rng(0)
    x, residual, upstream = (tf.constant(random.normal(size=(6, 16)), tf.float32) for _ in range(3))
    layer = AddNorm(16, 1e-12, random_bytes(0.3, seed=5))
    layer.gamma.assign(random.normal(size=16))
    draw = random_bytes(0.3, seed=5).draw(tf.constant([6, 16]), True)
    sources = [x, residual, layer.gamma.value, layer.beta.value]
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([x, residual])
        ours = layer(x, residual, training=True)
        plain = layer(x * tf.cast(draw >= 77, tf.float32) * (256 / 179), residual)
    np.testing.assert_allclose(ours, plain, rtol=1e-5, atol=1e-5)
    for received, expected in zip(*(tape.gradient(y, sources, upstream) for y in (ours, plain)), strict=True):
        np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-5)


def test_statistics_are_float32_in_bfloat16():
    # In bfloat16 1000 and 1001 are the same number; their sum with a residual must not be rounded before the norm.
    layer = AddNorm(2, 1e-12, dtype="mixed_bfloat16")
    x, residual = tf.constant([[1.0, -1.0]], tf.bfloat16), tf.constant([[1000.0, 1000.0]], tf.bfloat16)
    for training in (False, True):
        np.testing.assert_array_equal(tf.cast(layer(x, residual, training=training), tf.float32), [[1, -1]])
