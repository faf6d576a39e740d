"""Settings of a run as its containers can read them, and which of their URIs Kubeflow is to bring."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from components.files import is_uri
from kubeflow.checker import STORES, flaw
from kubeflow.executor_input import FOLDERS
from modules.errors import TextrailError
from pipelines.kubeflow_sections import Kubeflow, is_in
from pipelines.sections import Settings
from pipelines.settings import PROJECT

HOME = "/opt/textrail"   # Where the image has the project, with the data that it ships.
READ = ("data.path", "data.pairs", "data.schema_file", "data.data_dir", "encoder.source", "encoder.config",
        "encoder.preprocessing")
PATTERN = re.compile(r"[*?\[]")
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
ADDRESSES = {"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"}


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

    def moved(key: str, path: str) -> str:
        if is_uri(path):
            return _known_uri(key, path)
        if (key, path) == ("encoder.source", "minilm") or is_on(settings.kubeflow, path):
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
    _check_destination(settings.push.destination or "", settings.kubeflow)
    if settings.kubeflow.checkpoints and not is_on(settings.kubeflow, settings.kubeflow.checkpoints):
        raise TextrailError("kubeflow.checkpoints on one of kubeflow.volumes, where another attempt finds them",
                            settings.kubeflow.checkpoints, "Correct it, or leave it out.")
    return type(settings).model_validate(told)


def _mapped(value: Any, key: str, change: Callable[[str, str], str]) -> Any:
    if isinstance(value, dict):
        return {split: change(f"{key}.{split}", path) for split, path in value.items()}
    return change(key, value)


def is_on(kubeflow: Kubeflow, path: str) -> bool:
    """Whether a path is on one of the volumes."""
    return any(is_in(posixpath.normpath(path), volume.path) for volume in kubeflow.volumes)


def _known_uri(key: str, uri: str) -> str:
    if key.startswith("encoder.") and not uri.startswith(("file://", *FOLDERS)):
        return uri   # EncoderImporter fetches the others, such as hf://, itself.
    if problem := flaw(_folder_of_pattern(uri) if key.startswith("data.") else uri):
        raise TextrailError(f"{key} in a store that Kubeflow reads ({STORES}), as s3://BUCKET/FILE",
                            f"{uri} ({problem})", "Put it there, or on a volume.")
    return uri


def _check_destination(destination: str, kubeflow: Kubeflow) -> None:
    """Refuses what no container can push to, as far as that can be known here.

    Raises:
        TextrailError: it is neither on a volume nor a folder in a store, or the store's address or half of the
            credentials is not told.
    """
    if is_on(kubeflow, destination):
        return
    if problem := flaw(destination):
        raise TextrailError(
            f"push.destination on one of kubeflow.volumes or in {STORES}, which outlive containers",
            f"{destination} ({problem})" if destination else "none",
            "For example --set push.destination=/mnt/models/reviews --set "
            "'kubeflow.volumes=[{claim: models, path: /mnt/models}]', or push.destination=s3://models/reviews.")
    known = _variables(kubeflow)
    if destination.startswith("minio://") and not known & ADDRESSES:
        raise TextrailError(f"the address of the store of push.destination={destination}", "none",
                            "For example --set kubeflow.environment.AWS_ENDPOINT_URL=http://minio-service.kubeflow:9000.")
    if len(known & {*KEYS}) == 1:
        raise TextrailError(f"{' and '.join(KEYS)} among kubeflow.secrets and kubeflow.environment, or neither of both",
                            f"only {min(known & {*KEYS})}", "Give both, of one Secret.")


def _variables(kubeflow: Kubeflow) -> set[str]:
    """Names of the environment variables that containers get."""
    return {*kubeflow.environment, *(variable for secret in kubeflow.secrets for variable in secret.keys)}


def hints(settings: Settings, pipeline_root: str) -> list[str]:
    """What may be missing, which only the cluster knows: sentences for the terminal.

    Args:
        settings: of the run.
        pipeline_root: as it is given; "" leaves it to the cluster.
    """
    if _variables(settings.kubeflow) & {*KEYS}:
        return []
    told = "nothing in kubeflow.secrets or kubeflow.environment gives AWS_ACCESS_KEY_ID"
    found = []
    destination = settings.push.destination or ""
    if destination.startswith(("s3://", "minio://")):
        found.append(f"push.destination={destination}: {told}, so the pods' service account must be allowed to write "
                     "there")
    for key, uri in brought(settings).items():
        bucket = "/".join(uri.split("/")[:3])
        if pipeline_root and not uri.startswith("gs://") and not is_in(pipeline_root, bucket):
            found.append(f"{key}={uri}: another bucket than that of --pipeline-root, and {told}, so the pods' service "
                         "account must be allowed to read there")
    return found


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
    scheme, mark, place = uri.partition("://")
    magic = PATTERN.search(place)
    return scheme + mark + (place[:magic.start()].rpartition("/")[0] if magic else place.rstrip("/"))
