"""A classifier that was exported, read back: its SavedModel holds all that its encoder and head are made of."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from modules.bert import Bert
from modules.checkpoints import Checkpoint, Hints, read_vocabulary
from modules.errors import TextrailError
from modules.json_files import read_object
from modules.manifest import DESCRIPTION, MANIFEST
from modules.transformer import Linear
from modules.weights import HEADS, encoder_tensors, load_config

VARIABLES = "variables/variables"
CHECKPOINT = tf.train.Checkpoint


def read_export(folder: str | Path, hints: Hints = Hints()) -> Checkpoint:  # noqa: B008  # frozen
    """Reads encoder and head of an exported classifier out of the variables of its SavedModel.

    Args:
        folder: the SavedModel, a pushed version for example; may be a URI.
        hints: only the case counts; the rest is there.

    Returns:
        The classifier.

    Raises:
        TextrailError: the SavedModel does not describe its encoder, or its variables are damaged.
    """
    description = f"{folder}/{DESCRIPTION}"
    if not tf.io.gfile.exists(f"{description}/config.json"):
        raise TextrailError(f"an exported model that describes its encoder in {description}", "none there",
                            "It was made by an older version, or its encoder is a SavedModel taken as it is; train it "
                            "again, with encoder.opaque=false.")
    manifest = read_object(f"{folder}/{MANIFEST}")
    if not manifest.get("classes") or manifest.get("pooling") not in HEADS:
        raise TextrailError(f"classes and pooling in {folder}/{MANIFEST}",
                            f"{manifest.get('classes')} and {manifest.get('pooling')}",
                            "The model is damaged: take another version, or train it again.")
    vocabulary, config = read_vocabulary(description, hints.lower_case), load_config(description)
    classes, prefix = manifest["classes"], f"{folder}/{VARIABLES}"
    try:
        with_pooler = any("/pooler/" in name for name, _ in tf.train.list_variables(prefix))
        bert = Bert(config, with_pooler=with_pooler, dtype="float32")
        head = Linear(config.hidden_size, len(classes), keras.initializers.Zeros(), dtype="float32")
        _restore(bert, head, prefix)
    except (tf.errors.OpError, LookupError, ValueError, AssertionError) as error:
        raise TextrailError(f"the variables of a classifier in {prefix}.*", str(error).splitlines()[0],
                            "The model is damaged: take another version, or train it again.") from error
    tensors = {"classifier.weight": np.asarray(head.kernel).T, "classifier.bias": np.asarray(head.bias)}
    return Checkpoint("SavedModel of Textrail", config, encoder_tensors(bert), vocabulary, tensors, tuple(classes),
                      manifest["pooling"])


def _restore(bert: Bert, head: Linear, prefix: str) -> None:
    """Gives layers the values that the same attributes of a `ServedClassifier` had when it was saved."""
    parts = {"embeddings": bert.embeddings, "blocks": list(bert.blocks)}  # Keras keeps lists from TensorFlow's eyes
    if bert.pooler is not None:
        parts["pooler"] = bert.pooler
    root = CHECKPOINT(classifier=CHECKPOINT(bert=CHECKPOINT(**parts), head=head))
    root.read(prefix).assert_existing_objects_matched().expect_partial()
