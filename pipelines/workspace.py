"""Where a run keeps its state, and what can be read from it afterwards.

Everything of a run lies under `<workspace>/<run>/`. Imports nothing heavy: the command line reads here.
"""

from __future__ import annotations

import datetime
import difflib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modules.errors import TextrailError
from pipelines.sections import Settings
from pipelines.settings import ready_made, settings_file

VARIABLE = "TEXTRAIL_WORKSPACE"
DEFAULT = "workspace"


@dataclass(frozen=True)
class Workspace:
    """The folders and files of one run.

    Args:
        run: the run's name.
        folder: absolute, `<workspace>/<run>`.
    """

    run: str
    folder: Path

    @property
    def pipeline_root(self) -> Path:
        """Artifacts, one folder a component, unless `beam.artifacts` says otherwise."""
        return self.folder / "pipeline"

    @property
    def metadata(self) -> Path:
        """ML Metadata: which execution made what from what."""
        return self.folder / "metadata.sqlite"

    @property
    def checkpoints(self) -> Path:
        """What a killed training resumes from."""
        return self.folder / "checkpoints"

    @property
    def pushed(self) -> Path:
        """Versions that were pushed, unless `push.destination` says otherwise."""
        return self.folder / "pushed"

    @property
    def settings(self) -> Path:
        """The settings of the last run as they were in force, `--set` included."""
        return self.folder / "settings.json"

    def new_log(self) -> Path:
        """A path for the log of a run that begins now."""
        return self.folder / "logs" / f"{datetime.datetime.now():%Y-%m-%dT%H-%M-%S}.log"

    def recorded(self, section: str) -> dict[str, Any]:
        """A section of the settings of the last run; empty before the first one."""
        return json.loads(self.settings.read_text("utf-8")).get(section, {}) if self.settings.exists() else {}

    def destination(self) -> str:
        """Folder or URI that the last run pushed to, or would have."""
        return self.recorded("push").get("destination") or str(self.pushed)

    def artifacts(self, place: str | None) -> str:
        """Folder or URI for what the components make, where `beam.artifacts` of the settings is `place`."""
        return os.path.join(place, self.run) if place else str(self.pipeline_root)

    def record(self, settings: Settings) -> None:
        """Keeps the settings in force, so that later commands find what `--set` changed."""
        beside = self.settings.with_suffix(".part")
        beside.write_text(settings.model_dump_json(indent=1), "utf-8")
        beside.replace(self.settings)

    def owner(self) -> str:
        """Path of the settings file that the workspace belongs to; "" before it is claimed."""
        file = self.folder / "settings_file"
        return file.read_text("utf-8") if file.exists() else ""

    def claim(self, settings: Path) -> None:
        """Makes the workspace that of one settings file: equal names must not push over each other.

        Raises:
            TextrailError: it belongs to another file of the same name.
        """
        mine = str(settings.resolve())
        other = self.owner() or mine
        if other != mine and Path(other).exists():
            raise TextrailError(f"{self.folder} to be the workspace of {mine}", f"the one of {other}",
                                "Rename the settings file, or give it a workspace of its own with --workspace DIR.")
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "settings_file").write_text(mine, "utf-8")

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps a second run of this name out for as long as the block lasts.

        The lock is the process's own: one that was killed leaves none behind.

        Raises:
            TextrailError: another run holds it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / "lock", "a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                raise TextrailError(
                    f"no other run of {self.run} in {self.folder.parent}", f"one under way ({file.read().strip()})",
                    "Wait for it, or give this one a workspace of its own with --workspace DIR.") from None
            file.truncate(0)
            file.write(f"process {os.getpid()}, since {datetime.datetime.now():%Y-%m-%d %H:%M:%S}")
            file.flush()
            yield


def root(folder: str | None) -> Path:
    """The folder of all runs: the one given, else `TEXTRAIL_WORKSPACE`, else `workspace/` here."""
    return Path(folder or os.environ.get(VARIABLE) or DEFAULT).expanduser().absolute()


def new(name_or_path: str, folder: str | None) -> Workspace:
    """The workspace of a run that is about to start: a ready-made one or a settings file, whose stem is its name.

    Raises:
        TextrailError: neither a ready-made run nor a file.
    """
    run = settings_file(name_or_path).stem
    return Workspace(run, root(folder) / run)


def existing(name_or_path: str, folder: str | None) -> Workspace:
    """The workspace of a run that has been started before.

    Raises:
        TextrailError: nothing by that name has run here.
    """
    run = Path(name_or_path).stem if name_or_path.endswith((".yaml", ".yml")) else name_or_path
    workspace = Workspace(run, root(folder) / run)
    if workspace.metadata.exists():
        return workspace
    if run in ready_made() or Path(name_or_path).is_file():
        fix = f"Start it with `textrail run {name_or_path}`."
    else:
        there = [started.run for started in all_started(folder)]
        close = difflib.get_close_matches(run, sorted({*there, *ready_made()}), n=1)
        fix = f"Did you mean {close[0]}?" if close else "`textrail list` shows the ready-made runs."
    raise TextrailError(f"a run that was started in {root(folder)}", f"{name_or_path}, which was not", fix)


def all_started(folder: str | None) -> list[Workspace]:
    """The workspaces of all runs that have been started, by name."""
    return [Workspace(path.parent.name, path.parent) for path in sorted(root(folder).glob("*/metadata.sqlite"))]


@dataclass(frozen=True)
class Evaluation:
    """The newest judgement of a run.

    Attributes:
        folder: of the `ModelEvaluation` artifact.
        time: when the execution that used or made it began.
        verdict: its `verdict.json`.
    """

    folder: str
    time: datetime.datetime
    verdict: dict[str, Any]


def last_evaluation(workspace: Workspace) -> Evaluation | None:
    """The judgement in the newest run that came as far as one, be it made then or taken from the cache."""
    from components.verdict import VERDICT_FILE, load_verdict

    if not workspace.metadata.exists():
        return None
    store = _metadata_store(workspace)
    artifacts = {artifact.id: artifact for artifact in store.get_artifacts_by_type("ModelEvaluation")
                 if Path(artifact.uri, VERDICT_FILE).exists()}
    if not artifacts:
        return None
    made = _outputs(store, artifacts)
    newest = max(store.get_executions_by_id(made), key=lambda execution: execution.id)
    folder = made[newest.id].uri
    time = datetime.datetime.fromtimestamp(newest.create_time_since_epoch / 1000)
    return Evaluation(folder, time, load_verdict(folder))


def newest_output(workspace: Workspace, artifact_type: str, properties: Mapping[str, Any]) -> str | None:
    """URI of what the newest execution with these properties made, or took from the cache; none without one.

    Args:
        workspace: of the run.
        artifact_type: TFX's name of the output's type, e.g. `Model`.
        properties: names and values of execution properties, all of which must be equal.
    """
    if not workspace.metadata.exists():
        return None
    store = _metadata_store(workspace)
    made = _outputs(store, {artifact.id: artifact for artifact in store.get_artifacts_by_type(artifact_type)})
    fitting = [execution.id for execution in store.get_executions_by_id(made)
               if all(execution.custom_properties[name].string_value == value for name, value in properties.items())]
    return made[max(fitting)].uri if fitting else None


def _metadata_store(workspace: Workspace) -> Any:
    from components.run_record import open_store

    return open_store(str(workspace.metadata))


def _outputs(store: Any, artifacts: Mapping[int, Any]) -> dict[int, Any]:
    """Execution → the artifact it made or took from the cache."""
    from ml_metadata.proto import metadata_store_pb2

    output = metadata_store_pb2.Event.OUTPUT   # type: ignore[attr-defined]
    events = store.get_events_by_artifact_ids(list(artifacts)) if artifacts else []
    return {event.execution_id: artifacts[event.artifact_id] for event in events if event.type == output}
