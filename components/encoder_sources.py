"""Where an encoder comes from: `minilm`, a folder, `hf://owner/name[@revision]`, or a TF Hub or Kaggle handle.

Every source becomes a local folder, and every folder one of the layouts that `modules.layouts` reads. What a
run does whose steps are all cached needs no TensorFlow, so that it starts fast.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components import encoder_downloads as downloads
from components import files
from components.encoder_layouts import Layout, layout_of, matching, weights_files, weights_sha256
from components.versions import served_version
from modules.errors import TextrailError

if TYPE_CHECKING:
    from modules.checkpoints import Checkpoint, Hints

MINILM = "minilm"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def import_encoder(source: str, target: str, sha256: str = "", lower_case: bool | None = None, config: str = "",
                   preprocessing: str = "", opaque: bool = False, max_length: int = 8) -> None:
    """Checks an encoder and writes it to a folder.

    Args:
        source: as `encoder.source` of the settings.
        target: folder or URI to write `config.json`, `vocab.txt`, `tokenizer_config.json` (`do_lower_case`) and
            `model.safetensors`, or `saved_model/`, to.
        sha256: see `read_encoder`.
        lower_case: see `read_encoder`.
        config: see `read_encoder`.
        preprocessing: see `read_encoder`.
        opaque: whether to take a SavedModel as it is, whatever its architecture, and not apart.
        max_length: longest input, in tokens, that an opaque one is asked for a trial.

    Raises:
        TextrailError: see `read_encoder` and `modules.opaque.write_opaque`.
    """
    if opaque:
        from modules.opaque import write_opaque
        from modules.saved_models import vocabulary_of

        folder, layout = _verified(source, sha256)
        if config:
            raise TextrailError("no encoder.config with encoder.opaque=true, which takes a SavedModel as it is", config,
                                "Leave one of them out.")
        if layout.name != "saved_model":
            raise TextrailError("encoder.source to be a SavedModel, for encoder.opaque=true",
                                f"{folder} in the layout {layout.name}", "Set encoder.opaque=false.")
        write_opaque(str(folder), target, vocabulary_of(folder, _hints(lower_case, "", preprocessing)), max_length)
        return
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
    from modules.layouts import READERS

    folder, layout = _verified(source, sha256)
    if layout.whole and (config or preprocessing):
        raise TextrailError(f"no encoder.config and no encoder.preprocessing for {folder}, which has its own files",
                            config or preprocessing, "Leave them out, or set encoder.source to a checkpoint or a "
                            "SavedModel that lacks them.")
    checkpoint = READERS[layout.name](folder, _hints(lower_case, config, preprocessing))
    checkpoint.check(folder)
    return checkpoint


def _verified(source: str, sha256: str) -> tuple[Path, Layout]:
    """The folder and layout of a source, whose weights have the sha256 that is expected of them, if one is."""
    folder = local_folder(source)
    layout = layout_of(folder)
    known = MINILM_SHA256 if source == MINILM else downloads.known_sha256(source, folder, layout)
    expected = sha256 or known
    if expected and (found := weights_sha256(folder, layout)) != expected.lower():
        raise TextrailError(f"{' and '.join(map(str, weights_files(folder, layout)))} with sha256 {expected}", found,
                            "The file is damaged or another one; fetch it again, or correct encoder.sha256.")
    return folder, layout


def _hints(lower_case: bool | None, config: str, preprocessing: str) -> Hints:
    from modules.checkpoints import Hints

    return Hints(lower_case, Path(config) if config else None, _local(preprocessing) if preprocessing else None)


def _local(preprocessing: str) -> Path:
    """The vocab.txt, or the folder, that `encoder.preprocessing` names."""
    return Path(preprocessing) if Path(preprocessing).is_file() else local_folder(preprocessing)


def local_folder(source: str) -> Path:
    """A folder of this machine with the encoder that `encoder.source` names; what is remote is fetched.

    Raises:
        TextrailError: there is none.
    """
    if source == MINILM:
        from modules.weights import packaged_minilm

        return packaged_minilm()
    if downloads.is_remote(source):
        return downloads.fetch(source)
    folder = Path(source)
    if not folder.is_dir():
        raise TextrailError(
            f"an encoder: {MINILM!r}, a folder, hf://owner/name, or a handle of TF Hub or Kaggle that begins with "
            "https://tfhub.dev/ or https://www.kaggle.com/models/", repr(source), "Give one of these.")
    if version := served_version(source):
        return folder / version   # a folder that a run pushes to
    exported = folder / "encoder"   # beside it lies its preprocessing
    return exported if (exported / "saved_model.pb").is_file() else folder


def encoder_fingerprint(source: str, config: str = "", preprocessing: str = "") -> str:
    """Changes when the source does, or what stands in for what it lacks.

    Small files count by their content. The weights are too large to read for every run: they count by size and time,
    those of minilm by the one sha256 that is accepted, so that installing it again changes nothing. Of a repository
    the commit counts, of a handle its version, whether it is fetched already or not.

    Args:
        source: as `encoder.source` of the settings.
        config: a configuration file; "" is none.
        preprocessing: a source with the vocabulary; "" is none.

    Returns:
        sha256 in hexadecimal digits.

    Raises:
        TextrailError: there is no such source or file.
    """
    facts: list[Any] = [_facts(source)]
    facts += [_content(Path(config))] if config else []
    if preprocessing:
        facts += [_content(Path(preprocessing)) if Path(preprocessing).is_file() else _facts(preprocessing)]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _facts(source: str) -> list[str]:
    """What tells one state of a source from another."""
    if downloads.is_remote(source):
        return [downloads.identity(source)]
    folder = local_folder(source)
    layout = layout_of(folder)
    weights, facts = weights_files(folder, layout), [layout.name]
    for path in sorted(set(matching(folder, layout.patterns))):
        if path not in weights:
            fact = _content(path)
        else:
            fact = MINILM_SHA256 if source == MINILM else f"{path.stat().st_size} {path.stat().st_mtime}"
        facts.append(f"{path.relative_to(folder)} {fact}")
    return facts


def _content(path: Path) -> str:
    if not path.is_file():
        raise TextrailError(f"the file {path}, encoder.config", "none there", "Correct the path.")
    return files.content_hash(files.File(str(path), path.stat().st_size, path.stat().st_mtime))
