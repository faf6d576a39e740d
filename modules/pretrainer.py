"""BERT with the two heads that it is pretrained with (Devlin et al., 2018): words behind masks, and next sentences.

The head over the vocabulary shares its matrix with the word embeddings, and only masked positions go through it.
Weights have HuggingFace's names, `cls.predictions.…` and `cls.seq_relationship.…`, so that `transformers` reads what is
written here and what it writes goes on training here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from modules.bert import INPUTS, Bert, BertConfig
from modules.checkpoints import Checkpoint, Hints, read_huggingface
from modules.errors import TextrailError
from modules.first_weights import deviation, look_at_neighbours
from modules.presets import Sizes
from modules.token_loss import chunk_rows, token_loss
from modules.tokenization import Vocabulary
from modules.transformer import AddNorm, Linear, activate
from modules.weights import (
    Slot,
    assign_slots,
    encoder_tensors,
    expected_shapes,
    head_shapes,
    load_encoder,
    slot_tensors,
)


def pretraining_config(model: Mapping[str, Any], vocab_size: int, pad_id: int = 0) -> BertConfig:
    """The configuration of a new BERT, with everything but its sizes, and the deviation of its weights, as in BERT.

    Args:
        model: the section of the settings; see `Sizes.of`.
        vocab_size: wordpieces.
        pad_id: id of [PAD].

    Raises:
        TextrailError: there is no such preset, or sizes do not go together.
    """
    sizes = Sizes.of(model)
    return BertConfig(
        vocab_size=vocab_size, hidden_size=sizes.hidden_size, num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.num_heads, intermediate_size=sizes.inner_size,
        max_position_embeddings=sizes.positions, type_vocab_size=2, hidden_act="gelu", layer_norm_eps=1e-12,
        initializer_range=deviation(sizes.hidden_size), pad_token_id=pad_id)


def parameter_count(config: BertConfig, with_next: bool = True) -> int:
    """Weights of a `Pretrainer`, the shared matrix counted once: the counts that the papers give.

    Args:
        config: sizes.
        with_next: whether it has a pooler and the head for next sentences.
    """
    shapes = {**expected_shapes(config, with_next), **head_shapes(config, with_next)}
    return sum(int(np.prod(shape)) for shape in shapes.values())


class Pretrainer(keras.Model):
    """BERT with a head over the vocabulary and, where it has a pooler to see, one for next sentences.

    Args:
        bert: the encoder.
        vocabulary: tells padding and segments from the ids.
        with_next: whether to have the head for next sentences.
        **options: Keras's `name` and `dtype`.

    Raises:
        TextrailError: next sentences of an encoder without a pooler.
    """

    def __init__(self, bert: Bert, vocabulary: Vocabulary, with_next: bool = True, **options: Any):
        super().__init__(**options)
        config, policy = bert.config, self.dtype_policy
        if with_next and bert.pooler is None:
            raise TextrailError("an encoder with BERT's pooler, for next sentences", "one without",
                                "Set instances.next_sentence=false.")
        self.bert, self.vocabulary, self.config = bert, vocabulary, config
        if bert.pooler is not None:
            bert.pooler.trainable = with_next
        initializer = keras.initializers.TruncatedNormal(stddev=config.initializer_range)
        self.transform = Linear(config.hidden_size, config.hidden_size, initializer.clone(), name="transform",
                                dtype=policy)
        self.norm = AddNorm(config.hidden_size, config.layer_norm_eps, name="norm", dtype=policy)
        self.projection = Linear(config.hidden_size, config.vocab_size, initializer.clone(), name="projection",
                                 kernel=bert.embeddings.words, dtype=policy)
        self.next_head: Any = (Linear(config.hidden_size, 2, initializer.clone(), name="next_head", dtype="float32")
                               if with_next else None)
        self.built = True

    def call(self, token_ids: tf.Tensor, training: bool = False) -> dict[str, tf.Tensor]:
        """Scores at every position, for looking at; training and serving project masked positions only.

        Args:
            token_ids: [batch, length] int32, padded.
            training: whether to drop.

        Returns:
            `logits` [batch, length, vocabulary] float32 and, with that head, `next_logits` [batch, 2] float32, of
            which the first is for a second text that follows the first one, the second for one that does not.
        """
        outputs = self.encoded(token_ids, training)
        logits = self.scores(tf.reshape(outputs["sequence_output"], [-1, self.config.hidden_size]), training)
        shape = tf.shape(token_ids)
        found = {"logits": tf.reshape(logits, [shape[0], shape[1], self.config.vocab_size])}
        return found if self.next_head is None else {**found, "next_logits": self.next_logits(outputs)}

    def encoded(self, token_ids: tf.Tensor, training: bool = False) -> dict[str, Any]:
        """The outputs of the encoder, see `Bert.call`, of token_ids [batch, length] int32."""
        parts = token_ids, self.vocabulary.input_mask(token_ids), self.vocabulary.segment_ids(token_ids)
        return self.bert(dict(zip(INPUTS, parts, strict=True)), training=training)

    def transformed(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """What is compared with the words, [rows, hidden], of rows of `sequence_output`, [rows, hidden]."""
        return self.norm(activate(self.transform(x), self.config.hidden_act, training), training=training)

    def scores(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Logits [rows, vocabulary] float32 of rows of `sequence_output`, [rows, hidden]."""
        return tf.cast(self.projection(self.transformed(x, training)), tf.float32)

    def next_logits(self, outputs: dict[str, tf.Tensor]) -> tf.Tensor:
        """Logits [batch, 2] float32 of the encoder's outputs; see `call`."""
        return self.next_head(tf.cast(outputs["pooled_output"], tf.float32))

    @property
    def trained(self) -> list[tuple[str, tf.Variable]]:
        """Name and variable of all that trains, for `Training`."""
        return [(variable.path, variable.value) for variable in self.trainable_variables]

    @property
    def state(self) -> list[tf.Variable]:
        """What else changes while training: the seed of dropout."""
        return [self.bert.seeds.state.value]


def sums(pretrainer: Pretrainer, batch: dict[str, tf.Tensor], training: bool) -> dict[str, tf.Tensor]:
    """What a batch adds to losses and accuracies, for `Training`. The loss that is trained is the sum of both means.

    Args:
        pretrainer: the model.
        batch: `token_ids` [batch, length] int32, masked and padded; of the tokens to be foretold `masked_positions`
            [batch, size] int32, `masked_ids` [batch, size] int32 as they were, and `masked_weights` [batch, size]
            float32, 1 for a token and 0 for padding; with that head, `next_sentence_label` [batch] integers, 0 where
            the second text follows the first and 1 where it does not.
        training: whether to drop.

    Returns:
        Sums over the batch, each [] float32: of masked tokens `masked_loss` (cross entropy in nats),
        `masked_accuracy` and their number `masked_weight`; of pairs `next_loss`, `next_accuracy` and `next_weight`;
        and `weight`, tokens without padding, which is what speed is told in.
    """
    outputs = pretrainer.encoded(batch["token_ids"], training)
    x, labels = chosen(outputs["sequence_output"], batch)
    loss, correct, count = token_loss(pretrainer.projection, pretrainer.transformed(x, training), labels, 0.0, training)
    tokens = tf.reduce_sum(pretrainer.vocabulary.input_mask(batch["token_ids"]))
    found = {"masked_loss": loss, "masked_accuracy": correct, "masked_weight": count,
             "weight": tf.cast(tokens, tf.float32)}
    if pretrainer.next_head is None:
        return found
    logits = pretrainer.next_logits(outputs)  # [batch, 2]
    labels = tf.cast(batch["next_sentence_label"], tf.int64)  # [batch]
    right = tf.cast(tf.equal(tf.argmax(logits, axis=-1), labels), tf.float32)
    loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    return {**found, "next_loss": tf.reduce_sum(loss), "next_accuracy": tf.reduce_sum(right),
            "next_weight": tf.cast(tf.size(labels), tf.float32)}


def chosen(sequence_output: tf.Tensor, batch: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
    """The positions that are to be foretold, and what stood there.

    Args:
        sequence_output: [batch, length, hidden] floats.
        batch: see `sums`.

    Returns:
        [rows, hidden] and [rows] int32, a row for each of `masked_positions`, with a negative label where there is no
        token; filled up with such rows to whole chunks of the loss over the vocabulary, as another number of rows would
        be another loop to compile. Their number follows from shapes alone, as XLA needs it.
    """
    shape = tf.shape(sequence_output)
    positions = batch["masked_positions"] + shape[1] * tf.range(shape[0])[:, tf.newaxis]  # [batch, size]
    labels = tf.where(batch["masked_weights"] > 0, batch["masked_ids"], -1)  # [batch, size]
    filling = [[0, -tf.size(labels) % chunk_rows()]]
    rows = tf.reshape(sequence_output, [-1, sequence_output.shape[-1]])  # [batch * length, hidden]
    return (tf.gather(rows, tf.pad(tf.reshape(positions, [-1]), filling)),
            tf.pad(tf.reshape(labels, [-1]), filling, constant_values=-1))


# From and to folders in HuggingFace's layout.


def build_pretrainer(settings: Mapping[str, Any], vocabulary: Vocabulary, dtype: str, encoder: str = ""
                     ) -> tuple[Pretrainer, list[str]]:
    """What a training begins with: a new BERT, or one that goes on from an encoder.

    Args:
        settings: the settings of the run; of its keys `seed` and `model` (see `pretraining_config`, and `dropout`,
            `neighbour_heads` and `next_sentence`).
        vocabulary: wordpieces; of an encoder its own.
        dtype: a Keras dtype policy such as `mixed_bfloat16`.
        encoder: folder of the encoder to go on from, whose sizes then count; "" begins anew.

    Returns:
        The model, and which heads it has from the encoder, of `predictions` and `seq_relationship`.

    Raises:
        TextrailError: sizes that do not go together, or the encoder's folder is wrong.
    """
    model, seed = settings["model"], settings["seed"]
    with_next = model.get("next_sentence", True)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    try:
        if encoder:
            bert = load_encoder(encoder, model["dropout"], seed, new_pooler=with_next)
        else:
            config = pretraining_config(model, len(vocabulary.pieces), vocabulary.pad_id)
            bert = Bert(config, model["dropout"], seed, with_pooler=with_next, name="bert")
            look_at_neighbours(bert, model.get("neighbour_heads"))
        pretrainer = Pretrainer(bert, vocabulary, with_next, name="pretrainer")
    finally:
        keras.config.set_dtype_policy(before)
    heads = read_huggingface(encoder, Hints()).pretraining if encoder else {}
    assign_slots(slots(pretrainer), heads)
    names = [slot.names[0] for slot in slots(pretrainer) if slot.names[0] in heads]
    return pretrainer, sorted({name.split(".")[1] for name in names})


def in_float32(pretrainer: Pretrainer) -> Pretrainer:
    """A copy that computes in float32 and drops nothing."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float32")
    try:
        bert = Bert(pretrainer.config, 0.0, seed=0, with_pooler=pretrainer.bert.pooler is not None, name="bert")
        copy = Pretrainer(bert, pretrainer.vocabulary, pretrainer.next_head is not None, name="pretrainer")
    finally:
        keras.config.set_dtype_policy(before)
    copy.set_weights(pretrainer.get_weights())
    return copy


def checkpoint_of(pretrainer: Pretrainer) -> Checkpoint:
    """Encoder, heads and vocabulary; its `write` writes a folder that `BertForPreTraining` reads, or without the head
    for next sentences `BertForMaskedLM`, and `export_tfhub` SavedModels of the encoder."""
    return Checkpoint("pretrained", pretrainer.config, encoder_tensors(pretrainer.bert), pretrainer.vocabulary,
                      pretraining=slot_tensors(slots(pretrainer)))


def slots(pretrainer: Pretrainer) -> Iterator[Slot]:
    """The weights of the heads; those of the encoder are `weights.slots`."""
    name = "cls.predictions"
    yield Slot((f"{name}.transform.dense.weight",), pretrainer.transform.kernel, transposed=True)
    yield Slot((f"{name}.transform.dense.bias",), pretrainer.transform.bias, transposed=False)
    yield Slot((f"{name}.transform.LayerNorm.weight",), pretrainer.norm.gamma, transposed=False)
    yield Slot((f"{name}.transform.LayerNorm.bias",), pretrainer.norm.beta, transposed=False)
    yield Slot((f"{name}.bias",), pretrainer.projection.bias, transposed=False)
    if pretrainer.next_head is not None:
        yield Slot(("cls.seq_relationship.weight",), pretrainer.next_head.kernel, transposed=True)
        yield Slot(("cls.seq_relationship.bias",), pretrainer.next_head.bias, transposed=False)
