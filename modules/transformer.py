"""The one attention and the one block that every model here is made of.

The arithmetic follows "Attention Is All You Need" (Vaswani et al., 2017): the encoder's half of it is BERT (Devlin et
al., 2018), both halves are `modules/translator.py`.

Speed. On a CPU most of a training step's time goes not into matrix products but into passes over memory: TensorFlow
runs the dozen element-wise operations of a GELU and its gradient one after the other, each reading and writing the
whole tensor. So what lies between two matrix products is one function here, with its gradient written beside it, and
while training on a CPU each is compiled to a single loop by XLA (`one_loop`). The matrix products stay with oneDNN,
which XLA's CPU compiler does not match. Inference, exported graphs and other devices run the same formulas as plain
TensorFlow operations; what other programs are to train, `plain_operations` leaves to TensorFlow's own gradients too.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

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


def is_plain() -> bool:
    """Whether `plain_operations` holds."""
    return _PLAIN.get()


def with_gradient(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that returns (y, gradient function) as one of y; see `tf.custom_gradient`."""
    with_ours = tf.custom_gradient(function)

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        return function(*args)[0] if is_plain() else with_ours(*args)

    return call


def one_loop(function: Callable[..., Any]) -> Callable[..., Any]:
    """Makes one compiled loop of a chain of element-wise operations where that pays: on a CPU.

    Accelerators keep the plain operations: theirs are fast, and XLA there needs parts that not every machine has.
    `call.__wrapped__` is the function as written.
    """
    compiled = tf.function(function, jit_compile=True, reduce_retracing=True)

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        return (compiled if on_cpu() and not is_plain() else function)(*args)

    return call


def on_cpu() -> bool:
    """Whether TensorFlow has nothing but CPUs."""
    return all(device.device_type == "CPU" for device in tf.config.list_logical_devices())


def f32(x: tf.Tensor) -> tf.Tensor:
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
    "relu": (tf.nn.relu, lambda x: f32(x > 0)),
}


@one_loop
def _activate(x: tf.Tensor, name: str) -> tf.Tensor:
    return tf.cast(ACTIVATIONS[name][0](f32(x)), x.dtype)


@one_loop
def _activate_gradient(x: tf.Tensor, upstream: tf.Tensor, name: str) -> tf.Tensor:
    return tf.cast(f32(upstream) * ACTIVATIONS[name][1](f32(x)), x.dtype)


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

    @with_gradient
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
    return 1.0 if draw is None else f32(draw >= threshold) * (256 / (256 - threshold))


@one_loop
def _drop(x: tf.Tensor, draw: tf.Tensor, threshold: int) -> tf.Tensor:
    return tf.cast(f32(x) * _keep(draw, threshold), x.dtype)


@one_loop
def _drop_add(x: tf.Tensor, residual: tf.Tensor, draw: tf.Tensor | None, threshold: int) -> tf.Tensor:
    return tf.cast(f32(x) * _keep(draw, threshold) + f32(residual), x.dtype)


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

        @with_gradient
        def run(x: tf.Tensor) -> Any:
            return _drop(x, draw, threshold), lambda upstream: _drop(upstream, draw, threshold)

        return run(x)


class AddDropped(keras.layers.Layer):
    """residual + dropout(x), which ends a sublayer whose norm came first.

    Args:
        random: dropout's rate and randomness.
        **options: Keras's `name` and `dtype`.
    """

    def __init__(self, random: RandomBytes, **options: Any):
        super().__init__(**options)
        self.random = random
        self.built = True

    def call(self, x: tf.Tensor, residual: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns the sum of x and residual, floats of one shape."""
        if not training:
            return x + residual
        draw, threshold = self.random.draw(tf.shape(x), training), self.random.threshold

        @with_gradient
        def run(x: tf.Tensor, residual: tf.Tensor) -> Any:
            def gradient(upstream: tf.Tensor) -> Any:
                return upstream if draw is None else _drop(upstream, draw, threshold), upstream

            return _drop_add(x, residual, draw, threshold), gradient

        return run(x, residual)


# --- layer norm --------------------------------------------------------------------------------------------------


@one_loop
def _add_norm(x: tf.Tensor, residual: tf.Tensor | None, draw: tf.Tensor | None, gamma: tf.Tensor, beta: tf.Tensor,
              threshold: int, epsilon: float) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """norm(residual + dropout(x)); also the normalised rows and 1/deviation [tokens, 1], which the gradient needs."""
    total = f32(x) * _keep(draw, threshold)  # [tokens, width]
    if residual is not None:
        total += f32(residual)
    # Statistics in float32 in every precision: a variance loses all its digits in bfloat16.
    centred = total - tf.reduce_mean(total, axis=-1, keepdims=True)
    inverse = tf.math.rsqrt(tf.reduce_mean(centred * centred, axis=-1, keepdims=True) + epsilon)
    normal = centred * inverse
    return tf.cast(normal * gamma + beta, x.dtype), tf.cast(normal, x.dtype), inverse


@one_loop
def _add_norm_gradient(upstream: tf.Tensor, normal: tf.Tensor, inverse: tf.Tensor, draw: tf.Tensor | None,
                       gamma: tf.Tensor, threshold: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Gradients with respect to x, gamma, beta and residual."""
    upstream32, normal32 = f32(upstream), f32(normal)
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

        @with_gradient
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
    return _additive(input_mask > 0, dtype)[:, None, None, :]  # [batch, 1, 1, length]


def look_ahead_mask(input_mask: tf.Tensor, dtype: str) -> tf.Tensor:
    """As `additive_mask`, for a sequence of which each position sees itself and what came before, and no padding.

    The mask 1, 1, 0 gives the rows (0, -, -), (0, 0, -) and (0, 0, -), where - is the type's lowest value halved.

    Args:
        input_mask: [batch, length] int32.
        dtype: of the scores.

    Returns:
        [batch, 1, length, length].
    """
    positions = tf.range(tf.shape(input_mask)[1])
    seen = positions[None, :] <= positions[:, None]  # [length, length]
    return _additive(tf.logical_and(seen, input_mask[:, None, :] > 0), dtype)[:, None]  # [batch, 1, length, length]


def paths_mask(paths: tf.Tensor, dtype: str) -> tf.Tensor | None:
    """As `additive_mask`, for hypotheses whose tokens lie beside those of the others: each sees its own alone.

    Where a beam search dropped a hypothesis, the one in its place goes on from another's tokens. Two hypotheses of
    which the second was first's at position 0 have the paths (0, 0) and (0, 1), and with the tokens in the order
    position 0 of both, position 1 of both, the rows (0, -, 0, -) and (0, -, -, 0).

    Args:
        paths: [batch, beams, length] int32, in which place each hypothesis was at each position.
        dtype: of the scores.

    Returns:
        [batch, 1, beams, length * beams], or None for one beam, from which there is nothing to hide.
    """
    beams = paths.shape[1]
    if beams == 1:
        return None
    seen = tf.equal(paths[..., None], tf.range(beams))  # [batch, beams, length, beams]
    return tf.reshape(_additive(seen, dtype), [-1, 1, beams, tf.shape(paths)[2] * beams])


def _additive(seen: tf.Tensor, dtype: str) -> tf.Tensor:
    return tf.where(seen, tf.constant(0, dtype), tf.constant(tf.as_dtype(dtype).min / 2, dtype))


@one_loop
def _scores_gradient(probabilities: tf.Tensor, upstream: tf.Tensor, row: tf.Tensor, draw: tf.Tensor | None,
                     threshold: int, scale: float) -> tf.Tensor:
    change = f32(upstream) * _keep(draw, threshold) - row
    return tf.cast(f32(probabilities) * change * scale, probabilities.dtype)


def attention_probabilities(query: tf.Tensor, key: tf.Tensor, mask: tf.Tensor | None) -> tf.Tensor:
    """How much each position looks at each other one: softmax(query · key / √head_width + mask).

    Args:
        query: [batch, heads, to, head_width] floats.
        key: [batch, heads, from, head_width] floats.
        mask: added to the scores, broadcast to [batch, heads, to, from]; none masks nothing.

    Returns:
        [batch, heads, to, from] in the inputs' dtype; the sum over `from` is 1.
    """
    scores = tf.matmul(query, key, transpose_b=True) * (1 / math.sqrt(query.shape[-1]))
    return tf.nn.softmax(scores if mask is None else scores + mask)  # [batch, heads, to, from]


def attend(query: tf.Tensor, key: tf.Tensor, value: tf.Tensor, mask: tf.Tensor | None, random: RandomBytes,
           training: bool) -> tf.Tensor:
    """Scaled dot-product attention with dropout on the probabilities.

    Args:
        query: [batch, heads, to, head_width] floats.
        key: [batch, heads, from, head_width] floats.
        value: [batch, heads, from, head_width] floats.
        mask: added to the scores, broadcast to [batch, heads, to, from]; none masks nothing.
        random: dropout's rate and randomness.
        training: whether to drop.

    Returns:
        [batch, heads, to, head_width] in the inputs' dtype.
    """
    if not training:
        return tf.matmul(attention_probabilities(query, key, mask), value)
    scale = 1 / math.sqrt(query.shape[-1])

    @with_gradient
    def run(query: tf.Tensor, key: tf.Tensor, value: tf.Tensor) -> Any:
        probabilities = attention_probabilities(query, key, mask)  # [batch, heads, to, from]
        draw = random.draw(tf.shape(probabilities), training)
        kept = probabilities if draw is None else _drop(probabilities, draw, random.threshold)
        output = tf.matmul(kept, value)  # [batch, heads, to, head_width]

        def gradient(upstream: tf.Tensor) -> Any:
            # Softmax's gradient needs the sum over `from` of probability x its gradient. That equals output x upstream
            # summed over head_width (Dao et al., 2022), a tensor several times smaller.
            row = tf.reduce_sum(f32(output) * f32(upstream), axis=-1, keepdims=True)  # [batch, heads, to, 1]
            to_kept = tf.matmul(upstream, value, transpose_b=True)  # [batch, heads, to, from]
            to_scores = _scores_gradient(probabilities, to_kept, row, draw, random.threshold, scale)
            return (tf.matmul(to_scores, key), tf.matmul(to_scores, query, transpose_a=True),
                    tf.matmul(kept, upstream, transpose_a=True))

        return output, gradient

    return run(query, key, value)


# A step of decoding computes little at a time, and oneDNN, to which TensorFlow hands products, softmax and transposing
# on a CPU, takes some 50 µs to get ready for each, and longer for a new shape. What follows keeps to TensorFlow's own
# kernels, with the same results; only softmax over several hypotheses is worth oneDNN's while.


def attend_few(query: tf.Tensor, key: tf.Tensor, value: tf.Tensor, mask: tf.Tensor | None) -> tf.Tensor:
    """As `attend`, for few queries and without a gradient: [batch, heads, beams, head_width], beams known."""
    query *= 1 / math.sqrt(query.shape[-1])
    scores = tf.raw_ops.BatchMatMulV3(x=query, y=key, Tout=query.dtype, adj_y=True)  # [batch, heads, beams, from]
    scores = scores if mask is None else scores + mask
    weights = tf.exp(tf.nn.log_softmax(scores)) if query.shape[2] == 1 else tf.nn.softmax(scores)
    return tf.raw_ops.BatchMatMulV3(x=weights, y=value, Tout=query.dtype)


def _turned(x: tf.Tensor, order: list[int]) -> tf.Tensor:
    """tf.transpose, of which only that of integers stays with TensorFlow."""
    integers = {2: tf.int16, 4: tf.int32, 8: tf.int64}[x.dtype.size]
    return tf.bitcast(tf.transpose(tf.bitcast(x, integers), order), x.dtype)


# --- layers ------------------------------------------------------------------------------------------------------


@with_gradient
def _add_bias(x: tf.Tensor, bias: tf.Tensor) -> Any:
    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # The sum over tokens as a product: faster than TensorFlow's sum, and added up in float32 in every precision.
        ones = tf.ones([1, tf.shape(upstream)[0]], upstream.dtype)
        return upstream, tf.reshape(tf.matmul(ones, upstream), [-1])

    return tf.nn.bias_add(x, bias), gradient


@one_loop
def _add(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    return tf.cast(f32(x) + f32(y), x.dtype)


@with_gradient
def _fork(x: tf.Tensor) -> Any:
    """x twice, for a layer and the residual around it; TensorFlow's own sum of their gradients is slow in bfloat16."""
    return (tf.identity(x), tf.identity(x)), _add


class Linear(keras.layers.Layer):
    """x · kernel + bias.

    Args:
        width_in: size of x's last axis.
        width_out: size of the result's last axis.
        initializer: of the kernel.
        kernel: another layer's matrix [width_out, width_in] to share, transposed, instead of an own kernel.
        **options: Keras's `name` and `dtype`.
    """

    def __init__(self, width_in: int, width_out: int, initializer: Any, kernel: keras.Variable | None = None,
                 **options: Any):
        super().__init__(**options)
        self.is_shared = kernel is not None
        self.kernel: Any = kernel if self.is_shared else self.add_weight(
            shape=(width_in, width_out), initializer=initializer, name="kernel")
        self.bias = self.add_weight(shape=(width_out,), initializer="zeros", name="bias")
        self.built = True

    def call(self, x: tf.Tensor) -> tf.Tensor:
        """Returns [tokens, width_out] from x, [tokens, width_in]."""
        kernel = tf.cast(tf.convert_to_tensor(self.kernel), x.dtype)  # a shared one comes as it is kept, in float32
        return _add_bias(tf.matmul(x, kernel, transpose_b=self.is_shared), tf.convert_to_tensor(self.bias))


class Attention(keras.layers.Layer):
    """What multi-head attention to oneself and to another sequence share.

    Tokens of all rows lie one after the other, [batch * length, width].

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
        self.output_dense = Linear(width, width, initializer.clone(), name="output", dtype=self.dtype_policy)
        self.built = True

    def split(self, x: tf.Tensor, parts: int, length: tf.Tensor) -> list[tf.Tensor]:
        """Takes x [batch * length, parts * width] apart: [batch, heads, length, head_width] each."""
        # By length, which without rows (a device's share of a small batch) could not be told from the batch.
        heads = tf.reshape(x, [-1, length, parts, self.num_heads, self.width // self.num_heads])
        return tf.unstack(tf.transpose(heads, [2, 0, 3, 1, 4]), parts)

    def join(self, context: tf.Tensor) -> tf.Tensor:
        """Returns [batch * length, width] from what the heads found, [batch, heads, length, head_width]."""
        return self.output_dense(tf.reshape(tf.transpose(context, [0, 2, 1, 3]), [-1, self.width]))

    def split_few(self, x: tf.Tensor, parts: int, beams: int) -> list[tf.Tensor]:
        """As `split`, for few tokens a row and without a gradient: [batch, heads, beams, head_width] each."""
        head_width = self.width // self.num_heads
        if beams == 1:
            return tf.unstack(tf.reshape(x, [-1, parts, self.num_heads, 1, head_width]), axis=1)
        return tf.unstack(_turned(tf.reshape(x, [-1, beams, parts, self.num_heads, head_width]), [2, 0, 3, 1, 4]))

    def join_few(self, context: tf.Tensor) -> tf.Tensor:
        """As `join`, likewise."""
        context = context if context.shape[2] == 1 else _turned(context, [0, 2, 1, 3])
        return self.output_dense(tf.reshape(context, [-1, self.width]))


class SelfAttention(Attention):
    """Multi-head attention of a sequence to itself; query, key and value come from one matrix product.

    See `Attention`.
    """

    def __init__(self, width: int, num_heads: int, random: RandomBytes, initializer: Any, **options: Any):
        super().__init__(width, num_heads, random, initializer, **options)
        self.qkv = Linear(width, 3 * width, initializer.clone(), name="qkv", dtype=self.dtype_policy)

    def call(self, x: tf.Tensor, mask: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Returns [batch * length, width] from x of the same shape and mask, [batch, 1, 1 or length, length]."""
        query, key, value = self.split(self.qkv(x), 3, tf.shape(mask)[3])
        return self.join(attend(query, key, value, mask, self.random, training))

    def step(self, x: tf.Tensor, keys: tf.Tensor, values: tf.Tensor, mask: tf.Tensor | None, beams: int
             ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Attention of one more token of each hypothesis to itself and those before it.

        Args:
            x: [batch * beams, width].
            keys: of those before, [batch, heads, past * beams, head_width].
            values: likewise.
            mask: see `paths_mask`.
            beams: hypotheses of a row.

        Returns:
            [batch * beams, width], and keys and values [batch, heads, (past + 1) * beams, head_width].
        """
        query, key, value = self.split_few(self.qkv(x), 3, beams)  # each [batch, heads, beams, head_width]
        keys, values = tf.concat([keys, key], axis=2), tf.concat([values, value], axis=2)
        return self.join_few(attend_few(query, keys, values, mask)), keys, values


class Memory(NamedTuple):
    """What a decoder's block attends to, made once a sequence.

    Attributes:
        keys: [batch, heads, from, head_width] floats.
        values: likewise.
        mask: [batch, 1, 1, from], see `additive_mask`.
    """

    keys: tf.Tensor
    values: tf.Tensor
    mask: tf.Tensor


class CrossAttention(Attention):
    """Multi-head attention to another sequence, the memory, whose keys and values come from one matrix product.

    See `Attention`.
    """

    def __init__(self, width: int, num_heads: int, random: RandomBytes, initializer: Any, **options: Any):
        super().__init__(width, num_heads, random, initializer, **options)
        self.query = Linear(width, width, initializer.clone(), name="query", dtype=self.dtype_policy)
        self.key_value = Linear(width, 2 * width, initializer.clone(), name="key_value", dtype=self.dtype_policy)

    def remember(self, memory: tf.Tensor, mask: tf.Tensor) -> Memory:
        """Returns keys and values of memory, [batch * from, width], with its mask, [batch, 1, 1, from]."""
        keys, values = self.split(self.key_value(memory), 2, tf.shape(mask)[3])
        return Memory(keys, values, mask)

    def probabilities(self, x: tf.Tensor, memory: Memory) -> tf.Tensor:
        """Returns [batch, heads, to, from], how much x, [batch * to, width], looks at the memory."""
        return attention_probabilities(self._asked(x, memory), memory.keys, memory.mask)

    def call(self, x: tf.Tensor, memory: Memory, training: bool = False) -> tf.Tensor:
        """Returns [batch * to, width] from x of the same shape."""
        return self.join(attend(self._asked(x, memory), *memory, self.random, training))

    def _asked(self, x: tf.Tensor, memory: Memory) -> tf.Tensor:
        """The query, [batch, heads, to, head_width]."""
        length = tf.shape(x)[0] // tf.maximum(tf.shape(memory.mask)[0], 1)
        return self.split(self.query(x), 1, tf.maximum(length, 1))[0]

    def step(self, x: tf.Tensor, memory: Memory, beams: int) -> tf.Tensor:
        """Returns [batch * beams, width] from x of the same shape, one more token of each hypothesis."""
        query, = self.split_few(self.query(x), 1, beams)  # [batch, heads, beams, head_width]
        return self.join_few(attend_few(query, memory.keys, memory.values, memory.mask))


class Block(keras.layers.Layer):
    """Attention and feed-forward, each with dropout, a residual around it, and a norm.

    A decoder's block has attention to a memory between the two. The norm follows the residual, as in the paper and in
    BERT, or comes first, inside of it ("pre-norm", Xiong et al., arXiv:2002.04745).

    Tokens of all rows lie one after the other, [batch * length, width]: only attention cares where a row ends.

    Args:
        width: hidden size.
        num_heads: attention heads.
        inner_width: width between the two layers of the feed-forward.
        activation: a key of `ACTIVATIONS`.
        epsilon: of the layer norms.
        random: dropout on attention probabilities and after attention and feed-forward.
        initializer: of the kernels.
        norm_first: whether the norms come first.
        has_memory: whether it is a decoder's.
        **options: Keras's `name` and `dtype`.
    """

    def __init__(self, width: int, num_heads: int, inner_width: int, activation: str, epsilon: float,
                 random: RandomBytes, initializer: Any, *, norm_first: bool = False, has_memory: bool = False,
                 **options: Any):
        super().__init__(**options)
        policy = self.dtype_policy
        self.activation, self.norm_first = activation, norm_first

        def norm(name: str) -> AddNorm:
            return AddNorm(width, epsilon, None if norm_first else random, name=name, dtype=policy)

        self.attention = SelfAttention(width, num_heads, random, initializer, name="attention", dtype=policy)
        self.attention_norm = norm("attention_norm")
        if has_memory:
            self.cross = CrossAttention(width, num_heads, random, initializer, name="cross", dtype=policy)
            self.cross_norm = norm("cross_norm")
        self.inner = Linear(width, inner_width, initializer.clone(), name="inner", dtype=policy)
        self.outer = Linear(inner_width, width, initializer.clone(), name="outer", dtype=policy)
        self.outer_norm = norm("outer_norm")
        self.add_dropped = AddDropped(random, name="add_dropped", dtype=policy)
        self.built = True

    def call(self, x: tf.Tensor, mask: tf.Tensor, training: bool = False, memory: Memory | None = None) -> tf.Tensor:
        """Returns [batch * length, width] from x of the same shape and mask, [batch, 1, 1 or length, length]."""
        x = self._attended(x, mask, training)
        return self._fed_forward(self._looked_up(x, memory, training), training)

    def step(self, x: tf.Tensor, keys: tf.Tensor, values: tf.Tensor, mask: tf.Tensor | None, memory: Memory,
             beams: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """One more token of each hypothesis, [batch * beams, width]; see `SelfAttention.step`."""
        before = self._before(self.attention_norm, x, False)
        attended, keys, values = self.attention.step(before, keys, values, mask, beams)
        x = self._after(self.attention_norm, attended, x, False)
        found = self.cross.step(self._before(self.cross_norm, x, False), memory, beams)
        return self._fed_forward(self._after(self.cross_norm, found, x, False), False), keys, values

    def cross_probabilities(self, x: tf.Tensor, mask: tf.Tensor, memory: Memory) -> tf.Tensor:
        """Returns [batch, heads, to, from], how much the block looks at the memory; arguments as `call`."""
        return self.cross.probabilities(self._before(self.cross_norm, self._attended(x, mask, False), False), memory)

    def _attended(self, x: tf.Tensor, mask: tf.Tensor, training: bool) -> tf.Tensor:
        x, residual = _fork(x) if training else (x, x)
        attended = self.attention(self._before(self.attention_norm, x, training), mask, training=training)
        return self._after(self.attention_norm, attended, residual, training)

    def _looked_up(self, x: tf.Tensor, memory: Memory | None, training: bool) -> tf.Tensor:
        if memory is None:
            return x
        x, residual = _fork(x) if training else (x, x)
        found = self.cross(self._before(self.cross_norm, x, training), memory, training=training)
        return self._after(self.cross_norm, found, residual, training)

    def _fed_forward(self, x: tf.Tensor, training: bool) -> tf.Tensor:
        x, residual = _fork(x) if training else (x, x)
        inner = self.inner(self._before(self.outer_norm, x, training))  # [batch * length, inner_width]
        return self._after(self.outer_norm, self.outer(activate(inner, self.activation, training)), residual, training)

    def _before(self, norm: AddNorm, x: tf.Tensor, training: bool) -> tf.Tensor:
        return norm(x, training=training) if self.norm_first else x

    def _after(self, norm: AddNorm, x: tf.Tensor, residual: tf.Tensor, training: bool) -> tf.Tensor:
        return (self.add_dropped if self.norm_first else norm)(x, residual, training=training)
