"""The one attention and the one block that every model here is made of.

The arithmetic follows "Attention Is All You Need" (Vaswani et al., 2017) with the norm after the residual, as there
and in BERT (Devlin et al., 2018).

Speed. On a CPU most of a training step's time goes not into matrix products but into passes over memory: TensorFlow
runs the dozen element-wise operations of a GELU and its gradient one after the other, each reading and writing the
whole tensor. So what lies between two matrix products is one function here, with its gradient written beside it, and
while training on a CPU each is compiled to a single loop by XLA (`_loop`). The matrix products stay with oneDNN,
which XLA's CPU compiler does not match. Inference, exported graphs and other devices run the same formulas as plain
TensorFlow operations; what other programs are to train, `plain_operations` leaves to TensorFlow's own gradients too.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import keras
import tensorflow as tf

from modules.errors import TextrailError

_PLAIN: ContextVar[bool] = ContextVar("plain", default=False)


@contextmanager
def plain_operations() -> Iterator[None]:
    """Graphs traced inside have TensorFlow's own operations and gradients alone, in training too.

    They are slower, and any TensorFlow on any device can load and train them.
    """
    before = _PLAIN.set(True)
    try:
        yield
    finally:
        _PLAIN.reset(before)


def _with_gradient(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that returns (y, gradient function) as one of y; see `tf.custom_gradient`."""
    with_ours = tf.custom_gradient(function)

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        return function(*args)[0] if _PLAIN.get() else with_ours(*args)

    return call


def _loop(function: Callable[..., Any]) -> Callable[..., Any]:
    """Makes one compiled loop of a chain of element-wise operations where that pays: on a CPU.

    Accelerators keep the plain operations: theirs are fast, and XLA there needs parts that not every machine has.
    `call.__wrapped__` is the function as written.
    """
    compiled = tf.function(function, jit_compile=True, reduce_retracing=True)

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        on_cpu = all(device.device_type == "CPU" for device in tf.config.list_logical_devices())
        return (compiled if on_cpu and not _PLAIN.get() else function)(*args)

    return call


def _f32(x: tf.Tensor) -> tf.Tensor:
    return tf.cast(x, tf.float32)


# --- activations -------------------------------------------------------------------------------------------------


def _gelu_slope(x: tf.Tensor) -> tf.Tensor:
    normal_cdf = 0.5 * (1 + tf.math.erf(x * math.sqrt(0.5)))
    return normal_cdf + x * tf.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)


def _gelu_tanh_slope(x: tf.Tensor) -> tf.Tensor:
    scale, cubic = math.sqrt(2 / math.pi), 0.044715
    tanh = tf.tanh(scale * (x + cubic * x * x * x))
    return 0.5 * (1 + tanh) + 0.5 * x * (1 - tanh * tanh) * scale * (1 + 3 * cubic * x * x)


_GELU_TANH = (functools.partial(tf.nn.gelu, approximate=True), _gelu_tanh_slope)

# config.json's `hidden_act` → the function and its derivative.
ACTIVATIONS: dict[str, tuple[Callable[[tf.Tensor], tf.Tensor], Callable[[tf.Tensor], tf.Tensor]]] = {
    "gelu": (functools.partial(tf.nn.gelu, approximate=False), _gelu_slope),
    "gelu_new": _GELU_TANH,
    "gelu_pytorch_tanh": _GELU_TANH,
    "relu": (tf.nn.relu, lambda x: _f32(x > 0)),
}


@_loop
def _activate(x: tf.Tensor, name: str) -> tf.Tensor:
    return tf.cast(ACTIVATIONS[name][0](_f32(x)), x.dtype)


@_loop
def _activate_gradient(x: tf.Tensor, upstream: tf.Tensor, name: str) -> tf.Tensor:
    return tf.cast(_f32(upstream) * ACTIVATIONS[name][1](_f32(x)), x.dtype)


def activate(x: tf.Tensor, name: str, training: bool) -> tf.Tensor:
    """Applies an activation.

    Args:
        x: [tokens, width] floats.
        name: a key of `ACTIVATIONS`.
        training: whether a gradient will be asked for.

    Returns:
        [tokens, width] in x's dtype.
    """
    if not training:
        return ACTIVATIONS[name][0](x)  # oneDNN folds this into the matrix product before it

    @_with_gradient
    def run(x: tf.Tensor) -> Any:
        return _activate(x, name), lambda upstream: _activate_gradient(x, upstream, name)

    return run(x)


# --- dropout -----------------------------------------------------------------------------------------------------


class RandomBytes:
    """Dropout's randomness: one random byte an element, four of them from each 32-bit integer drawn.

    Random floats cost more than the layers they are for. Bytes need a quarter of the integers, and no arithmetic but
    a comparison with a threshold. The rate is rounded to a multiple of 1/256 (0.1 becomes 26/256), and what is kept
    is scaled by the share really kept, so the expectation is exact.

    Args:
        rate: share of elements to drop, in [0, 1).
        seeds: shared by the layers of a model: each draw differs, and the same seed repeats a run.

    Raises:
        TextrailError: the rate is outside [0, 1).
    """

    def __init__(self, rate: float, seeds: keras.random.SeedGenerator):
        if not 0 <= rate < 1:
            raise TextrailError("a dropout rate of at least 0 and below 1", f"{rate}", "Set model.dropout to 0.1, say.")
        # A rate above 0 drops something and keeps something, however near 0 or 1 it is.
        self.threshold = min(max(round(rate * 256), 1), 255) if rate else 0
        self.seeds = seeds

    def draw(self, shape: tf.Tensor, training: bool) -> tf.Tensor | None:
        """Returns uint8 bytes of the shape asked for ([rank] int32), or None where nothing is to be dropped."""
        if not training or not self.threshold:
            return None
        size = tf.reduce_prod(shape)
        seed = tf.cast(self.seeds.next(), tf.int32)
        words = tf.random.stateless_uniform([(size + 3) // 4], seed, None, None, tf.uint32, alg="philox")
        return tf.reshape(tf.reshape(tf.bitcast(words, tf.uint8), [-1])[:size], shape)


def _keep(draw: tf.Tensor | None, threshold: int) -> tf.Tensor | float:
    """What to multiply with, float32 in the draw's shape: 0 for dropped elements, else 1 / the share kept."""
    return 1.0 if draw is None else _f32(draw >= threshold) * (256 / (256 - threshold))


@_loop
def _drop(x: tf.Tensor, draw: tf.Tensor, threshold: int) -> tf.Tensor:
    return tf.cast(_f32(x) * _keep(draw, threshold), x.dtype)


class Dropout(keras.layers.Layer):
    """Dropout (Srivastava et al., 2014) from random bytes.

    Args:
        rate: share of elements to drop, in [0, 1).
        seeds: the model's seed generator.
        **options: Keras's `name` and `dtype`.
    """

    def __init__(self, rate: float, seeds: keras.random.SeedGenerator, **options: Any):
        super().__init__(**options)
        self.random = RandomBytes(rate, seeds)
        self.built = True

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Drops elements of x (floats of any shape) while training."""
        draw, threshold = self.random.draw(tf.shape(x), training), self.random.threshold
        if draw is None:
            return x

        @_with_gradient
        def run(x: tf.Tensor) -> Any:
            return _drop(x, draw, threshold), lambda upstream: _drop(upstream, draw, threshold)

        return run(x)


# --- layer norm --------------------------------------------------------------------------------------------------


@_loop
def _add_norm(x: tf.Tensor, residual: tf.Tensor | None, draw: tf.Tensor | None, gamma: tf.Tensor, beta: tf.Tensor,
              threshold: int, epsilon: float) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """norm(residual + dropout(x)); also the normalised rows and 1/deviation [tokens, 1], which the gradient needs."""
    total = _f32(x) * _keep(draw, threshold)  # [tokens, width]
    if residual is not None:
        total += _f32(residual)
    # Statistics in float32 in every precision: a variance loses all its digits in bfloat16.
    centred = total - tf.reduce_mean(total, axis=-1, keepdims=True)
    inverse = tf.math.rsqrt(tf.reduce_mean(centred * centred, axis=-1, keepdims=True) + epsilon)
    normal = centred * inverse
    return tf.cast(normal * gamma + beta, x.dtype), tf.cast(normal, x.dtype), inverse


@_loop
def _add_norm_gradient(upstream: tf.Tensor, normal: tf.Tensor, inverse: tf.Tensor, draw: tf.Tensor | None,
                       gamma: tf.Tensor, threshold: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Gradients with respect to x, gamma, beta and residual."""
    upstream32, normal32 = _f32(upstream), _f32(normal)
    ones = tf.ones([1, tf.shape(upstream)[0]])  # as a product the sum over tokens walks along the memory
    to_gamma, to_beta = (tf.reshape(ones @ rows, [-1]) for rows in (upstream32 * normal32, upstream32))  # each [width]
    scaled = upstream32 * gamma
    mean = tf.reduce_mean(scaled, axis=-1, keepdims=True)  # [tokens, 1]
    correlation = tf.reduce_mean(scaled * normal32, axis=-1, keepdims=True)  # [tokens, 1]
    total = inverse * (scaled - mean - normal32 * correlation)
    to_x, to_residual = tf.cast(total * _keep(draw, threshold), normal.dtype), tf.cast(total, normal.dtype)
    return to_x, to_gamma, to_beta, to_residual


class AddNorm(keras.layers.Layer):
    """norm(residual + dropout(x)), layer norm (Ba et al., 2016) over the last axis.

    Args:
        width: size of the last axis.
        epsilon: added to the variance.
        random: dropout's rate and randomness; none adds nothing and drops nothing.
        **options: Keras's `name` and `dtype`.
    """

    def __init__(self, width: int, epsilon: float, random: RandomBytes | None = None, **options: Any):
        super().__init__(**options)
        self.epsilon, self.random = epsilon, random
        # Not cast to the compute type: they meet float32 statistics.
        self.gamma = self.add_weight(shape=(width,), initializer="ones", name="gamma", autocast=False)
        self.beta = self.add_weight(shape=(width,), initializer="zeros", name="beta", autocast=False)
        self.built = True

    def call(self, x: tf.Tensor, residual: tf.Tensor | None = None, training: bool = False) -> tf.Tensor:
        """Returns [tokens, width] in the compute dtype from x and residual, [tokens, width]."""
        gamma, beta = tf.convert_to_tensor(self.gamma), tf.convert_to_tensor(self.beta)
        if not training:
            return _add_norm.__wrapped__(x, residual, None, gamma, beta, 0, self.epsilon)[0]  # type: ignore[attr-defined]
        draw = self.random.draw(tf.shape(x), training) if self.random else None
        threshold = self.random.threshold if self.random else 0

        @_with_gradient
        def run(x: tf.Tensor, gamma: tf.Tensor, beta: tf.Tensor, *residual: tf.Tensor) -> Any:
            y, normal, inverse = _add_norm(x, *(residual or (None,)), draw, gamma, beta, threshold, self.epsilon)

            def gradient(upstream: tf.Tensor) -> Any:
                gradients = _add_norm_gradient(upstream, normal, inverse, draw, gamma, threshold)
                return gradients if residual else gradients[:3]

            return y, gradient

        return run(x, gamma, beta, *(() if residual is None else (residual,)))


# --- attention ---------------------------------------------------------------------------------------------------


def additive_mask(input_mask: tf.Tensor, dtype: str) -> tf.Tensor:
    """Turns a mask of ones (tokens) and zeros (padding) into what is added to attention scores.

    Args:
        input_mask: [batch, length] int32.
        dtype: of the scores.

    Returns:
        [batch, 1, 1, length]: 0 for tokens, and for padding half of the type's lowest value, so that adding a score
        to it cannot overflow, in float16 either.
    """
    mask = tf.where(input_mask > 0, tf.constant(0, dtype), tf.constant(tf.as_dtype(dtype).min / 2, dtype))
    return mask[:, None, None, :]  # [batch, 1, 1, length]


@_loop
def _scores_gradient(probabilities: tf.Tensor, upstream: tf.Tensor, row: tf.Tensor, draw: tf.Tensor | None,
                     threshold: int, scale: float) -> tf.Tensor:
    change = _f32(upstream) * _keep(draw, threshold) - row
    return tf.cast(_f32(probabilities) * change * scale, probabilities.dtype)


def attend(query: tf.Tensor, key: tf.Tensor, value: tf.Tensor, mask: tf.Tensor, random: RandomBytes,
           training: bool) -> tf.Tensor:
    """Scaled dot-product attention with dropout on the probabilities.

    Args:
        query: [batch, heads, to, head_width] floats.
        key: [batch, heads, from, head_width] floats.
        value: [batch, heads, from, head_width] floats.
        mask: added to the scores, broadcast to [batch, heads, to, from].
        random: dropout's rate and randomness.
        training: whether to drop.

    Returns:
        [batch, heads, to, head_width] in the inputs' dtype.
    """
    scale = 1 / math.sqrt(query.shape[-1])

    def weigh(query: tf.Tensor, key: tf.Tensor) -> tf.Tensor:
        return tf.nn.softmax(tf.matmul(query, key, transpose_b=True) * scale + mask)  # [batch, heads, to, from]

    if not training:
        return tf.matmul(weigh(query, key), value)

    @_with_gradient
    def run(query: tf.Tensor, key: tf.Tensor, value: tf.Tensor) -> Any:
        probabilities = weigh(query, key)
        draw = random.draw(tf.shape(probabilities), training)
        kept = probabilities if draw is None else _drop(probabilities, draw, random.threshold)
        output = tf.matmul(kept, value)  # [batch, heads, to, head_width]

        def gradient(upstream: tf.Tensor) -> Any:
            # Softmax's gradient needs the sum over `from` of probability x its gradient. That equals output x upstream
            # summed over head_width (Dao et al., 2022), a tensor several times smaller.
            row = tf.reduce_sum(_f32(output) * _f32(upstream), axis=-1, keepdims=True)  # [batch, heads, to, 1]
            to_kept = tf.matmul(upstream, value, transpose_b=True)  # [batch, heads, to, from]
            to_scores = _scores_gradient(probabilities, to_kept, row, draw, random.threshold, scale)
            return (tf.matmul(to_scores, key), tf.matmul(to_scores, query, transpose_a=True),
                    tf.matmul(kept, upstream, transpose_a=True))

        return output, gradient

    return run(query, key, value)


# --- layers ------------------------------------------------------------------------------------------------------


@_with_gradient
def _add_bias(x: tf.Tensor, bias: tf.Tensor) -> Any:
    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # The sum over tokens as a product: faster than TensorFlow's sum, and added up in float32 in every precision.
        ones = tf.ones([1, tf.shape(upstream)[0]], upstream.dtype)
        return upstream, tf.reshape(tf.matmul(ones, upstream), [-1])

    return tf.nn.bias_add(x, bias), gradient


@_loop
def _add(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    return tf.cast(_f32(x) + _f32(y), x.dtype)


@_with_gradient
def _fork(x: tf.Tensor) -> Any:
    """x twice, for a layer and the residual around it; TensorFlow's own sum of their gradients is slow in bfloat16."""
    return (tf.identity(x), tf.identity(x)), _add


class Linear(keras.layers.Layer):
    """x · kernel + bias.

    Args:
        width_in: size of x's last axis.
        width_out: size of the result's last axis.
        initializer: of the kernel.
        **options: Keras's `name` and `dtype`.
    """

    def __init__(self, width_in: int, width_out: int, initializer: Any, **options: Any):
        super().__init__(**options)
        self.kernel = self.add_weight(shape=(width_in, width_out), initializer=initializer, name="kernel")
        self.bias = self.add_weight(shape=(width_out,), initializer="zeros", name="bias")
        self.built = True

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Returns [tokens, width_out] from x, [tokens, width_in]."""
        return _add_bias(tf.matmul(x, tf.convert_to_tensor(self.kernel)), tf.convert_to_tensor(self.bias))


class SelfAttention(keras.layers.Layer):
    """Multi-head attention of a sequence to itself; query, key and value come from one matrix product.

    Args:
        width: hidden size.
        num_heads: heads; divides width.
        random: dropout on the attention probabilities.
        initializer: of the kernels.
        **options: Keras's `name` and `dtype`.
    """

    def __init__(self, width: int, num_heads: int, random: RandomBytes, initializer: Any, **options: Any):
        super().__init__(**options)
        self.width, self.num_heads, self.random = width, num_heads, random
        self.qkv = Linear(width, 3 * width, initializer.clone(), name="qkv", dtype=self.dtype_policy)
        self.output_dense = Linear(width, width, initializer.clone(), name="output", dtype=self.dtype_policy)
        self.built = True

    def call(self, x: tf.Tensor, mask: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns [batch * length, width] from x of the same shape and mask, [batch, 1, 1, length]."""
        batch, length = tf.shape(mask)[0], tf.shape(mask)[-1]
        heads = tf.reshape(self.qkv(x), [batch, length, 3, self.num_heads, self.width // self.num_heads])
        query, key, value = tf.unstack(tf.transpose(heads, [2, 0, 3, 1, 4]))  # each [batch, heads, length, head_width]
        context = attend(query, key, value, mask, self.random, training)  # [batch, heads, length, head_width]
        context = tf.reshape(tf.transpose(context, [0, 2, 1, 3]), [-1, self.width])  # [batch * length, width]
        return self.output_dense(context)


class Block(keras.layers.Layer):
    """Attention and feed-forward, each followed by dropout, residual and norm.

    Tokens of all rows lie one after the other, [batch * length, width]: only attention cares where a row ends.

    Args:
        width: hidden size.
        num_heads: attention heads.
        inner_width: width between the two layers of the feed-forward.
        activation: a key of `ACTIVATIONS`.
        epsilon: of the layer norms.
        random: dropout on attention probabilities and after attention and feed-forward.
        initializer: of the kernels.
        **options: Keras's `name` and `dtype`.
    """

    def __init__(self, width: int, num_heads: int, inner_width: int, activation: str, epsilon: float,
                 random: RandomBytes, initializer: Any, **options: Any):
        super().__init__(**options)
        policy = self.dtype_policy
        self.activation = activation
        self.attention = SelfAttention(width, num_heads, random, initializer, name="attention", dtype=policy)
        self.attention_norm = AddNorm(width, epsilon, random, name="attention_norm", dtype=policy)
        self.inner = Linear(width, inner_width, initializer.clone(), name="inner", dtype=policy)
        self.outer = Linear(inner_width, width, initializer.clone(), name="outer", dtype=policy)
        self.outer_norm = AddNorm(width, epsilon, random, name="outer_norm", dtype=policy)
        self.built = True

    def call(self, x: tf.Tensor, mask: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns [batch * length, width] from x of the same shape and mask, [batch, 1, 1, length]."""
        x, residual = _fork(x) if training else (x, x)
        x = self.attention_norm(self.attention(x, mask, training=training), residual, training=training)
        x, residual = _fork(x) if training else (x, x)
        inner = activate(self.inner(x), self.activation, training)  # [batch * length, inner_width]
        return self.outer_norm(self.outer(inner), residual, training=training)
