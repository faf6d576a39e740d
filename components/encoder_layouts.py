"""How encoders lie in folders: which files tell a layout, and which of them are read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from modules.errors import TextrailError

PICKLE = "pytorch_model.bin"


class Layout(NamedTuple):
    """A way in which encoders lie in folders.

    Attributes:
        name: key of `modules.layouts.READERS`.
        whole: whether configuration and vocabulary are always there, so that nothing stands in for them.
        sign: pattern of a file that is there where the layout is.
        weights: patterns of the large files.
        others: patterns of the small files that are read beside them.
    """

    name: str
    whole: bool
    sign: str
    weights: tuple[str, ...]
    others: tuple[str, ...]

    @property
    def patterns(self) -> list[str]:
        """Of all files that are read."""
        return [*self.weights, *self.others]


# What describes the encoder of a SavedModel of this project; weights beside it are a copy.
DESCRIPTIONS = ("assets.extra/encoder/*.json", "assets.extra/encoder/vocab.txt")
# The first whose sign is there counts.
LAYOUTS = (
    Layout("huggingface", True, "model*.safetensors", ("model.safetensors", "model-?????-of-?????.safetensors"),
           ("config.json", "vocab.txt", "tokenizer.json", "tokenizer_config.json", "model.safetensors.index.json")),
    Layout("textrail", True, "assets.extra/textrail.json", ("variables/variables.data-?????-of-?????",),
           ("variables/variables.index", "assets.extra/textrail.json", *DESCRIPTIONS)),
    Layout("saved_model", False, "saved_model.pb", ("variables/variables.data-?????-of-?????",),
           ("saved_model.pb", "variables/variables.index", "assets/*", *DESCRIPTIONS, "bert_config.json", "config.json",
            "vocab.txt", "tokenizer.json", "tokenizer_config.json")),
    Layout("checkpoint", False, "*.index", ("*.data-?????-of-?????",),
           ("*.index", "checkpoint", "bert_config.json", "config.json", "params.yaml", "vocab.txt",
            "tokenizer.json", "tokenizer_config.json")),
)


def layout_among(names: Iterable[str], where: str | Path) -> Layout:
    """The layout that files are in.

    Args:
        names: of the files, relative to their folder.
        where: the folder, for the error.

    Returns:
        The layout.

    Raises:
        TextrailError: none that is known; where only a pickle is there, with the reason why that is not read.
    """
    names = sorted(names)
    for layout in LAYOUTS:
        depth = layout.sign.count("/")   # fnmatch's * does not stop at a slash
        if any(name.count("/") == depth and fnmatch(name, layout.sign) for name in names):
            return layout
    found = ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
    raise TextrailError(
        f"weights of a BERT in {where}: " + ", ".join(layout.sign for layout in LAYOUTS), found or "nothing",
        f"Loading {PICKLE} would run code that is inside it; where you trust it, save the model as safetensors with "
        "save_pretrained(folder, safe_serialization=True) of transformers." if PICKLE in names else
        "Give the folder that has them.")


def layout_of(folder: Path) -> Layout:
    """The layout of a folder.

    Raises:
        TextrailError: see `layout_among`.
    """
    signs = (path.relative_to(folder).as_posix() for path in matching(folder, (layout.sign for layout in LAYOUTS)))
    return layout_among({*os.listdir(folder), *signs}, folder)


def weights_files(folder: Path, layout: Layout) -> list[Path]:
    """The files with the weights, sorted by name."""
    return sorted(matching(folder, layout.weights))


def weights_sha256(folder: Path, layout: Layout) -> str:
    """Hex sha256 of the weights; several files count as one, in the order of their names."""
    digest = hashlib.sha256()
    for path in weights_files(folder, layout):
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def matching(folder: Path, patterns: Iterable[str]) -> Iterator[Path]:
    """The files of a folder that match a pattern."""
    return (path for pattern in patterns for path in folder.glob(pattern) if path.is_file())
