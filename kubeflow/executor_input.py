"""What Kubeflow's launcher tells a container, and what it reads when the container is done.

Follows `backend/src/v2/component/launcher_v2.go` of github.com/kubeflow/pipelines: the ExecutorInput comes as JSON in
the place of `{{$}}`; inputs were downloaded to local paths before, and what lies at the outputs' local paths is
uploaded afterwards; parameters and properties are read from the file that `outputs.outputFile` names.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from modules import progress
from modules.errors import TextrailError

FOLDERS = {"s3://": "/s3/", "minio://": "/minio/", "gs://": "/gcs/"}   # Where the launcher puts what an URI names.
LOGS = "executor-logs"   # An output that Kubeflow adds to every container, and writes itself.
STORED_AT = "stored_at"  # Property of an artifact that lies on a volume, where the launcher need not bring it.
KUBEFLOWS = ("display_name", "store_session_info", STORED_AT)   # Properties that are none of the component's.


def local_path(uri: str) -> str:
    """Where a container finds what an artifact's URI names: `s3://bucket/key` at `/s3/bucket/key`.

    Raises:
        TextrailError: the launcher has no place for such URIs.
    """
    for scheme, folder in FOLDERS.items():
        if uri.startswith(scheme):
            return folder + uri.removeprefix(scheme)
    raise TextrailError(f"an artifact in {', '.join(FOLDERS)}", uri, "Set another --pipeline-root.")


@dataclass(frozen=True)
class Place:
    """One artifact of a task.

    Attributes:
        name: as Kubeflow calls it; of an input, its number in ML Metadata.
        uri: of the store.
        path: in the container.
        metadata: its properties, without those that only Kubeflow and this module know.
    """

    name: str
    uri: str
    path: str
    metadata: Mapping[str, Any]

    @classmethod
    def of(cls, artifact: Mapping[str, Any]) -> Place:
        """Reads a RuntimeArtifact; its type is left out, since Kubeflow leaves it out of inputs."""
        uri, metadata = artifact["uri"], artifact.get("metadata", {})
        path = metadata.get(STORED_AT) or artifact.get("customPath") or local_path(uri)
        return cls(artifact.get("name", ""), uri, path,
                   {key: value for key, value in metadata.items() if key not in KUBEFLOWS})


class ExecutorInput:
    """The message of that name.

    Args:
        message: as JSON.
        root: folder of a volume that keeps what is made; "" leaves that to Kubeflow's store.

    Raises:
        TextrailError: the message is something else.
    """

    def __init__(self, message: str, root: str = ""):
        self._root = root
        try:
            self._message: Mapping[str, Any] = json.loads(message)
            self.output_file = Path(self._message["outputs"]["outputFile"])
        except (ValueError, KeyError, TypeError) as error:
            raise TextrailError("Kubeflow's ExecutorInput as JSON, with outputs.outputFile",
                                f"{message[:200]!r} ({type(error).__name__})",
                                "Let Kubeflow start this; elsewhere there is `textrail run`.") from None

    @cached_property
    def inputs(self) -> dict[str, list[Place]]:
        """Artifacts that are read, by key."""
        found = self._message.get("inputs", {}).get("artifacts", {})
        return {key: [Place.of(one) for one in value.get("artifacts", [])] for key, value in found.items()}

    @cached_property
    def outputs(self) -> dict[str, Place]:
        """Artifacts that are to be made, by key; Kubeflow's own is left out."""
        found = self._message["outputs"].get("artifacts", {})
        places = {key: Place.of(value["artifacts"][0]) for key, value in found.items() if key != LOGS}
        if not self._root:
            return places
        return {key: replace(one, path=os.path.join(self._root, one.uri.partition("://")[2]))
                for key, one in places.items()}

    def stored_at(self, place: Place) -> dict[str, str]:
        """What the properties of an output must say for the tasks behind to find it."""
        return {STORED_AT: place.path} if self._root else {}

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """Parameters by key, with the URIs of what the launcher brought replaced by where it lies."""
        found = self._message.get("inputs", {}).get("parameterValues", {})
        brought = {one.uri: one.path for key, places in self.inputs.items() if is_imported(key) for one in places}
        return {key: _replaced(value, brought) if isinstance(value, str) else value for key, value in found.items()}

    def answer(self, output: Mapping[str, Any]) -> None:
        """Writes an ExecutorOutput where the launcher reads it."""
        self.output_file.parent.mkdir(parents=True, exist_ok=True)
        beside = self.output_file.with_suffix(".part")
        beside.write_text(json.dumps(output, ensure_ascii=False), "utf-8")
        beside.replace(self.output_file)


IMPORTED = "imported_"   # Inputs that begin so are not the component's: they bring what a parameter's URI names.


def is_imported(key: str) -> bool:
    """Whether an input only brings what one of the parameters names."""
    return key.startswith(IMPORTED)


def _replaced(text: str, paths: Mapping[str, str]) -> str:
    """A parameter with URIs replaced by paths; s3://b/a is not part of s3://b/ab."""
    for uri, path in paths.items():
        text = re.sub(re.escape(uri) + r"(?![\w.-])", path.replace("\\", r"\\"), text)
    return text


def run_task(work: Callable[[ExecutorInput], Mapping[str, Any]], message: str, root: str = "") -> None:
    """Runs a task and ends the process: 0 when done, else 1 with the reason as the last line.

    Args:
        work: takes the task, and returns its ExecutorOutput as JSON.
        message: ExecutorInput as JSON.
        root: see `ExecutorInput`.
    """
    # Whoever deletes a pod ends the task like a person would: checkpoints are kept.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    handler = logging.StreamHandler(sys.stdout)
    handler.addFilter(lambda record: bool(getattr(record, "progress", {}).get("lasting")))
    progress.LOGGER.addHandler(handler)
    sys.argv = sys.argv[:1]   # TFX hands the command line to absl, which would take ours for its own.
    try:
        task = ExecutorInput(message, root)
        task.answer(work(task))
        status = 0
    except (KeyboardInterrupt, Exception) as error:
        status = 1
        traceback.print_exception(error)
        print(f"textrail: {_sentence(error)}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)   # Threads of TensorFlow and Beam still have words to say, which would come behind the reason.


def _sentence(error: BaseException) -> str:
    if isinstance(error, TextrailError):
        return str(error)
    from pipelines.local_runner import sentence

    return sentence(error, Path("the lines above"))
