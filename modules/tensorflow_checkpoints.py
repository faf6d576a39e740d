"""BERT as a TensorFlow checkpoint: the release of google-research/bert (TF1), and TF Model Garden's (TF2)."""

from __future__ import annotations

from pathlib import Path

import tensorflow as tf

from modules.checkpoints import Checkpoint, Hints
from modules.errors import TextrailError
from modules.saved_models import vocabulary_at
from modules.tensorflow_files import BERT_CONFIG, PARAMS, check_heads, read_config, read_variables


def read_checkpoint(folder: Path, hints: Hints) -> Checkpoint:
    """Reads a checkpoint with `bert_config.json` (or `params.yaml`) and `vocab.txt` beside it, of TF1 or TF2.

    Args:
        folder: where they lie; of several checkpoints the one that the file `checkpoint` calls the latest.
        hints: stand in for files that are missing.

    Returns:
        The encoder.

    Raises:
        TextrailError: a file is missing or wrong, or configuration and weights have different heads.
    """
    config = read_config(folder, hints)
    if config is None:
        raise TextrailError(f"{BERT_CONFIG} or {PARAMS} in {folder}", "neither", "Set encoder.config to the file.")
    variables = read_variables(_latest(folder))
    check_heads(config, variables, folder)
    vocabulary = vocabulary_at(hints.preprocessing or folder, hints.lower_case)
    layout = "TF2 checkpoint" if variables.has_graph else "TF1 checkpoint"
    return Checkpoint(layout, config, variables.tensors, vocabulary, names=variables.names)


def _latest(folder: Path) -> str:
    prefixes = sorted(str(path).removesuffix(".index") for path in folder.glob("*.index"))
    if len(prefixes) == 1:
        return prefixes[0]
    latest = tf.train.latest_checkpoint(str(folder))
    if latest is None:
        raise TextrailError(f"one checkpoint in {folder}, or a file `checkpoint` that names the latest",
                            ", ".join(Path(prefix).name for prefix in prefixes), "Leave one of them there.")
    return latest
