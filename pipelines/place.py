"""Where a pipeline is to run: the folders that its steps are told of, and who looks at what lies outside it.

Of data, encoder and what is served a pipeline only knows fingerprints and a version, so that its cache sees them
change. On this machine they are looked at when the pipeline is built; elsewhere (`kubeflow.compile`) whoever builds it
may reach none of them, and they are looked at when it runs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from components.encoder_sources import encoder_fingerprint
from components.schema_gen import schema_fingerprint
from components.sources import data_fingerprint
from pipelines.report import command_of
from pipelines.sections import Settings
from pipelines.served import Served
from pipelines.workspace import Workspace, newest_output


class Place(Protocol):
    """What `build` needs to know of where its pipeline runs.

    Attributes:
        pipeline_root: where artifacts go.
        metadata: ML Metadata's SQLite file; "" where there is none to read.
        checkpoints: folder of trainings in progress.
        pushed: where models go unless `push.destination` says otherwise.
    """

    @property
    def pipeline_root(self) -> str: ...
    @property
    def metadata(self) -> str: ...
    @property
    def checkpoints(self) -> str: ...
    @property
    def pushed(self) -> str: ...

    def command(self, settings: Settings) -> str:
        """What repeats the run."""

    def data(self, data: dict[str, Any]) -> str:
        """Fingerprint of what `sections.Data` as a dict points to."""

    def schema(self, curated: str | None) -> str:
        """Fingerprint of a curated schema; "" without one."""

    def encoder(self, source: str, config: str, preprocessing: str) -> str:
        """Fingerprint of a pretrained encoder."""

    def served(self, destination: str, code: str, read: Mapping[str, str], reads: Mapping[str, str | None],
               training: Mapping[str, Any]) -> Served:
        """What is served in a push destination.

        Args:
            destination: folder or URI of the versions.
            code: fingerprint of the settings and the code that a model of this run is made with.
            read: fingerprints of what it is made from, by what it is.
            reads: see `Served.find`.
            training: execution properties of the run's Trainer.
        """


@dataclass(frozen=True)
class ThisMachine:
    """A workspace of this machine.

    Args:
        workspace: of the run.
        forced: true if any step is to run although cached, so that its model is a new one.
        artifacts: see `Workspace.artifacts`.
    """

    workspace: Workspace
    forced: bool = False
    artifacts: str | None = None

    @property
    def pipeline_root(self) -> str:
        return self.workspace.artifacts(self.artifacts)

    @property
    def metadata(self) -> str:
        return str(self.workspace.metadata)

    @property
    def checkpoints(self) -> str:
        return str(self.workspace.checkpoints)

    @property
    def pushed(self) -> str:
        return str(self.workspace.pushed)

    def command(self, settings: Settings) -> str:
        return command_of(settings, self.workspace)

    def data(self, data: dict[str, Any]) -> str:
        return data_fingerprint(data)

    def schema(self, curated: str | None) -> str:
        return schema_fingerprint(curated)

    def encoder(self, source: str, config: str, preprocessing: str) -> str:
        return encoder_fingerprint(source, config, preprocessing)

    def served(self, destination: str, code: str, read: Mapping[str, str], reads: Mapping[str, str | None],
               training: Mapping[str, Any]) -> Served:
        def is_cached(model: str) -> bool:
            return not self.forced and newest_output(self.workspace, "Model", training) == model

        return Served.find(destination, recipe(code, read), reads, is_cached)


def recipe(code: str, read: Mapping[str, str]) -> str:
    """Names all that a model is made from.

    Args:
        code: fingerprint of settings and code.
        read: fingerprints of what is read, by what it is.

    Returns:
        sha256 in hexadecimal digits.
    """
    return hashlib.sha256(json.dumps([code, dict(read)], sort_keys=True).encode()).hexdigest()
