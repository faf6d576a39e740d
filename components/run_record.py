"""What ML Metadata tells of a run: its steps in order, how each fared, what it was told, and what it made.

The one place that reads executions; the report, the history and the comparison of runs are made from it.
"""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from components.files import is_uri

State = Literal["done", "cached", "failed", "running"]

REASON = "reason"       # Custom property of a failed execution: the sentence that the run ended with.
REPORT = "RunReport"    # The step that writes a report, hence is not in it.
# Parameters of steps that hold settings, by step; where their keys stand in a settings file.
NESTED = {("ExampleGen", "data"): "data", ("AnomalyGate", "gate"): "gate", ("TextTransform", "settings"): "model",
          ("VocabularyGen", "settings"): "", ("Trainer", "settings"): "", ("Evaluator", "settings"): ""}
PLAIN = {("EncoderImporter", "source"): "encoder.source", ("EncoderImporter", "config"): "encoder.config",
         ("EncoderImporter", "preprocessing"): "encoder.preprocessing", ("Trainer", "head"): "encoder.head",
         ("Pusher", "keep"): "push.keep", ("Pusher", "destination"): "push.destination"}
# Parameters that fingerprint what is read.
READ = {("ExampleGen", "fingerprint"): "data", ("SchemaGen", "fingerprint"): "schema",
        ("EncoderImporter", "fingerprint"): "encoder"}
CODE = ("code", "executor_code")


@dataclass(frozen=True)
class Artifact:
    """Something that a step made.

    Attributes:
        key: its name among the step's outputs.
        type: TFX's name of its type.
        uri: where it lies.
        properties: what is known of it beside its content.
    """

    key: str
    type: str
    uri: str
    properties: Mapping[str, Any]

    @cached_property
    def bytes(self) -> int | None:
        """Size of its files, of a pushed model those that are served; none where they are gone."""
        return folder_bytes(str(self.properties.get("pushed_destination") or self.uri))


@dataclass(frozen=True)
class Step:
    """One component in one run.

    Attributes:
        name: of the component.
        execution: number of the execution.
        state: how it ended.
        began: when.
        seconds: how long it took, zero from the cache.
        parameters: what it was told.
        outputs: by key.
        reason: why it failed; empty where it did not, or where nobody wrote it down.
        maker: the execution that made what came from the cache, with its beginning and its seconds.
    """

    name: str
    execution: int
    state: State
    began: datetime.datetime
    seconds: float
    parameters: Mapping[str, Any]
    outputs: Mapping[str, Artifact] = field(default_factory=dict)
    reason: str = ""
    maker: tuple[int, datetime.datetime, float] | None = None


@dataclass(frozen=True)
class Run:
    """One start of a pipeline.

    Attributes:
        number: counted from 1, oldest first.
        began: when.
        steps: in the order in which they were begun, as far as it came; the step that reports is left out.
    """

    number: int
    began: datetime.datetime
    steps: Sequence[Step]

    def step(self, name: str) -> Step | None:
        """The step of that name, if the run came so far."""
        return next((step for step in self.steps if step.name == name), None)

    def artifact(self, step: str, key: str) -> Artifact | None:
        """What a step made, if it did."""
        found = self.step(step)
        return found.outputs.get(key) if found else None

    @property
    def failed(self) -> Step | None:
        """The step that ended the run early."""
        return next((step for step in self.steps if step.state == "failed"), None)

    @property
    def pushed(self) -> str | None:
        """Where its model is served from; none if it is not."""
        model = self.artifact("Pusher", "pushed_model")
        return str(model.properties.get("pushed_destination", model.uri)) if model else None

    @property
    def outcome(self) -> str:
        """In a few words."""
        if self.failed:
            return f"stopped at {self.failed.name}"
        push = self.step("Pusher")
        if push is None or push.state == "running":
            return "not finished"
        return "already pushed" if push.state == "cached" else "pushed"

    @property
    def seconds(self) -> float:
        """From the beginning of its first step to the end of its last."""
        ends = [step.began + datetime.timedelta(seconds=step.seconds) for step in self.steps]
        return (max(ends) - self.began).total_seconds() if ends else 0.0

    @cached_property
    def settings(self) -> dict[str, Any]:
        """Key of a settings file → value, as far as its steps were told them."""
        found: dict[str, Any] = {}
        for step in self.steps:
            for (name, parameter), prefix in NESTED.items():
                if name == step.name and parameter in step.parameters:
                    told = json.loads(step.parameters[parameter])
                    # What every step is told of the columns stands in ExampleGen's, with the rest of `data`.
                    told = {key: value for key, value in told.items()
                            if prefix or isinstance(value, dict) or key == "seed"} if prefix != "model" else {}
                    found |= {key: value for key, value in flat(told, prefix) if prefix or not key.startswith("data.")}
            found |= {key: step.parameters[parameter] for (name, parameter), key in PLAIN.items()
                      if name == step.name and parameter in step.parameters}
        return found

    @cached_property
    def read(self) -> dict[str, str]:
        """What is read → its fingerprint."""
        return {what: step.parameters[parameter] for step in self.steps for (name, parameter), what in READ.items()
                if name == step.name and step.parameters.get(parameter)}

    @cached_property
    def code(self) -> dict[str, str]:
        """Step → fingerprints of the code that it runs."""
        return {step.name: " ".join(str(step.parameters[key]) for key in CODE if step.parameters.get(key))
                for step in self.steps if any(step.parameters.get(key) for key in CODE)}


@dataclass(frozen=True)
class Change:
    """What differs between two runs.

    Attributes:
        what: "settings", "data", "schema", "encoder" or "code".
        name: key of the setting, name of the step, or what is read.
        before: earlier value.
        after: later value.
    """

    what: str
    name: str
    before: Any
    after: Any


def changes(before: Run, after: Run) -> list[Change]:
    """What differs in what both runs were told: settings, what is read, and code.

    A step that only one run came to tells of no difference.
    """
    found = [Change("settings", key, before.settings[key], after.settings[key])
             for key in after.settings if key in before.settings and before.settings[key] != after.settings[key]]
    found += [Change(what, what, before.read[what], after.read[what])
              for what in after.read if what in before.read and before.read[what] != after.read[what]]
    found += [Change("code", name, before.code[name], after.code[name])
              for name in after.code if name in before.code and before.code[name] != after.code[name]]
    return found


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested settings with their keys.

    Example:
        >>> dict(flat({"a": {"b": 1, "c": [2]}, "d": {}}))
        {'a.b': 1, 'a.c': [2], 'd': {}}
    """
    for key, value in tree.items():
        path = f"{prefix}.{key}" if prefix else key
        if isinstance(value, dict) and value:
            yield from flat(value, path)
        else:
            yield path, value


def read_runs(metadata: str) -> list[Run]:
    """All runs that a store knows, oldest first.

    Args:
        metadata: path of the SQLite file.
    """
    if not os.path.exists(metadata) or not os.path.getsize(metadata):
        return []
    return _Reader(metadata).runs()


def open_store(metadata: str) -> Any:
    """ML Metadata's store in an SQLite file."""
    from ml_metadata.metadata_store import metadata_store
    from ml_metadata.proto import metadata_store_pb2

    proto: Any = metadata_store_pb2   # Its names appear at run time.
    config = proto.ConnectionConfig()
    config.sqlite.filename_uri = metadata
    # Not read-only: what a killed run left half written is rolled back on opening.
    config.sqlite.connection_mode = proto.SqliteMetadataSourceConfig.READWRITE
    return metadata_store.MetadataStore(config)


class _Reader:
    """Everything of a store at once: a run has dozens of rows, and a question each would be slower."""

    def __init__(self, metadata: str):
        from ml_metadata.proto import metadata_store_pb2

        self._proto: Any = metadata_store_pb2
        self._store = open_store(metadata)
        executions = self._store.get_executions()
        self._executions = {execution.id: execution for execution in executions}
        self._artifacts = {artifact.id: artifact for artifact in self._store.get_artifacts()}
        events = self._store.get_events_by_execution_ids(list(self._executions)) if executions else []
        self._outputs = [event for event in events if event.type == self._proto.Event.OUTPUT]

    def runs(self) -> list[Run]:
        if "pipeline_run" not in {kind.name for kind in self._store.get_context_types()}:
            return []
        contexts = sorted(self._store.get_contexts_by_type("pipeline_run"), key=lambda context: context.id)
        found = []
        for context in contexts:
            executions = sorted(self._store.get_executions_by_context(context.id), key=lambda one: one.id)
            # A failed step that was tried again within a run is there once, as it ended.
            steps = {step.name: step for step in map(self._step, executions) if step.name != REPORT}
            found.append((_time(context.create_time_since_epoch), list(steps.values())))
        return [Run(number, began, steps) for number, (began, steps) in enumerate(found, start=1) if steps]

    def _step(self, execution: Any) -> Step:
        values = {name: value_of(value) for name, value in execution.custom_properties.items()}
        began = execution.create_time_since_epoch
        states = self._proto.Execution
        known: dict[int, State] = {states.COMPLETE: "done", states.CACHED: "cached", states.RUNNING: "running",
                                   states.NEW: "running"}
        state = known.get(execution.last_known_state, "failed")
        made = [event for event in self._outputs if event.execution_id == execution.id]
        outputs = {artifact.key: artifact for artifact in map(self._artifact, made)}
        return Step(
            name=execution.type.rpartition(".")[2], execution=execution.id, state=state, began=_time(began),
            seconds=0.0 if state == "cached" else (execution.last_update_time_since_epoch - began) / 1000,
            parameters={name: value for name, value in values.items() if name != REASON and not name.startswith("__")},
            outputs=outputs, reason=str(values.get(REASON, "")),
            maker=self._maker([event.artifact_id for event in made]) if state == "cached" else None)

    def _artifact(self, event: Any) -> Artifact:
        artifact = self._artifacts[event.artifact_id]
        key = next((step.key for step in event.path.steps if step.HasField("key")), artifact.type)
        properties = {name: value_of(value) for kind in (artifact.properties, artifact.custom_properties)
                      for name, value in kind.items()}
        return Artifact(key, artifact.type, artifact.uri, properties)

    def _maker(self, artifacts: Sequence[int]) -> tuple[int, datetime.datetime, float] | None:
        """The execution that an artifact from the cache was made by."""
        makers = (self._executions[event.execution_id] for event in self._outputs if event.artifact_id in artifacts)
        made = next((one for one in makers if one.last_known_state == self._proto.Execution.COMPLETE), None)
        if made is None:
            return None
        began, ended = made.create_time_since_epoch, made.last_update_time_since_epoch
        return made.id, _time(began), (ended - began) / 1000


def _time(milliseconds: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(milliseconds / 1000)


def value_of(value: Any) -> Any:
    """What a property of ML Metadata holds."""
    kind = value.WhichOneof("value")
    return getattr(value, kind) if kind else None


def write_reason(metadata: str, step: str, reason: str) -> None:
    """Writes down why a step failed, for histories to come.

    Args:
        metadata: path of the SQLite file.
        step: name of the component; if its newest execution did not fail, nothing is written.
        reason: a sentence.
    """
    store = open_store(metadata)
    executions = [one for one in store.get_executions() if one.type.rpartition(".")[2] == step]
    newest = max(executions, key=lambda one: one.id, default=None)
    if newest is not None and newest.last_known_state == newest.FAILED:
        newest.custom_properties[REASON].string_value = reason
        store.put_executions([newest])


def folder_bytes(folder: str) -> int | None:
    """Size of all files below a folder or URI; none if it is not there, or on a file system that is not known here."""
    if not is_uri(folder):
        return sum(os.path.getsize(os.path.join(place, name)) for place, _, names in os.walk(folder)
                   for name in names) if os.path.isdir(folder) else None
    import tensorflow as tf  # Takes seconds, which the history of local runs need not wait for.

    try:
        return sum(tf.io.gfile.stat(os.path.join(place, name)).length for place, _, names in tf.io.gfile.walk(folder)
                   for name in names) if tf.io.gfile.isdir(folder) else None
    except tf.errors.OpError:
        return None


def total_bytes(artifacts: Iterable[Artifact]) -> int:
    """Sum of the sizes that are known."""
    return sum(artifact.bytes or 0 for artifact in artifacts)
