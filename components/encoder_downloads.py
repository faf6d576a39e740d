"""Encoders from the HuggingFace Hub, TF Hub and Kaggle, by the client libraries and from the caches that these keep.

What lies in a cache is used without a network. `HF_HOME`, `HF_HUB_OFFLINE`, `HF_ENDPOINT` and `HF_TOKEN` mean what
they mean to huggingface_hub, `TFHUB_CACHE_DIR` what it means to tensorflow_hub and `KAGGLEHUB_CACHE` to kagglehub.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from components.encoder_layouts import LAYOUTS, Layout, layout_among, matching, weights_files
from modules.errors import TextrailError

HUGGINGFACE = "hf://"
TFHUB, KAGGLE = "https://tfhub.dev/", re.compile(r"https://(?:www\.)?kaggle\.com/models/")
TIMEOUT = 10   # seconds that the hub has for saying what a repository holds


def is_remote(source: str) -> bool:
    """Whether a source is fetched rather than a folder."""
    return source.startswith((HUGGINGFACE, TFHUB)) or bool(KAGGLE.match(source))


def fetch(source: str) -> Path:
    """A local folder with a remote encoder, fetched where the cache lacks it.

    Args:
        source: `hf://owner/name[@revision]`, or a handle of TF Hub or Kaggle.

    Returns:
        The folder in the library's cache.

    Raises:
        TextrailError: it is neither there nor to be had, or has nothing that can be read.
    """
    return Repository.of(source).fetch() if source.startswith(HUGGINGFACE) else _fetch_handle(source)


def identity(source: str) -> str:
    """What tells one state of a remote encoder from another: its commit; a handle names its version.

    Raises:
        TextrailError: a repository that is neither there nor in the cache.
    """
    return Repository.of(source).commit() if source.startswith(HUGGINGFACE) else source


def known_sha256(source: str, folder: Path, layout: Layout) -> str:
    """The sha256 that a weights file should have: huggingface_hub names large files in its cache by theirs. "" if none.

    Args:
        source: where it came from.
        folder: in the cache.
        layout: of the folder.
    """
    paths = weights_files(folder, layout)
    name = paths[0].resolve().name if source.startswith(HUGGINGFACE) and len(paths) == 1 else ""
    return name if re.fullmatch("[0-9a-f]{64}", name) else ""


class Repository(NamedTuple):
    """A repository of the HuggingFace Hub.

    Attributes:
        name: with its owner.
        revision: branch, tag or commit.
    """

    name: str
    revision: str

    @classmethod
    def of(cls, source: str) -> Repository:
        """From `hf://owner/name[@revision]`.

        Raises:
            TextrailError: it is not written so.
        """
        match = re.fullmatch(r"hf://([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", source)
        if match is None:
            raise TextrailError("hf://owner/name or hf://owner/name@revision", repr(source), "Write it so.")
        return cls(match[1], match[2] or "main")

    def fetch(self) -> Path:
        """Fetches the files that are read, and no others, or finds them in the cache."""
        from huggingface_hub import snapshot_download

        try:
            _, names = self._ask()
        except Exception as error:   # whatever stands between here and the hub, what was fetched before is there
            return self._cached(error)
        layout = layout_among(names, f"{HUGGINGFACE}{self.name}")
        try:
            return Path(snapshot_download(self.name, revision=self.revision, allow_patterns=layout.patterns))
        except Exception as error:
            return self._cached(error)

    def commit(self) -> str:
        """The commit that the revision is at now, or was when it was fetched."""
        if re.fullmatch("[0-9a-f]{40}", self.revision):
            return self.revision
        try:
            return self._ask()[0]
        except Exception as error:
            return self._cached(error).name

    def _ask(self) -> tuple[str, list[str]]:
        """The commit and the names of the files, from the hub."""
        from huggingface_hub import HfApi

        info = HfApi().model_info(self.name, revision=self.revision, timeout=TIMEOUT)
        return str(info.sha), [sibling.rfilename for sibling in info.siblings or ()]

    def _cached(self, error: Exception) -> Path:
        """The folder in the cache.

        Args:
            error: why it is not taken from the hub.

        Raises:
            TextrailError: it is not whole in the cache.
        """
        from huggingface_hub import snapshot_download
        from huggingface_hub.constants import HF_HUB_CACHE

        for layout in LAYOUTS:
            try:
                folder = Path(snapshot_download(self.name, revision=self.revision, allow_patterns=layout.patterns,
                                                local_files_only=True))
            except Exception:   # not there, or in part
                continue
            if any(matching(folder, [layout.sign])):
                return folder
        raise TextrailError(
            f"{HUGGINGFACE}{self.name} at {self.revision}, from the hub or whole in the cache {HF_HUB_CACHE}",
            f"{type(error).__name__}: {_first_line(error)}", "Check name and network (HF_HUB_OFFLINE turns it off, "
            "HF_TOKEN opens what is gated), or copy the folder here from where there is one and set encoder.source to "
            "it.") from error


def _fetch_handle(handle: str) -> Path:
    """A SavedModel of TF Hub or Kaggle."""
    if KAGGLE.match(handle) and (folder := _kagglehub_folder(handle)):
        return folder
    import tensorflow_hub

    try:
        return Path(tensorflow_hub.resolve(handle))
    except Exception as error:
        cache = os.environ.get("TFHUB_CACHE_DIR") or "of tensorflow_hub, which TFHUB_CACHE_DIR names,"
        raise TextrailError(f"{handle}, from the network or in the cache {cache}",
                            f"{type(error).__name__}: {_first_line(error)}",
                            "Check handle and network, or copy the unpacked folder here from where there is one and "
                            "set encoder.source to it.") from error


def _kagglehub_folder(handle: str) -> Path | None:
    """Where kagglehub has put a model of `…/models/OWNER/MODEL/FRAMEWORK/VARIATION/VERSION`, if it has, and whole."""
    parts = [part for part in KAGGLE.sub("", handle).split("?")[0].strip("/").split("/")
             if part not in ("frameworks", "variations", "versions")]
    cache = Path(os.environ.get("KAGGLEHUB_CACHE") or Path.home() / ".cache" / "kagglehub") / "models"
    if len(parts) != 5:
        return None
    owner, model, framework, variation, version = parts
    # People write the framework as TensorFlow2, tensorFlow2 and tensorflow2.
    for folder in cache.glob(f"{owner}/{model}/*/{variation}/{version}"):
        if folder.parts[-3].lower() == framework.lower() and Path(f"{folder}.complete").is_file():
            return folder
    return None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0]
