"""What a push destination holds: one numbered SavedModel folder a version, as model servers expect it.

Light for local folders: the command line looks here before anything heavy is imported.
"""

from __future__ import annotations

import json
import os
from typing import Any

from modules.errors import TextrailError
from modules.manifest import MANIFEST


def _remote() -> Any:
    # Takes seconds, with TensorFlow for gs://; local folders need none of it.
    from tfx.dsl.io import fileio

    from components import object_store  # noqa: F401  # serves s3:// and minio://
    return fileio


def _names(folder: str) -> list[str]:
    if "://" in folder:
        # TensorFlow lists folders of object stores with a slash at the end.
        return [str(name).rstrip("/") for name in _remote().listdir(folder)] if _remote().isdir(folder) else []
    return os.listdir(folder) if os.path.isdir(folder) else []


def versions(destination: str) -> list[int]:
    """The complete versions in a destination, oldest first: all-digits folders with a `saved_model.pb`."""
    numbers = sorted(int(name) for name in _names(destination) if name.isascii() and name.isdigit())
    return [number for number in numbers if "saved_model.pb" in _names(os.path.join(destination, str(number)))]


def served_version(destination: str) -> str | None:
    """The version that a model server watching this folder serves; None if it serves nothing yet."""
    found = versions(destination)
    return str(found[-1]) if found else None


def read_manifest(folder: str) -> dict[str, Any]:
    """What a SavedModel says about itself.

    Args:
        folder: the SavedModel's folder, local or a URI.

    Returns:
        shape, text and inputs; of a classifier text_pair, label, classes, max_length, truncate and pooling, of a
        translator target, slice, decoding and max_tokens; once pushed also pushed_at, version, recipe, model, attempt,
        baseline_version, label_counts and metrics.

    Raises:
        TextrailError: it says nothing, since somebody else made it.
    """
    path = os.path.join(folder, MANIFEST)
    if not (_remote() if "://" in path else os.path).exists(path):
        raise TextrailError(f"a model of this project, with {MANIFEST}, in {folder}", "a SavedModel without it",
                            "Choose another push.destination, or move that version away.")
    with _remote().open(path) if "://" in path else open(path, encoding="utf-8") as file:
        return json.load(file)
