"""Where an encoder comes from: `minilm`, a folder, `hf://owner/name[@revision]`, or a TF Hub or Kaggle handle.

Every source becomes a local folder, and every folder one of the layouts that `modules.layouts` reads. What a
run does whose steps are all cached needs no TensorFlow, so that it starts fast.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from components import files
from modules.errors import TextrailError

if TYPE_CHECKING:
    from modules.checkpoints import Checkpoint

MINILM = "minilm"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


class Layout(NamedTuple):
    """A way in which encoders lie in folders.

    Attributes:
        name: key of `modules.layouts.READERS`.
        signs: patterns of files, one of which is there where the layout is.
        weights: patterns of the large files.
        others: patterns of the small files that are read beside them.
    """

    name: str
    signs: tuple[str, ...]
    weights: tuple[str, ...]
    others: tuple[str, ...]


# The first whose sign is there counts.
LAYOUTS = (
    Layout("huggingface", ("model.safetensors", "model.safetensors.index.json"), ("model*.safetensors",),
           ("config.json", "vocab.txt", "tokenizer_config.json", "model.safetensors.index.json")),
    Layout("saved_model", ("saved_model.pb",), ("variables/variables.data-?????-of-?????",),
           ("saved_model.pb", "variables/variables.index", "assets/*", "assets.extra/encoder/*", "bert_config.json",
            "config.json", "vocab.txt")),
    Layout("checkpoint", ("*.index",), ("*.data-?????-of-?????",),
           ("*.index", "checkpoint", "bert_config.json", "config.json", "params.yaml", "vocab.txt",
            "tokenizer_config.json")),
)


def import_encoder(source: str, target: str, sha256: str = "", lower_case: bool | None = None, config: str = "",
                   preprocessing: str = "") -> None:
    """Checks an encoder and writes it to a folder.

    Args:
        source: as `encoder.source` of the settings.
        target: folder or URI to write `config.json`, `vocab.txt`, `tokenizer_config.json` (`do_lower_case`) and
            `model.safetensors` to.
        sha256: see `read_encoder`.
        lower_case: see `read_encoder`.
        config: see `read_encoder`.
        preprocessing: see `read_encoder`.

    Raises:
        TextrailError: see `read_encoder`.
    """
    read_encoder(source, sha256, lower_case, config, preprocessing).write(target)


def read_encoder(source: str, sha256: str = "", lower_case: bool | None = None, config: str = "",
                 preprocessing: str = "") -> Checkpoint:
    """Reads an encoder of any known source and layout.

    Args:
        source: as `encoder.source` of the settings.
        sha256: expected of the weights.
        lower_case: overrides the encoder's own flag.
        config: a config.json or bert_config.json for weights without one.
        preprocessing: a source with the vocabulary, where it does not lie with the weights.

    Returns:
        The encoder.

    Raises:
        TextrailError: a file is missing, the weights have another hash, or they, the configuration and the vocabulary
            are not those of one BERT.
    """
    from modules.checkpoints import Hints
    from modules.layouts import READERS

    folder = local_folder(source)
    layout = layout_of(folder)
    expected = sha256 or (MINILM_SHA256 if source == MINILM else "")
    if expected and (found := weights_sha256(folder, layout)) != expected.lower():
        raise TextrailError(f"{' and '.join(map(str, weights_files(folder, layout)))} with sha256 {expected}", found,
                            "The file is damaged or another one; fetch it again, or correct encoder.sha256.")
    hints = Hints(lower_case, Path(config) if config else None, local_folder(preprocessing) if preprocessing else None)
    checkpoint = READERS[layout.name](folder, hints)
    checkpoint.check(folder)
    return checkpoint


def layout_of(folder: Path) -> Layout:
    """The layout of a folder.

    Raises:
        TextrailError: none that is known; where only a pickle is there, with the reason why that is not read.
    """
    for layout in LAYOUTS:
        if any(_matching(folder, layout.signs)):
            return layout
    found = ", ".join(sorted(os.listdir(folder))) or "nothing"
    pickled = (folder / "pytorch_model.bin").is_file()
    raise TextrailError(
        f"weights of a BERT in {folder}: " + ", ".join(layout.signs[0] for layout in LAYOUTS), found,
        "Loading pytorch_model.bin would run code that is inside it; where you trust it, save the model as safetensors "
        "with save_pretrained(folder, safe_serialization=True) of transformers." if pickled else
        "Give the folder that has them.")


def weights_files(folder: Path, layout: Layout) -> list[Path]:
    """The files with the weights, sorted by name."""
    return sorted(_matching(folder, layout.weights))


def weights_sha256(folder: Path, layout: Layout) -> str:
    """Hex sha256 of the weights; several files count as one, in the order of their names."""
    digest = hashlib.sha256()
    for path in weights_files(folder, layout):
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def local_folder(source: str) -> Path:
    """A folder of this machine with the encoder that `encoder.source` names.

    Raises:
        TextrailError: there is none.
    """
    if source == MINILM:
        from modules.weights import packaged_minilm

        return packaged_minilm()
    folder = Path(source)
    if not folder.is_dir():
        raise TextrailError(f"encoder.source to be {MINILM!r} or a folder with an encoder", repr(source),
                            "Give the path of a folder.")
    return folder


def encoder_fingerprint(source: str) -> str:
    """Changes when the source does.

    Small files count by their content. The weights are too large to read for every run: they count by size and time,
    those of minilm by the one sha256 that is accepted, so that installing it again changes nothing.

    Raises:
        TextrailError: the source is no folder, or one without an encoder.
    """
    folder = local_folder(source)
    layout = layout_of(folder)
    facts = [layout.name]
    for path in sorted(_matching(folder, (*layout.weights, *layout.others))):
        file = files.File(str(path), path.stat().st_size, path.stat().st_mtime)
        if path not in weights_files(folder, layout):
            fact = files.content_hash(file)
        else:
            fact = MINILM_SHA256 if source == MINILM else f"{file.size} {file.modified}"
        facts.append(f"{path.relative_to(folder)} {fact}")
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _matching(folder: Path, patterns: tuple[str, ...]) -> Iterator[Path]:
    return (path for pattern in patterns for path in folder.glob(pattern) if path.is_file())
