"""Foreign layouts of BERT's weights, each read into one record that an encoder's folder is written from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from modules.bert import BertConfig, Pooling
from modules.errors import TextrailError
from modules.json_files import read_object
from modules.tokenization import Vocabulary, split_vocabulary
from modules.weights import (
    CONFIG,
    HEADS,
    PRETRAINING_HEADS,
    TOKENIZER,
    VOCABULARY,
    check_tensors,
    expected_shapes,
    head_shapes,
    read_tensors,
    write_encoder,
)

FAST_TOKENIZER = "tokenizer.json"
# HuggingFace's classes that split texts as BERT does; the last two run whatever tokenizer.json says.
TOKENIZERS = ("BertTokenizer", "BertTokenizerFast", "DistilBertTokenizer", "DistilBertTokenizerFast",
              "PreTrainedTokenizerFast", "TokenizersBackend")


@dataclasses.dataclass(frozen=True)
class Hints:
    """What a user says about a source that does not say it itself.

    Attributes:
        lower_case: whether its texts are lower-cased; none follows the source.
        config: its configuration, a config.json or bert_config.json.
        preprocessing: where its vocabulary is: a `vocab.txt`, a folder with one, or a preprocessing SavedModel.
    """

    lower_case: bool | None = None
    config: Path | None = None
    preprocessing: Path | None = None


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A BERT, whatever layout it came in.

    Attributes:
        layout: its name, for people.
        config: sizes, activation and epsilon.
        tensors: weights under HuggingFace's names without prefix, float32; what no table knows under its own name.
        vocabulary: wordpieces and case.
        head: of a fine-tuned classifier, `classifier.weight` [classes, hidden] and `classifier.bias` [classes].
        labels: its classes in the order of the head's rows.
        pooling: what the head sees.
        names: HuggingFace's name → the layout's own, where they differ.
        pretraining: heads that it was pretrained with, under HuggingFace's names `cls.…`, as `head_shapes` has them.
    """

    layout: str
    config: BertConfig
    tensors: dict[str, np.ndarray]
    vocabulary: Vocabulary
    head: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    labels: tuple[str, ...] = ()
    pooling: Pooling | None = None
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)
    pretraining: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    @property
    def all_tensors(self) -> dict[str, np.ndarray]:
        """The weights of encoder and heads."""
        return {**self.tensors, **self.head, **self.pretraining}

    @property
    def architecture(self) -> str:
        """HuggingFace's class of what `write` writes; of a classifier see `pooling`."""
        if not self.pretraining:
            return "BertModel"
        return "BertForPreTraining" if "cls.seq_relationship.weight" in self.pretraining else "BertForMaskedLM"

    def check(self, where: str | Path) -> None:
        """Compares weights and vocabulary with what the configuration calls for.

        Args:
            where: the source, for errors.

        Raises:
            TextrailError: a table of the tensors that are missing, extra or misshapen; or a vocabulary of another
                size.
        """
        if (pieces := len(self.vocabulary.pieces)) != self.config.vocab_size:
            raise TextrailError(f"{self.config.vocab_size} wordpieces in the vocabulary of {where}, its vocab_size",
                                f"{pieces}", "Take vocabulary and weights of the same encoder.")
        has_pooler = any(name.startswith("pooler.") for name in self.tensors)
        expected = expected_shapes(self.config, has_pooler)
        if self.head:
            rows = len(self.labels)
            expected = expected | {"classifier.weight": (rows, self.config.hidden_size), "classifier.bias": (rows,)}
        check_tensors(where, self.tensors | self.head, expected, self.names)

    def write(self, folder: str | Path, max_length: int | None = None) -> None:
        """Writes it in HuggingFace's layout, a classifier whole.

        Args:
            folder: created where missing; its files of the same names are replaced.
            max_length: most tokens of a text; none leaves that to the reader.
        """
        tensors = self.tensors
        if self.pooling or self.pretraining:   # HuggingFace's models with a head have their encoder under a name.
            tensors = {f"bert.{name}": tensor for name, tensor in tensors.items()}
        if self.pooling:
            tensors |= {name.replace(HEADS["cls"], HEADS[self.pooling]): tensor for name, tensor in self.head.items()}
        elif self.pretraining:
            tensors |= self.pretraining
        write_encoder(folder, self.config, tensors, self.vocabulary, self.labels, self.pooling, max_length,
                      self.architecture)


def read_huggingface(folder: str | Path, hints: Hints) -> Checkpoint:
    """Reads `config.json`, `tokenizer_config.json`, a vocabulary and safetensors, in one file or in shards.

    Args:
        folder: where they lie; may be a URI. The vocabulary is `vocab.txt` or, where newer versions of transformers
            wrote that alone, in `tokenizer.json`.
        hints: only the case counts; the other files are there.

    Returns:
        The encoder, with its head where it is a classifier.

    Raises:
        TextrailError: a file is missing or wrong.
    """
    values = read_object(f"{folder}/{CONFIG}")
    config, tensors = BertConfig.from_values(values, f"{folder}/{CONFIG}"), read_tensors(folder, with_heads=True)
    pretraining = _pretraining_heads(config, tensors)
    heads = {pooling: _taken(tensors, prefix) for pooling, prefix in HEADS.items()}
    pooling = next((pooling for pooling, head in heads.items() if _is_classifier(values, head)), None)
    head = heads[pooling] if pooling else {}
    return Checkpoint("HuggingFace", config, tensors, read_vocabulary(folder, hints.lower_case), head,
                      _labels(values, head), pooling, pretraining={} if pooling else pretraining)


def read_vocabulary(folder: str | Path, lower_case: bool | None) -> Vocabulary:
    """Reads a vocabulary in HuggingFace's layout.

    Args:
        folder: where `vocab.txt` or `tokenizer.json` lies.
        lower_case: the case; none follows the files, and what HuggingFace does where they say nothing: lower-case.

    Returns:
        The vocabulary.

    Raises:
        TextrailError: a file is missing or wrong, or see `case_of`.
    """
    lower_case = case_of(folder, lower_case)
    alone = not tf.io.gfile.exists(f"{folder}/{VOCABULARY}") and tf.io.gfile.exists(f"{folder}/{FAST_TOKENIZER}")
    pieces = _fast_pieces(f"{folder}/{FAST_TOKENIZER}") if alone else read_pieces(f"{folder}/{VOCABULARY}")
    return Vocabulary(pieces, True if lower_case is None else lower_case)


def _fast_pieces(path: str) -> tuple[str, ...]:
    """The wordpieces in a `tokenizer.json`."""
    tokenizer = read_object(path)
    model, normalizer = _part(tokenizer, "model"), _part(tokenizer, "normalizer")
    ids = _part(model, "vocab") if model.get("type") == "WordPiece" else {}
    in_order = all(isinstance(i, int) for i in ids.values()) and sorted(ids.values()) == list(range(len(ids)))
    if normalizer.get("type") != "BertNormalizer" or not ids or not in_order:
        raise TextrailError(f"BERT's tokenizer in {path}: wordpieces with the ids 0, 1, … and a BertNormalizer",
                            f"{model.get('type')} and {normalizer.get('type')}", f"Take the encoder's {VOCABULARY}.")
    return tuple(sorted(ids, key=ids.__getitem__))


def case_of(folder: str | Path, lower_case: bool | None) -> bool | None:
    """Whether a tokenizer lower-cases texts, and a look at whatever else its files say that decides on ids.

    Args:
        folder: where `tokenizer_config.json` and `tokenizer.json` may lie; what the first says comes first.
        lower_case: the case that is given; none follows the files.

    Returns:
        The case, none where nobody says it.

    Raises:
        TextrailError: the tokenizer splits texts otherwise than BERT's.
    """
    config, fast = (read_object(f"{folder}/{name}") if tf.io.gfile.exists(f"{folder}/{name}") else {}
                    for name in (TOKENIZER, FAST_TOKENIZER))
    normalizer = _part(fast, "normalizer")
    said = {ours: next((value for value in (config.get(ours), normalizer.get(fasts)) if value is not None), None)
            for ours, fasts in (("do_lower_case", "lowercase"), ("strip_accents", "strip_accents"),
                                ("tokenize_chinese_chars", "handle_chinese_chars"), ("do_basic_tokenize", ""),
                                ("tokenizer_class", ""))}
    case = said["do_lower_case"] if lower_case is None else lower_case
    known = {"do_lower_case": (True, False), "strip_accents": (case is None or case,),
             "tokenize_chinese_chars": (True,), "do_basic_tokenize": (True,), "tokenizer_class": TOKENIZERS}
    for key, values in known.items():
        if said[key] is not None and said[key] not in values:
            raise TextrailError(f"{key} in {folder}/{TOKENIZER} or {FAST_TOKENIZER} to be "
                                f"{' or '.join(map(str, values))}, as of BERT's tokenizer", repr(said[key]),
                                "Its ids would be others here: take an encoder with BERT's tokenizer.")
    return None if case is None else bool(case)


def _part(values: Mapping[str, Any], key: str) -> dict[str, Any]:
    """An object inside another one, empty where there is none."""
    value = values.get(key)
    return value if isinstance(value, dict) else {}


def _taken(tensors: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Takes a head out of the tensors of an encoder; its names are then `classifier.weight` and `classifier.bias`."""
    return {HEADS["cls"] + name.removeprefix(prefix): tensors.pop(name)
            for name in list(tensors) if name.startswith(prefix)}


def _pretraining_heads(config: BertConfig, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Takes the heads of pretraining out of the tensors of an encoder.

    The one over the vocabulary is kept if it is whole and has the matrix of the word embeddings, and beside it the one
    for next sentences; nobody needs others.
    """
    found = {name: tensors.pop(name) for name in list(tensors) if name.startswith(PRETRAINING_HEADS)}
    kept: dict[str, np.ndarray] = {}
    for head in ("cls.predictions.", "cls.seq_relationship."):
        shapes = {name: shape for name, shape in head_shapes(config).items() if name.startswith(head)}
        if all(name in found and found[name].shape == shape and np.isfinite(found[name]).all()
               for name, shape in shapes.items()):
            kept |= {name: found[name] for name in shapes}
    matrix, words = found.get("cls.predictions.decoder.weight"), tensors.get("embeddings.word_embeddings.weight")
    is_tied = matrix is None or (words is not None and np.array_equal(matrix, words))
    return kept if is_tied and "cls.predictions.bias" in kept else {}


def _is_classifier(values: Mapping[str, Any], head: Mapping[str, np.ndarray]) -> bool:
    """Whether a head chooses one of several classes; HuggingFace's other tasks have tensors of the same names."""
    kinds = values.get("architectures") or ["BertForSequenceClassification"]
    one_of_many = values.get("problem_type") in (None, "single_label_classification")
    return len(head.get("classifier.weight", ())) > 1 and one_of_many and any(
        kind.endswith("ForSequenceClassification") for kind in kinds)


def _labels(values: Mapping[str, Any], head: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """The classes' names; HuggingFace leaves out those that it made up."""
    names = _part(values, "id2label")
    return tuple(str(names.get(str(row), f"LABEL_{row}")) for row in range(len(head.get("classifier.weight", ()))))


def read_pieces(path: str | Path) -> tuple[str, ...]:
    """The wordpieces of a `vocab.txt`.

    Raises:
        TextrailError: there is no such file, or it is not UTF-8.
    """
    try:
        with tf.io.gfile.GFile(str(path), "rb") as file:
            return tuple(split_vocabulary(file.read().decode("utf-8")))
    except (tf.errors.OpError, ValueError) as error:
        raise TextrailError(f"a wordpiece a line in {path}", f"something else ({error})",
                            "Fetch the encoder again.") from error
