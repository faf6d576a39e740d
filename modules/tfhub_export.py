"""An encoder as TF Hub's two SavedModels: one that makes ids of texts, and one that encodes them and can be trained.

They follow "Common SavedModel APIs for Text Tasks" of TensorFlow Hub's documentation, in the part for Transformer
encoders. The variables have the names and shapes of the BERTs published there, so that what reads those reads these.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from modules.bert import INPUTS, Bert, Pooling, pool
from modules.checkpoints import Checkpoint
from modules.manifest import DEFAULT_SIGNATURE, DESCRIPTION
from modules.serving import save
from modules.tokenization import Tokenizer, Vocabulary
from modules.transformer import plain_operations
from modules.weights import VOCABULARY, Slot, slots, write_description

ENCODER, PREPROCESSING = "encoder", "preprocessing"

# HuggingFace's names → TF Hub's; {} is the number of a block.
LAYERS = {
    "embeddings.word_embeddings": "word_embeddings",
    "embeddings.position_embeddings": "position_embedding",
    "embeddings.token_type_embeddings": "type_embeddings",
    "embeddings.LayerNorm": "embeddings/layer_norm",
    "encoder.layer.{}.attention.self.query": "transformer/layer_{}/self_attention/query",
    "encoder.layer.{}.attention.self.key": "transformer/layer_{}/self_attention/key",
    "encoder.layer.{}.attention.self.value": "transformer/layer_{}/self_attention/value",
    "encoder.layer.{}.attention.output.dense": "transformer/layer_{}/self_attention/attention_output",
    "encoder.layer.{}.attention.output.LayerNorm": "transformer/layer_{}/self_attention_layer_norm",
    "encoder.layer.{}.intermediate.dense": "transformer/layer_{}/intermediate",
    "encoder.layer.{}.output.dense": "transformer/layer_{}/output",
    "encoder.layer.{}.output.LayerNorm": "transformer/layer_{}/output_layer_norm",
    "pooler.dense": "pooler_transform",
}


def export_tfhub(checkpoint: Checkpoint, folder: str | Path, max_length: int, truncate: str = "end",
                 dropout: float = 0.1) -> None:
    """Writes `encoder/` and `preprocessing/`.

    `pooled_output`, and `default`, which is the same, is what the model's head saw: BERT's pooler, or the mean of
    `sequence_output` over the tokens. Without a head it is the pooler where there is one. The attribute `pooling` of
    the encoder says which.

    Args:
        checkpoint: the encoder; a classifier's head stays behind.
        folder: an empty folder.
        max_length: tokens that the preprocessing pads and cuts to unless told otherwise.
        truncate: what a longer single text loses; see `Tokenizer.encode`.
        dropout: rate in [0, 1) of the encoder where it is called with training=True.
    """
    for name, root in ((ENCODER, encoder_module(checkpoint, dropout)),
                       (PREPROCESSING, preprocessing_module(checkpoint.vocabulary, max_length, truncate))):
        target = f"{folder}/{name}"
        write_description(f"{target}/{DESCRIPTION}", checkpoint.config, checkpoint.vocabulary)
        root.vocab_file = tf.saved_model.Asset(f"{target}/{DESCRIPTION}/{VOCABULARY}")
        root.do_lower_case = tf.Variable(checkpoint.vocabulary.lower_case, trainable=False, name="do_lower_case")
        save(root, target, {DEFAULT_SIGNATURE: root.signature})


# The encoder.


def encoder_module(checkpoint: Checkpoint, dropout: float) -> tf.train.Checkpoint:
    """What is saved as the encoder.

    Args:
        checkpoint: weights and sizes.
        dropout: rate in [0, 1) in training.

    Returns:
        An object with `__call__`, `variables`, `trainable_variables`, `regularization_losses` and `signature`.
    """
    pooling: Pooling = checkpoint.pooling or ("cls" if "pooler.dense.weight" in checkpoint.tensors else "mean")
    bert = Bert(checkpoint.config, dropout, with_pooler="pooler.dense.weight" in checkpoint.tensors, dtype="float32")
    bert.fine_tune("all", pooling)
    hub = {name: variable for slot in slots(bert) for name, variable in _hub_variables(bert, slot, checkpoint)}
    # The pooler is kept in any case, and trained where it is used.
    trained = [variable for name, variable in hub.items() if pooling == "cls" or not name.startswith("pooler.")]

    def call(inputs: dict[str, tf.Tensor], training: bool = False) -> dict[str, Any]:
        inputs = {name: tf.cast(inputs[name], tf.int32) for name in INPUTS}
        state = [(slot.variable, _joined(slot, hub)) for slot in slots(bert)]
        # A new seed a call in place of the one that Keras counts up: nothing in the SavedModel changes by being asked.
        seed = bert.seeds.state
        state.append((seed, tf.random.uniform(seed.shape, maxval=2**31 - 1, dtype=tf.int32)))
        with keras.StatelessScope(state_mapping=state), plain_operations():
            outputs = bert(inputs, training=training)
            pooled = pool(outputs, inputs["input_mask"], pooling)  # [batch, hidden]
        return {**outputs, "pooled_output": pooled, "default": pooled}

    def serve(input_word_ids: tf.Tensor, input_mask: tf.Tensor, input_type_ids: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = root.__call__(dict(zip(INPUTS, (input_word_ids, input_mask, input_type_ids), strict=True)))
        return {name: outputs[name] for name in ("pooled_output", "sequence_output", "default")}

    specs = {name: tf.TensorSpec([None, None], tf.int32, name) for name in INPUTS}
    root = tf.train.Checkpoint()
    root.__call__ = tf.function(call, autograph=False)
    for training in (False, True):
        root.__call__.get_concrete_function(specs, training=training)
    root.signature = tf.function(serve, autograph=False).get_concrete_function(*specs.values())
    root.variables, root.trainable_variables, root.regularization_losses = list(hub.values()), trained, []
    root.pooling = tf.Variable(pooling, trainable=False, name="pooling")
    return root


def _hub_variables(bert: Bert, slot: Slot, checkpoint: Checkpoint) -> Iterator[tuple[str, tf.Variable]]:
    """HuggingFace's name and the variable, by TF Hub's name and in its shape, of each tensor in a slot."""
    heads, hidden = bert.config.num_attention_heads, bert.config.hidden_size
    for name in slot.names:
        tensor = checkpoint.tensors[name]
        value = np.ascontiguousarray(tensor.T if slot.transposed else tensor)
        layer, kind = name.rsplit(".", 1)
        if ".attention.self." in name:  # kernel [hidden, heads, head_width], bias [heads, head_width]
            value = value.reshape(*value.shape[:-1], heads, hidden // heads)
        elif ".attention.output.dense.weight" in name:  # [heads, head_width, hidden]
            value = value.reshape(heads, hidden // heads, hidden)
        yield name, tf.Variable(value, name=f"{_hub_layer(layer)}/{_hub_kind(layer, kind)}")


def _hub_layer(layer: str) -> str:
    parts = layer.split(".")
    number = parts[2] if parts[:2] == ["encoder", "layer"] else ""
    pattern = ".".join([*parts[:2], "{}", *parts[3:]]) if number else layer
    return LAYERS[pattern].format(number)


def _hub_kind(layer: str, kind: str) -> str:
    if layer.endswith("LayerNorm"):
        return {"weight": "gamma", "bias": "beta"}[kind]
    return "embeddings" if layer.endswith("embeddings") else {"weight": "kernel", "bias": "bias"}[kind]


def _joined(slot: Slot, hub: dict[str, tf.Variable]) -> tf.Tensor:
    """The value of one of our variables, of the variables that it is made of."""
    shape = slot.variable.shape
    parts = [tf.convert_to_tensor(hub[name]) for name in slot.names]
    if len(parts) == 1 and parts[0].shape == shape:
        return parts[0]  # no operation in between, so that a table's gradient stays one of the rows looked up
    parts = [tf.reshape(part, [*shape[:-1], shape[-1] // len(parts)]) for part in parts]
    return tf.concat(parts, axis=-1)  # our variable's shape


# Preprocessing.


def preprocessing_module(vocabulary: Vocabulary, max_length: int, truncate: str) -> tf.train.Checkpoint:
    """What is saved as the preprocessing.

    Args:
        vocabulary: wordpieces and case.
        max_length: tokens to pad and cut to unless told otherwise.
        truncate: what a longer single text loses; pairs are cut longest first.

    Returns:
        An object with `__call__` (texts [batch] → the three inputs [batch, max_length]), `tokenize` (texts → ids
        [batch, (pieces)] int32), `tokenize.get_special_tokens_dict`, `bert_pack_inputs` (one or two ragged tensors of
        ids int32, `seq_length` → the three inputs [batch, seq_length]) and `signature`.
    """
    tokenizer = Tokenizer(vocabulary)

    def tokenize(sentences: tf.Tensor) -> tf.RaggedTensor:
        return tf.cast(tokenizer.tokenize(sentences), tf.int32)  # [batch, (pieces)]

    def pack(segments: Sequence[tf.RaggedTensor], seq_length: int | tf.Tensor = max_length) -> dict[str, tf.Tensor]:
        # Ids may be grouped by word, [batch, (words), (pieces)].
        parts = [tf.cast(one if one.ragged_rank == 1 else one.merge_dims(1, 2), tf.int64) for one in segments]
        packed = tokenizer.pack(parts, tf.cast(seq_length, tf.int64), truncate)  # [batch, (tokens)]
        shape = tf.stack([-1, tf.cast(seq_length, tf.int64)])
        ids = packed.to_tensor(tf.constant(vocabulary.pad_id, tf.int64), shape=shape)  # [batch, seq_length]
        return dict(zip(INPUTS, (tf.cast(ids, tf.int32), vocabulary.input_mask(ids), vocabulary.segment_ids(ids)),
                        strict=True))

    def call(sentences: tf.Tensor) -> dict[str, tf.Tensor]:
        packed = pack([tokenize(sentences)])
        return {name: tf.ensure_shape(tensor, [None, max_length]) for name, tensor in packed.items()}

    sentences = tf.TensorSpec([None], tf.string, "sentences")
    root = tf.train.Checkpoint(
        tokenize=_callable(tokenize, [sentences]), bert_pack_inputs=_callable(pack, *(
            ([tf.RaggedTensorSpec([None] * (rank + 1), tf.int32)] * count, tf.TensorSpec([], tf.int32, "seq_length"))
            for rank in (1, 2) for count in (1, 2))))
    root.tokenize.get_special_tokens_dict = _callable(lambda: {
        name: tf.constant(value) for name, value in {
            "vocab_size": len(vocabulary.pieces), "start_of_sequence_id": vocabulary.cls_id,
            "end_of_segment_id": vocabulary.sep_id, "padding_id": vocabulary.pad_id,
            "mask_id": vocabulary.mask_id}.items()}, [])
    root.__call__ = tf.function(call, autograph=False)
    root.signature = root.__call__.get_concrete_function(sentences)
    return root


def _callable(function: Any, *signatures: Sequence[Any]) -> tf.train.Checkpoint:
    """An object that a SavedModel keeps and that is called as `function`, traced for each signature."""
    made = tf.train.Checkpoint()
    made.__call__ = tf.function(function, autograph=False)
    for signature in signatures:
        made.__call__.get_concrete_function(*signature)
    return made
