"""Whether an encoder reads as long texts as a run has."""

from __future__ import annotations

import json
import os

import tensorflow as tf

from modules.errors import TextrailError


def check_positions(encoder: str, max_length: int, key: str = "model.max_length") -> None:
    """Before anything is encoded: training would find out only after it.

    Args:
        encoder: its folder.
        max_length: most tokens of a text.
        key: of the settings, that says so.

    Raises:
        TextrailError: the encoder has fewer positions than a text may have tokens.
    """
    with tf.io.gfile.GFile(os.path.join(encoder, "config.json")) as file:
        positions = json.load(file)["max_position_embeddings"]  # none where a SavedModel does not say
    if positions is not None and max_length > positions:
        raise TextrailError(f"{key} of at most {positions}, as many positions as the encoder has",
                            str(max_length), f"Set {key} to {positions} or less.")
