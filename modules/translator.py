"""The Transformer of "Attention Is All You Need" (Vaswani et al., 2017): an encoder and a decoder of the same blocks.

Ids are padded with 0. Positions are computed and not learned, so that only the memory limits a text's length. Decoding
goes one token at a time over what `start` and `step` keep of those before.
"""

from __future__ import annotations

from typing import Any, Literal

import keras
import tensorflow as tf

from modules.errors import TextrailError
from modules.token_loss import token_loss
from modules.transformer import (
    AddNorm,
    Block,
    Dropout,
    Linear,
    Memory,
    RandomBytes,
    additive_mask,
    look_ahead_mask,
    paths_mask,
)

Tied = Literal["none", "target", "all"]
Cache = dict[str, Any]

PAD = 0
EPSILON = 1e-6  # of the layer norms


def positional_code(positions: tf.Tensor, width: int) -> tf.Tensor:
    """The sines and cosines that tell positions apart, laid out as in the paper (section 3.5).

    Pair i of the columns is sin(position / 10000^(2i / width)) and the cosine of the same, one beside the other.
    (tensor2tensor, the paper's code, has all sines first; to what is learned from them the order is the same.)

    Args:
        positions: [length] int32, from 0.
        width: hidden size, even.

    Returns:
        [length, width] float32.
    """
    rates = 10000.0 ** (-tf.range(0, width, 2, tf.float32) / width)  # [width / 2]
    angles = tf.cast(positions, tf.float32)[:, None] * rates  # [length, width / 2]
    return tf.reshape(tf.stack([tf.sin(angles), tf.cos(angles)], axis=-1), [-1, width])  # [length, width]


class TokenEmbedding(keras.layers.Layer):
    """Token embedding × √width + positional code, with dropout on the sum.

    Args:
        size: of the vocabulary.
        width: hidden size.
        dropout: rate.
        seeds: the model's seed generator.
        **options: Keras's `name` and `dtype`.
    """

    def __init__(self, size: int, width: int, dropout: float, seeds: keras.random.SeedGenerator, **options: Any):
        super().__init__(**options)
        self.width = width
        # Times √width the deviation is 1, about that of the positional code. Not cast as a whole in each step.
        self.tokens = self.add_weight(shape=(size, width), name="tokens", autocast=False,
                                      initializer=keras.initializers.RandomNormal(stddev=width**-0.5))
        self.dropout = Dropout(dropout, seeds, name="dropout", dtype=self.dtype_policy)
        self.built = True

    def call(self, ids: tf.Tensor, first: tf.Tensor | int = 0, training: bool = False) -> tf.Tensor:
        """Returns [batch * length, width] from ids [batch, length] int32, the first of which is at position `first`."""
        tokens = tf.gather(tf.convert_to_tensor(self.tokens), ids) * self.width**0.5  # [batch, length, width]
        total = tokens + positional_code(first + tf.range(tf.shape(ids)[1]), self.width)
        total = tf.reshape(tf.cast(total, self.compute_dtype), [-1, self.width])  # [batch * length, width]
        return self.dropout(total, training=training)


class Translator(keras.Model):
    """Encoder, decoder, and the projection to the target vocabulary.

    Args:
        source_size: of the source vocabulary.
        target_size: of the target vocabulary.
        layers: blocks of the encoder.
        decoder_layers: blocks of the decoder; none for as many.
        hidden_size: width, even.
        num_heads: attention heads; divides hidden_size.
        inner_size: width between the two layers of the feed-forward.
        dropout: rate after the embeddings, on attention probabilities and after every sublayer.
        norm: `post` follows the paper; `pre` has the norms inside the residuals and one more at the end.
        tied: embeddings that are one matrix: `none`, the `target`'s and the projection's, or `all`, the source's too.
        seed: of dropout.
        **options: Keras's `name` and `dtype`.

    Raises:
        TextrailError: sizes that do not go together.
    """

    def __init__(self, source_size: int, target_size: int, *, layers: int, decoder_layers: int | None = None,
                 hidden_size: int, num_heads: int, inner_size: int, dropout: float, norm: Literal["post", "pre"],
                 tied: Tied, seed: int | None = None, **options: Any):
        super().__init__(**options)
        _check(source_size, target_size, hidden_size, num_heads, tied)
        self.width, self.num_heads, self.target_size = hidden_size, num_heads, target_size
        self.seeds = keras.random.SeedGenerator(seed)
        policy, norm_first = self.dtype_policy, norm == "pre"
        random = RandomBytes(dropout, self.seeds)
        kernels = keras.initializers.GlorotUniform()

        def embedding(size: int, name: str) -> TokenEmbedding:
            return TokenEmbedding(size, hidden_size, dropout, self.seeds, name=name, dtype=policy)

        def blocks(count: int, name: str, has_memory: bool) -> list[Block]:
            return [Block(hidden_size, num_heads, inner_size, "relu", EPSILON, random, kernels, norm_first=norm_first,
                          has_memory=has_memory, name=f"{name}_{index}", dtype=policy) for index in range(count)]

        def last_norm(name: str) -> AddNorm | None:
            return AddNorm(hidden_size, EPSILON, name=name, dtype=policy) if norm_first else None

        self.target_embedding = embedding(target_size, "target_embedding")
        self.source_embedding = (self.target_embedding if tied == "all" else embedding(source_size, "source_embedding"))
        self.encoder, self.encoder_norm = blocks(layers, "encoder", False), last_norm("encoder_norm")
        self.decoder, self.decoder_norm = blocks(decoder_layers or layers, "decoder", True), last_norm("decoder_norm")
        self.projection = Linear(hidden_size, target_size, kernels.clone(), name="projection", dtype=policy,
                                 kernel=None if tied == "none" else self.target_embedding.tokens)
        self.built = True

    def call(self, source_ids: tf.Tensor, target_ids: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Scores for the token after each of the target's.

        Args:
            source_ids: [batch, source length] int32.
            target_ids: [batch, target length] int32: the translation up to any position, [START] first.
            training: whether to drop.

        Returns:
            Logits [batch, target length, target_size] float32.
        """
        logits = self.projection(self.decoded(source_ids, target_ids, training))  # [batch * target length, target_size]
        shape = tf.shape(target_ids)
        return tf.reshape(tf.cast(logits, tf.float32), [shape[0], shape[1], self.target_size])

    def decoded(self, source_ids: tf.Tensor, target_ids: tf.Tensor, training: bool) -> tf.Tensor:
        """As `call`, before the projection: [batch * target length, width]."""
        x, mask = self._embedded(target_ids, training)
        memory, memory_mask = self._encoded(source_ids, training)
        for block in self.decoder:
            x = block(x, mask, training=training, memory=block.cross.remember(memory, memory_mask))
        return self._normed(self.decoder_norm, x, training)

    def cross_attention(self, source_ids: tf.Tensor, target_ids: tf.Tensor) -> tf.Tensor:
        """How much each position of the target looks at each of the source, for pictures.

        Args:
            source_ids: [batch, source length] int32.
            target_ids: [batch, target length] int32.

        Returns:
            [batch, layers, heads, target length, source length] float32; sums over the source are 1.
        """
        x, mask = self._embedded(target_ids, False)
        encoded, memory_mask = self._encoded(source_ids, False)
        weights = []
        for block in self.decoder:
            memory = block.cross.remember(encoded, memory_mask)
            weights.append(block.cross_probabilities(x, mask, memory))
            x = block(x, mask, memory=memory)
        return tf.cast(tf.stack(weights, axis=1), tf.float32)

    def start(self, source_ids: tf.Tensor) -> Cache:
        """Encodes sources and makes ready what `step` needs of them and of the tokens before.

        Args:
            source_ids: [batch, source length] int32.

        Returns:
            Tensors that all have a row a source, so that `tf.gather` reorders or repeats whole searches: `past`, of
            each block keys and values of the tokens so far, [batch, heads, 0, head_width] to begin with; `memory`, of
            each block those of the source, [batch, heads, source length, head_width], and `mask` [batch, 1, 1, source
            length], which no step changes.
        """
        memory, mask = self._encoded(source_ids, False)
        empty = tf.zeros([tf.shape(source_ids)[0], self.num_heads, 0, self.width // self.num_heads], self.compute_dtype)
        memories = [block.cross.remember(memory, mask) for block in self.decoder]
        return {"past": [(empty, empty) for _ in self.decoder],
                "memory": [(memory.keys, memory.values) for memory in memories], "mask": mask}

    def step(self, token_ids: tf.Tensor, paths: tf.Tensor, cache: Cache) -> tuple[tf.Tensor, Cache]:
        """Scores for the token after one more of each hypothesis, of which a source has `beams`.

        Nothing in the cache is moved when a hypothesis goes on from another's tokens: `paths` says where its own lie.

        Args:
            token_ids: [batch, beams] int32, the hypotheses' last tokens.
            paths: [batch, beams, length] int32, in which place (0 to beams - 1) each was at each position, the last
                position included, where it is its own.
            cache: of the step before, or of `start`.

        Returns:
            Logits [batch, beams, target_size] float32, as `call` gives them at the last position, and the cache for
            the next step.
        """
        mask, beams = paths_mask(paths, self.compute_dtype), token_ids.shape[1]
        x = self.target_embedding(tf.reshape(token_ids, [-1, 1]), tf.shape(paths)[2] - 1)  # [batch * beams, width]
        past = []
        for block, (keys, values), memory in zip(self.decoder, cache["past"], cache["memory"], strict=True):
            x, keys, values = block.step(x, keys, values, mask, Memory(memory[0], memory[1], cache["mask"]), beams)
            past.append((keys, values))
        logits = self.projection(self._normed(self.decoder_norm, x, False))  # [batch * beams, target_size]
        logits = tf.reshape(tf.cast(logits, tf.float32), [-1, beams, self.target_size])
        return logits, {**cache, "past": past}

    def _embedded(self, target_ids: tf.Tensor, training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        mask = look_ahead_mask(tf.cast(target_ids != PAD, tf.int32), self.compute_dtype)
        return self.target_embedding(target_ids, training=training), mask

    def _encoded(self, source_ids: tf.Tensor, training: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """[batch * length, width] and the mask, [batch, 1, 1, length]."""
        mask = additive_mask(tf.cast(source_ids != PAD, tf.int32), self.compute_dtype)
        x = self.source_embedding(source_ids, training=training)
        for block in self.encoder:
            x = block(x, mask, training=training)
        return self._normed(self.encoder_norm, x, training), mask

    def _normed(self, norm: AddNorm | None, x: tf.Tensor, training: bool) -> tf.Tensor:
        return x if norm is None else norm(x, training=training)


def _check(source_size: int, target_size: int, hidden_size: int, num_heads: int, tied: Tied) -> None:
    if hidden_size % num_heads or hidden_size % 2:
        raise TextrailError("model.hidden_size to be even and a multiple of model.num_heads",
                            f"{hidden_size} and {num_heads}", "Set model.hidden_size=128 and model.num_heads=8, say.")
    if tied == "all" and source_size != target_size:
        raise TextrailError("one vocabulary for both languages, for model.tied=all",
                            f"two of {source_size} and {target_size} tokens",
                            "Set vocabulary.joint=true, or model.tied=target.")


def build_translator(settings: dict[str, Any], source_size: int, target_size: int, dtype: str) -> Translator:
    """A new translator.

    Args:
        settings: the settings of the run; of its keys `seed` and `model`.
        source_size: of the source vocabulary.
        target_size: of the target vocabulary.
        dtype: a Keras dtype policy such as `mixed_bfloat16`.

    Raises:
        TextrailError: sizes that do not go together.
    """
    keys = ("layers", "decoder_layers", "hidden_size", "num_heads", "inner_size", "dropout", "norm", "tied")
    model = {key: settings["model"][key] for key in keys}
    return Translator(source_size, target_size, **model, seed=settings["seed"], dtype=dtype)


def sums(translator: Translator, batch: dict[str, tf.Tensor], training: bool, label_smoothing: float = 0.0
         ) -> dict[str, tf.Tensor]:
    """What a batch adds to loss and accuracy, for `Training`: each token is foretold from those before it.

    Args:
        translator: the model.
        batch: `source_ids` and `target_ids`, each [batch, length] int32 with [START] and [END].
        training: whether to drop, and to smooth the labels.
        label_smoothing: see `token_loss`.

    Returns:
        Sums over the batch, each [] float32: cross entropy in nats, tokens foretold right, and tokens. Padding counts
        for nothing.
    """
    inputs, labels = shifted(batch["target_ids"])
    decoded = translator.decoded(batch["source_ids"], inputs, training)  # [batch * length, width]
    labels = tf.reshape(tf.where(labels == PAD, -1, labels), [-1])  # [batch * length]
    loss, correct, tokens = token_loss(translator.projection, decoded, labels, label_smoothing if training else 0.0,
                                       training)
    return {"loss": loss, "accuracy": correct, "weight": tokens}


def shifted(target_ids: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """What the decoder is given and what it shall answer, one token on: [START] a b [END] → [START] a b, a b [END].

    Args:
        target_ids: [batch, length] int32.

    Returns:
        Inputs and labels, each [batch, length - 1].
    """
    return target_ids[:, :-1], target_ids[:, 1:]
