"""A model that was exported, read back: its SavedModel holds all that its encoder and heads are made of."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from modules.bert import Bert, BertConfig
from modules.checkpoints import Checkpoint, Hints, read_vocabulary
from modules.errors import TextrailError
from modules.json_files import read_object
from modules.manifest import DESCRIPTION, MANIFEST
from modules.pretrainer import Pretrainer, checkpoint_of
from modules.tokenization import Vocabulary
from modules.transformer import Linear
from modules.weights import HEADS, encoder_tensors, load_config

VARIABLES = "variables/variables"
CHECKPOINT = tf.train.Checkpoint


def read_export(folder: str | Path, hints: Hints = Hints()) -> Checkpoint:  # noqa: B008  # frozen
    """Reads encoder and heads of an exported classifier or pretrained encoder out of the variables of its SavedModel.

    Args:
        folder: the SavedModel, a pushed version for example; may be a URI.
        hints: only the case counts; the rest is there.

    Returns:
        The encoder with its heads.

    Raises:
        TextrailError: the SavedModel is of another shape, does not describe its encoder, or its variables are damaged.
    """
    manifest, description = read_object(f"{folder}/{MANIFEST}"), f"{folder}/{DESCRIPTION}"
    if (shape := manifest.get("shape", "classification")) not in ("classification", "pretraining"):
        raise TextrailError("a classifier or a pretrained encoder", f"a model of shape {shape} in {folder}",
                            "There is no BERT in it; name another model.")
    if not tf.io.gfile.exists(f"{description}/config.json"):
        raise TextrailError(f"an exported model that describes its encoder in {description}", "none there",
                            "It was made by an older version, or its encoder is a SavedModel taken as it is; train it "
                            "again, with encoder.opaque=false.")
    if shape == "pretraining":
        return _read_pretrainer(folder, read_vocabulary(description, hints.lower_case), load_config(description),
                                bool(manifest.get("next_sentence")))
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


def _read_pretrainer(folder: str | Path, vocabulary: Vocabulary, config: BertConfig, with_next: bool) -> Checkpoint:
    """An encoder with the heads that it was pretrained with."""
    prefix = f"{folder}/{VARIABLES}"
    try:
        with_pooler = any("/pooler/" in name for name, _ in tf.train.list_variables(prefix))
        bert = Bert(config, with_pooler=with_pooler, dtype="float32")
        pretrainer = Pretrainer(bert, vocabulary, with_next, dtype="float32")
        heads = {"transform": pretrainer.transform, "norm": pretrainer.norm, "projection": pretrainer.projection}
        heads |= {"next_head": pretrainer.next_head} if with_next else {}
        root = CHECKPOINT(pretrainer=CHECKPOINT(bert=CHECKPOINT(**_parts(bert)), **heads))
        root.read(prefix).assert_existing_objects_matched().expect_partial()
    except (tf.errors.OpError, LookupError, ValueError, AssertionError) as error:
        raise TextrailError(f"the variables of a pretrained encoder in {prefix}.*", str(error).splitlines()[0],
                            "The model is damaged: take another version, or train it again.") from error
    return dataclasses.replace(checkpoint_of(pretrainer), layout="SavedModel of Textrail")


def _restore(bert: Bert, head: Linear, prefix: str) -> None:
    """Gives layers the values that the same attributes of a `ServedClassifier` had when it was saved."""
    root = CHECKPOINT(classifier=CHECKPOINT(bert=CHECKPOINT(**_parts(bert)), head=head))
    root.read(prefix).assert_existing_objects_matched().expect_partial()


def _parts(bert: Bert) -> dict[str, Any]:
    """What of an encoder has weights; Keras keeps lists from TensorFlow's eyes."""
    parts = {"embeddings": bert.embeddings, "blocks": list(bert.blocks)}
    return parts if bert.pooler is None else {**parts, "pooler": bert.pooler}
