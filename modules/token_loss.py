"""Cross entropy of tokens foretold over a vocabulary, without ever holding the scores of all of them.

Over a vocabulary of thousands the projection and the softmax behind it are the largest part of a training step, and
their scores by far its largest tensor. So rows are taken some at a time: their scores stay in the processor's cache,
and while they are there their gradient is computed at once. However large a batch is, a step holds the scores of one
chunk. (GPUs profit alike: Hsu et al., arXiv:2410.10989.)
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from modules.transformer import Linear, f32, is_plain, on_cpu, one_loop, with_gradient


def token_loss(projection: Linear, x: tf.Tensor, labels: tf.Tensor, smoothing: float, training: bool
               ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Cross entropy with smoothed labels (Szegedy et al., arXiv:1512.00567), and how many labels score best.

    Smoothing s takes each label for the label with probability 1 - s, and with s for any token of the vocabulary. With
    the scores ln 1, ln 2, ln 1, the label 1 and s = 0.3, the loss is -(0.8 ln 0.5 + 0.1 ln 0.25 + 0.1 ln 0.25).

    Args:
        projection: to the vocabulary.
        x: [rows, width] floats.
        labels: [rows] int32; a row with a negative one counts for nothing, and costs nothing.
        smoothing: s, in [0, 1).
        training: whether a gradient will be asked for.

    Returns:
        Sums over the rows that count, each [] float32: cross entropy in nats, rows of which no other token scores
        higher than the label, and rows.
    """
    chunk, rows = chunk_rows(), tf.size(labels)
    # Rows that count come first, and only chunks with one of them are gone through. Sizes depend on shapes alone, for
    # XLA; and chunks are whole, since another length would be another loop to compile.
    order = tf.argsort(tf.cast(labels < 0, tf.int32), stable=True)  # [rows]
    back = tf.argsort(order)  # [rows]
    counting = tf.reduce_sum(tf.cast(labels >= 0, tf.int32))
    missing = -rows % chunk
    labels = tf.reshape(tf.pad(tf.gather(labels, order), [[0, missing]], constant_values=-1), [-1, chunk])

    @with_gradient
    def run(x: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor) -> Any:
        width = x.shape[1]
        chunks = tf.reshape(tf.pad(tf.gather(x, order), [[0, missing], [0, 0]]), [-1, chunk, width])
        loss, correct, *gradients = _in_chunks(chunks, labels, -(-counting // chunk), kernel, bias, smoothing,
                                               projection.is_shared, with_gradients=training and not is_plain())

        def gradient(upstream: tf.Tensor, _: tf.Tensor) -> Any:
            to_x = f32(tf.gather(tf.reshape(gradients[0], [-1, width]), back)) * upstream  # [rows, width]
            return tf.cast(to_x, x.dtype), gradients[1] * upstream, gradients[2] * upstream

        return (loss, correct), gradient

    loss, correct = run(x, tf.convert_to_tensor(projection.kernel), tf.convert_to_tensor(projection.bias))
    return loss, correct, f32(counting)


def chunk_rows() -> int:
    """Rows whose scores are held at a time: few on a CPU, whose cache is small; others are kept busy by more."""
    return 256 if on_cpu() else 4096


def _in_chunks(x: tf.Tensor, labels: tf.Tensor, count: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor, smoothing: float,
               transposed: bool, with_gradients: bool) -> list[tf.Tensor]:
    """Loss and correct rows and, where wanted, the loss's gradients with respect to x, kernel and bias.

    Args:
        x: [chunks, chunk, width].
        labels: [chunks, chunk].
        count: [] int32 chunks to go through; the gradient of the others is 0.
        kernel: [width, vocabulary], or transposed.
        bias: [vocabulary].
        smoothing: see `token_loss`.
        transposed: whether the kernel is.
        with_gradients: whether they are wanted.
    """
    compute = x.dtype
    used, offset = tf.cast(kernel, compute), tf.cast(bias, compute)
    mean_kernel = tf.reduce_mean(f32(kernel), axis=0 if transposed else 1)[:, None]  # [width, 1]
    mean_bias = tf.reduce_mean(f32(bias))
    vocabulary = tf.shape(bias)[0]

    def one(x: tf.Tensor, labels: tf.Tensor) -> list[tf.Tensor]:
        scores = tf.nn.bias_add(tf.matmul(x, used, transpose_b=transposed), offset)  # [chunk, vocabulary]
        highest = tf.reduce_max(scores, axis=1)  # [chunk]
        powers = _powers(scores, highest)  # [chunk, vocabulary]
        total = tf.reduce_sum(powers, axis=1)  # [chunk]
        counts = f32(labels >= 0)
        of_label = tf.gather(scores, tf.maximum(labels, 0), batch_dims=1)  # [chunk]
        mean = tf.matmul(f32(x), mean_kernel)[:, 0] + mean_bias  # of the scores, without a pass over them
        loss = f32(highest) + tf.math.log(total) - (1 - smoothing) * f32(of_label) - smoothing * mean
        found = [tf.reduce_sum(loss * counts), tf.reduce_sum(f32(of_label >= highest) * counts)]
        if not with_gradients:
            return found
        change = _change(powers, total, labels, smoothing / f32(vocabulary), 1 - smoothing, x)  # [chunk, vocabulary]
        first, second = (change, x) if transposed else (x, change)
        return [*found, tf.matmul(change, used, transpose_b=not transposed),
                tf.matmul(first, second, transpose_a=True), tf.matmul(tf.ones([1, tf.shape(x)[0]], compute), change)]

    def add(i: tf.Tensor, loss: tf.Tensor, correct: tf.Tensor, *so_far: Any) -> Any:
        found = one(x[i], labels[i])
        rest = ([so_far[0].write(i, found[2]), _accumulate(so_far[1], found[3]), _accumulate(so_far[2], found[4])]
                if with_gradients else [])
        return i + 1, loss + found[0], correct + found[1], *rest

    nothing = ([tf.TensorArray(compute, size=tf.shape(x)[0], element_shape=x.shape[1:]), tf.zeros_like(f32(kernel)),
                tf.zeros([1, vocabulary])] if with_gradients else [])
    _, loss, correct, *rest = tf.while_loop(
        lambda i, *_: i < count, add, [tf.constant(0), tf.constant(0.0), tf.constant(0.0), *nothing],
        parallel_iterations=1)
    return [loss, correct, *([rest[0].stack(), rest[1], rest[2][0]] if with_gradients else [])]


@one_loop
def _powers(scores: tf.Tensor, highest: tf.Tensor) -> tf.Tensor:
    return tf.exp(f32(scores) - f32(highest)[:, None])


@one_loop
def _change(powers: tf.Tensor, total: tf.Tensor, labels: tf.Tensor, share: tf.Tensor, rest: float, like: tf.Tensor
            ) -> tf.Tensor:
    """The loss's gradient with respect to the scores, in the dtype of `like`: softmax - smoothed labels.

    A row without a label has the gradient 0.
    """
    is_label = tf.equal(tf.range(tf.shape(powers)[1])[None], labels[:, None])  # [chunk, vocabulary]
    change = powers / total[:, None] - share - f32(is_label) * rest
    return tf.cast(tf.where(labels[:, None] >= 0, change, 0.0), like.dtype)


@one_loop
def _accumulate(total: tf.Tensor, more: tf.Tensor) -> tf.Tensor:
    return total + f32(more)
