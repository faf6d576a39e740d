import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from modules import token_loss as module
from modules.token_loss import token_loss
from modules.transformer import Linear, plain_operations


def projection(width, vocabulary, shared=False, dtype="float32"):
    keras.utils.set_random_seed(1)
    table = keras.Variable(np.random.default_rng(1).normal(size=(vocabulary, width)).astype("float32"))
    layer = Linear(width, vocabulary, keras.initializers.RandomNormal(stddev=1), kernel=table if shared else None,
                   dtype=dtype)
    layer.bias.assign(np.linspace(-1, 1, vocabulary))
    return layer


def result_and_gradients(function, x, layer):
    sources = [x, layer.kernel.value, layer.bias.value]
    with tf.GradientTape() as tape:
        tape.watch(x)
        sums = function()
    return [*sums, *(tf.convert_to_tensor(one) for one in tape.gradient(sums[0], sources))]


def test_the_docstrings_example():
    layer = projection(1, 3)
    layer.kernel.assign([[0, math.log(2), 0]])
    layer.bias.assign([0, 0, 0])
    expected = -(0.8 * math.log(0.5) + 0.2 * math.log(0.25))
    for training in (False, True):
        loss, correct, rows = token_loss(layer, tf.constant([[1.0], [9.0]]), tf.constant([1, -1]), 0.3, training)
        assert (float(loss), float(correct), float(rows)) == (pytest.approx(expected, rel=1e-6), 1.0, 1.0)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_it_is_the_plain_formula_over_several_chunks(monkeypatch, smoothing, shared):
    monkeypatch.setattr(module, "chunk_rows", lambda: 4)
    random, layer = np.random.default_rng(0), projection(6, 11, shared)
    x, labels = tf.constant(random.normal(size=(9, 6)), tf.float32), np.array([3, -1, 0, 10, 5, -1, 7, 2, 2])

    def plain():
        rows, is_row = tf.constant(np.maximum(labels, 0)), tf.constant(labels >= 0, tf.float32)
        kernel = tf.transpose(layer.kernel.value) if shared else layer.kernel.value
        scores = x @ kernel + layer.bias.value
        wanted = tf.one_hot(rows, 11) * (1 - smoothing) + smoothing / 11
        loss = tf.nn.softmax_cross_entropy_with_logits(wanted, scores)
        correct = tf.cast(tf.argmax(scores, axis=1) == rows, tf.float32)
        return [tf.reduce_sum(each * is_row) for each in (loss, correct, tf.ones(9))]

    def ours():
        return token_loss(layer, x, tf.constant(labels, tf.int32), smoothing, True)

    expected = result_and_gradients(plain, x, layer)
    for received, wanted in zip(result_and_gradients(ours, x, layer), expected, strict=True):
        np.testing.assert_allclose(received, wanted, rtol=1e-5, atol=1e-5)
    with plain_operations():
        for received, wanted in zip(result_and_gradients(ours, x, layer), expected, strict=True):
            np.testing.assert_allclose(received, wanted, rtol=1e-5, atol=1e-5)


def test_no_tensor_has_the_scores_of_all_rows():
    layer = projection(4, 1000)

    @tf.function
    def step(x, labels):
        with tf.GradientTape() as tape:
            loss, *_ = token_loss(layer, x, labels, 0.1, True)
        return tape.gradient(loss, [layer.kernel.value, layer.bias.value])

    graph = step.get_concrete_function(tf.TensorSpec([5000, 4]), tf.TensorSpec([5000], tf.int32)).graph
    shapes = [out.shape for of in (graph, *(f.graph for f in graph._functions.values() if hasattr(f, "graph")))
              for op in of.get_operations() for out in op.outputs]
    assert not [shape for shape in shapes if shape.rank == 2 and shape[1] == 1000 and (shape[0] or 0) > 256]


def test_sums_are_float32_in_bfloat16():
    layer = projection(32, 3000, dtype="mixed_bfloat16")
    random = np.random.default_rng(0)
    x, labels = random.normal(size=(600, 32)).astype("float32") / 6, random.integers(0, 3000, 600)
    sums = token_loss(layer, tf.cast(x, tf.bfloat16), tf.constant(labels, tf.int32), 0.0, True)
    assert all(one.dtype == tf.float32 for one in sums)
    scores = x @ layer.kernel.numpy() + layer.bias.numpy()
    expected = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, scores)
    assert float(sums[0]) / 600 == pytest.approx(float(tf.reduce_mean(expected)), rel=1e-3)


def test_a_batch_of_padding_alone_counts_nothing():
    layer = projection(4, 10)
    sums = token_loss(layer, tf.ones([3, 4]), tf.constant([-1, -1, -1]), 0.1, True)
    assert [float(one) for one in sums] == [0, 0, 0]
