"""Foreign layouts of BERT's weights, each read into one record that an encoder's folder is written from."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from modules.bert import BertConfig
from modules.errors import TextrailError
from modules.tokenization import Vocabulary, split_vocabulary
from modules.weights import CONFIG, TOKENIZER, VOCABULARY, check_tensors, expected_shapes, read_tensors, write_encoder


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
        names: HuggingFace's name → the layout's own, where they differ.
    """

    layout: str
    config: BertConfig
    tensors: dict[str, np.ndarray]
    vocabulary: Vocabulary
    head: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    labels: tuple[str, ...] = ()
    names: Mapping[str, str] = dataclasses.field(default_factory=dict)

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
        check_tensors(where, self.tensors, expected_shapes(self.config, has_pooler), self.names)

    def write(self, folder: str | Path) -> None:
        """Writes it in HuggingFace's layout; files of the same names are replaced."""
        write_encoder(folder, self.config, self.tensors | self.head, self.vocabulary, self.labels)


def read_huggingface(folder: Path, hints: Hints) -> Checkpoint:
    """Reads `config.json`, `vocab.txt`, `tokenizer_config.json` and safetensors, in one file or in shards.

    Args:
        folder: where they lie.
        hints: only the case counts; the other files are there.

    Returns:
        The encoder, with the head of a `BertForSequenceClassification`.

    Raises:
        TextrailError: a file is missing or wrong.
    """
    values = _json(folder / CONFIG)
    tensors = read_tensors(folder)
    head = {name: tensors.pop(name) for name in list(tensors) if name.startswith("classifier.")}
    labels = values.get("id2label", {}) if head else {}
    lower_case = hints.lower_case
    if lower_case is None:   # HuggingFace's default for BERT is to lower-case.
        lower_case = _json(folder / TOKENIZER).get("do_lower_case", True) if (folder / TOKENIZER).is_file() else True
    return Checkpoint("HuggingFace", BertConfig.from_values(values, folder / CONFIG), tensors,
                      Vocabulary(_pieces(folder / VOCABULARY), lower_case), head,
                      tuple(labels[key] for key in sorted(labels, key=int)))


# Layout, as `components.encoder_sources` detects it → its reader.
READERS: dict[str, Callable[[Path, Hints], Checkpoint]] = {
    "huggingface": read_huggingface,
}


def _json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TextrailError(f"JSON in {path}", f"something else ({error})", "Fetch the encoder again.") from error


def _pieces(path: Path) -> tuple[str, ...]:
    try:
        return tuple(split_vocabulary(path.read_bytes().decode("utf-8")))
    except (OSError, ValueError) as error:
        raise TextrailError(f"a wordpiece a line in {path}", f"something else ({error})",
                            "Fetch the encoder again.") from error
