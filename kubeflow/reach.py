"""Settings of a run as its containers can read them, and which of their URIs Kubeflow is to bring."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from components.files import is_uri
from kubeflow.executor_input import FOLDERS
from modules.errors import TextrailError
from pipelines.sections import Settings
from pipelines.settings import PROJECT

HOME = "/opt/textrail"   # Where the image has the project, with the data that it ships.
READ = ("data.path", "data.pairs", "data.schema_file", "data.data_dir", "encoder.source", "encoder.config",
        "encoder.preprocessing")
PATTERN = re.compile(r"[*?\[]")
STORES = ", ".join(FOLDERS)


def in_containers(settings: Settings, home: str = HOME) -> Settings:
    """The same settings with the paths that containers have: the project's own files lie elsewhere in the image.

    Args:
        settings: with absolute paths.
        home: the project's folder in the image.

    Raises:
        TextrailError: a path is of this machine alone, a URI is none that Kubeflow reads, there is no push
            destination that outlives a container, or the data work is to be done elsewhere.
    """
    if elsewhere := settings.beam.model_dump(exclude_defaults=True):
        raise TextrailError("no section `beam` of a run on Kubeflow, whose containers do their data work themselves",
                            ", ".join(f"beam.{key}={value}" for key, value in elsewhere.items()),
                            "Leave it out; kubeflow.components.NAME.cpus gives a component more cores.")
    if settings.training.strategy == "multi_worker":
        raise TextrailError("a training.strategy of one process on Kubeflow, where the Trainer is one pod",
                            "multi_worker", "For several GPUs: mirrored, and kubeflow.components.Trainer.gpus.")
    volumes = [volume.path for volume in settings.kubeflow.volumes]

    def moved(key: str, path: str) -> str:
        if is_uri(path):
            return _known_uri(key, path)
        if (key, path) == ("encoder.source", "minilm") or _is_on(volumes, path):
            return path
        if Path(path).is_relative_to(PROJECT):
            return posixpath.join(home, Path(path).relative_to(PROJECT).as_posix())
        raise TextrailError(f"{key} where containers reach it: {STORES}, or a path on one of kubeflow.volumes", path,
                            "Upload it to the store, or copy it to a volume.")

    told = settings.model_dump(exclude_unset=True)   # What is set of a component's pod goes before what all have.
    for key in READ:
        section, name = key.split(".")
        if (told.get(section) or {}).get(name):
            told[section][name] = _mapped(told[section][name], key, moved)
    destination = settings.push.destination
    if not destination or not (destination.startswith(tuple(FOLDERS)) or _is_on(volumes, destination)):
        raise TextrailError(
            f"push.destination on one of kubeflow.volumes or in {STORES}, which outlive containers",
            destination or "none", "For example --set push.destination=/mnt/models/reviews --set "
            "'kubeflow.volumes=[{claim: models, path: /mnt/models}]'.")
    if settings.kubeflow.checkpoints and not _is_on(volumes, settings.kubeflow.checkpoints):
        raise TextrailError("kubeflow.checkpoints on one of kubeflow.volumes, where another attempt finds them",
                            settings.kubeflow.checkpoints, "Correct it, or leave it out.")
    return type(settings).model_validate(told)


def _mapped(value: Any, key: str, change: Callable[[str, str], str]) -> Any:
    if isinstance(value, dict):
        return {split: change(f"{key}.{split}", path) for split, path in value.items()}
    return change(key, value)


def _is_on(volumes: list[str], path: str) -> bool:
    return any(path == volume or path.startswith(f"{volume}/") for volume in volumes)


def _known_uri(key: str, uri: str) -> str:
    if uri.startswith(tuple(FOLDERS)) or (key.startswith("encoder.") and not uri.startswith("file://")):
        return uri   # EncoderImporter fetches the others, such as hf://, itself.
    raise TextrailError(f"{key} in a store that Kubeflow reads ({STORES})", uri, "Put it there, or on a volume.")


def brought(settings: Settings) -> dict[str, str]:
    """What Kubeflow brings to the containers that read it: key → URI of an object or, of a pattern, its folder.

    Example: {"data.path": "s3://bucket/reviews"} of `data.path: s3://bucket/reviews/*.csv`.
    """
    return {key: _folder_of_pattern(uri) for key, uri in _read(settings) if uri.startswith(tuple(FOLDERS))}


def _read(settings: Settings) -> Iterator[tuple[str, str]]:
    told = settings.model_dump()
    for key in READ:
        section, name = key.split(".")
        value = (told.get(section) or {}).get(name)
        if isinstance(value, dict):
            yield from ((f"{key}.{split}", path) for split, path in value.items())
        elif value:
            yield key, value


def _folder_of_pattern(uri: str) -> str:
    magic = PATTERN.search(uri)
    return uri[:magic.start()].rpartition("/")[0] if magic else uri
