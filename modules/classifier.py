"""Text classification: what runs inside Transform, and below it what runs inside Trainer."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from modules.tokenization import Tokenizer, Vocabulary

UNKNOWN_LABEL = "a label that is no class of the schema: "

# Transform: raw columns to token ids and label ids.


def preprocessing_fn(inputs: dict[str, Any], custom_config: dict[str, Any]) -> dict[str, Any]:
    """Raw columns to features, as ops of the transform graph.

    With the classes negative and positive, and a ten-word vocabulary in which good = 5 and film = 6:

        {"text": ["good film"], "label": ["positive"]} → {"token_ids": [[2, 5, 6, 3]], "label_id": [1]}

    Args:
        inputs: raw columns by name, each [batch, 1] string, dense or sparse.
        custom_config: `data` with the names of the columns `text`, `text_pair` (or none) and `label`;
            `max_length` in tokens; `encoder`, a folder with the vocabulary; `classes`, a text file with one class
            name a line, which becomes an asset of the graph.

    Returns:
        `token_ids` [batch, (tokens)] int64, unpadded, special tokens included; `label_id` [batch] int64. A label
        that is no class fails with `UNKNOWN_LABEL` and the label. An empty one is -1, because tf.Transform feeds it
        where a server feeds none; the gate lets no such row near here.
    """
    data = custom_config["data"]
    tokenizer = Tokenizer(Vocabulary.read(custom_config["encoder"]))
    pair = column(inputs[data["text_pair"]]) if data["text_pair"] else None
    return {
        "token_ids": tokenizer.encode(column(inputs[data["text"]]), pair, max_length=custom_config["max_length"]),
        "label_id": label_ids(column(inputs[data["label"]]), custom_config["classes"]),
    }


def column(values: tf.Tensor | tf.SparseTensor) -> tf.Tensor:
    """One string a row from a raw column, dense or sparse [batch, at most 1] → [batch]; a missing one is ""."""
    if isinstance(values, tf.SparseTensor):
        rows = values.dense_shape[0]
        values = tf.sparse.to_dense(tf.sparse.reset_shape(values, tf.stack([rows, 1])), default_value="")
    return tf.reshape(values, [-1])  # [batch]


def label_ids(labels: tf.Tensor, classes: str) -> tf.Tensor:
    """Class names to their line numbers in the file `classes`, "" to -1: [batch] string → [batch] int64."""
    with tf.init_scope():  # Once a graph, and not once a batch.
        lines = tf.lookup.TextFileInitializer(classes, tf.string, tf.lookup.TextFileIndex.WHOLE_LINE,
                                              tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER)
        table = tf.lookup.StaticHashTable(lines, default_value=-1)
    ids = table.lookup(labels)
    is_good = tf.logical_or(ids >= 0, tf.equal(labels, ""))
    # An op that fails on what is no number, and not an assertion: no side effect to keep in a server's graph.
    numbers = tf.where(is_good, tf.strings.as_string(ids), tf.strings.join([UNKNOWN_LABEL, labels]))
    return tf.strings.to_number(numbers, tf.int64)
