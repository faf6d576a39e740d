"""Runs a TFX pipeline on this machine, node by node, and tells a listener how each is doing.

Follows `tfx/orchestration/local/local_dag_runner.py`, which runs nodes in the same way but silently: what is added
is each node's state, the reason for taking it from the cache, its time and memory, and its error as one sentence.
"""

from __future__ import annotations

import contextlib
import datetime
import difflib
import functools
import json
import os
import re
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from ml_metadata.proto import metadata_store_pb2
from tfx.dsl.compiler import compiler, constants
from tfx.dsl.io import fileio
from tfx.orchestration import metadata
from tfx.orchestration.local import runner_utils
from tfx.orchestration.portable import launcher, runtime_parameter_utils
from tfx.proto.orchestration import executable_spec_pb2

from components.beam_runner import run_beam_in_this_process
from components.code_fingerprint import executor_fingerprint
from components.run_record import write_reason
from modules.errors import TextrailError, is_interruption
from pipelines.beam_operator import BeamOperator
from pipelines.beam_sections import Beam
from pipelines.failures import gist, told

State = Literal["waiting", "running", "cached", "done", "skipped", "failed", "interrupted"]

_proto: Any = metadata_store_pb2   # its names appear at run time


@dataclass
class Node:
    """One component of a run.

    Attributes:
        id: its name in the pipeline.
        state: how it is doing.
        note: why it is cached, skipped or failed; otherwise empty.
        started: when it began, seconds of `time.monotonic()`.
        seconds: how long it took, once it ended.
        peak_mb: the process's peak memory while it ran, megabytes (10⁶ bytes), once it ended; 0 if not known.
    """

    id: str
    state: State = "waiting"
    note: str = ""
    started: float = 0.0
    seconds: float = 0.0
    peak_mb: int = 0


class Listener(Protocol):
    """Whoever wants to know."""

    def begin(self, nodes: Sequence[Node]) -> None:
        """All nodes in the order in which they will run."""

    def changed(self, node: Node) -> None:
        """A node's state is another one now."""


def run(pipeline: Any, listener: Listener, log: Path, force: Iterable[str] = (), fresh: bool = False,
        beam: Mapping[str, Any] | None = None) -> list[Node]:
    """Runs a pipeline until its end, the first failure or Ctrl-C.

    Args:
        pipeline: a tfx `Pipeline`, with a metadata connection.
        listener: is told every change of state.
        log: the file that standard error and logging go to; failure sentences name it.
        force: ids of nodes to run although cached.
        fresh: run all nodes although cached.
        beam: the section `beam` of the settings: where the work of Beam's components is done; none is this process.

    Returns:
        All nodes; those after a failed or interrupted one are still waiting.

    Raises:
        TextrailError: `force` names an unknown node.
    """
    run_beam_in_this_process()
    graph = compiler.Compiler().compile(pipeline)
    steps = [node.pipeline_node for node in graph.nodes]
    _switch_cache_off(steps, list(force), fresh)
    runtime_parameter_utils.substitute_runtime_parameter(
        graph, {constants.PIPELINE_RUN_ID_PARAMETER_NAME: datetime.datetime.now().isoformat()})
    deployment = runner_utils.extract_local_deployment_config(graph)
    _show_code_to_cache(steps, deployment)
    connection = getattr(deployment.metadata_connection_config,
                         deployment.metadata_connection_config.WhichOneof("connection_config"))
    root = pipeline.pipeline_info.pipeline_root
    _put_away_what_was_killed(connection, root)
    operator: Any = functools.partial(BeamOperator, beam=beam or Beam().model_dump(), root=root)
    nodes = [Node(step.node_info.id) for step in steps]
    listener.begin(nodes)
    for step, node in zip(steps, nodes, strict=True):
        _reset_peak_memory()
        node.state, node.started = "running", time.monotonic()
        listener.changed(node)
        try:
            execution = launcher.Launcher(
                pipeline_node=step, mlmd_connection=metadata.Metadata(connection), pipeline_info=graph.pipeline_info,
                pipeline_runtime_spec=graph.runtime_spec,
                executor_spec=runner_utils.extract_executor_spec(deployment, node.id),
                custom_driver_spec=runner_utils.extract_custom_driver_spec(deployment, node.id),
                custom_executor_operators={executable_spec_pb2.BeamExecutableSpec: operator}).launch()
            node.state, node.note = _outcome(connection, execution)
        except (KeyboardInterrupt, Exception) as error:
            if is_interruption(error):
                node.state, node.note = "interrupted", "stopped by Ctrl-C or a signal; the next run takes up here"
            else:
                log_traceback(error)
                node.state, node.note = "failed", sentence(error, log)
        node.seconds, node.peak_mb = time.monotonic() - node.started, _peak_memory()
        if node.state == "failed":
            write_reason(connection.sqlite.filename_uri, node.id, node.note)
        listener.changed(node)
        if node.state in ("failed", "interrupted"):
            break
    return nodes


def _put_away_what_was_killed(connection: Any, root: str) -> None:
    """Deletes what components had begun to make when a run's process was killed.

    No other run of this name is under way (`Workspace.lock`), so what ML Metadata has as running is not. A cluster's
    job that was still under way has been ended (`preflight.check`), or finds no folder to write into and fails.
    """
    with metadata.Metadata(connection) as handle:
        killed = [execution for execution in handle.store.get_executions()
                  if execution.last_known_state == _proto.Execution.RUNNING]
        for execution in killed:
            for folder in fileio.glob(os.path.join(root, "*", "*", str(execution.id))):
                fileio.rmtree(folder)
            execution.last_known_state = _proto.Execution.FAILED
        handle.store.put_executions(killed)


def _switch_cache_off(steps: Sequence[Any], force: Sequence[str], fresh: bool) -> None:
    ids = [step.node_info.id for step in steps]
    for name in force:
        if name not in ids:
            close = difflib.get_close_matches(name.lower(), [known.lower() for known in ids], n=1)
            guess = next((f"Did you mean {known}?" for known in ids if close and known.lower() == close[0]),
                         "Name one of those.")
            raise TextrailError(f"--force with one of {', '.join(ids)}", name, guess)
    for step in steps:
        if fresh or step.node_info.id in force:
            step.execution_options.caching_options.enable_cache = False


def _show_code_to_cache(steps: Sequence[Any], deployment: Any) -> None:
    """Gives every node that this project's code executes the fingerprint of that code as a parameter.

    TFX's cache goes by all parameters, and executors leave alone those they do not know.
    """
    for step in steps:
        spec = runner_utils.extract_executor_spec(deployment, step.node_info.id)
        spec = getattr(spec, "python_executor_spec", spec)  # A Beam component's has the class's inside.
        if code := executor_fingerprint(getattr(spec, "class_path", "")):
            step.parameters.parameters["executor_code"].field_value.string_value = code


def _outcome(connection: Any, info: Any) -> tuple[State, str]:
    """State and note of a node whose launch returned without raising, which is not to say that it ran."""
    if not info or not info.execution_id:
        return "skipped", "what it reads was not made in this run"
    with metadata.Metadata(connection) as handle:
        execution, = handle.store.get_executions_by_id([info.execution_id])
        if execution.last_known_state == _proto.Execution.CACHED:
            return "cached", _cached_because(handle.store, execution)
        if execution.last_known_state == _proto.Execution.COMPLETE:
            return "done", ""
        # Failures before the executor starts, while inputs are resolved, are recorded and not raised.
        result = execution.custom_properties["__execution_result__"].string_value
        message = json.loads(result).get("resultMessage", "") if result else ""
        return "failed", _last_line(message) or "TFX could not prepare it; the log says more"


def _cached_because(store: Any, execution: Any) -> str:
    outputs = [event.artifact_id for event in store.get_events_by_execution_ids([execution.id])
               if event.type == _proto.Event.OUTPUT]
    users = {event.execution_id for event in store.get_events_by_artifact_ids(outputs)
             if event.type == _proto.Event.OUTPUT} if outputs else set()
    makers = [user for user in store.get_executions_by_id(users)
              if user.last_known_state == _proto.Execution.COMPLETE]
    if not makers:   # A node without outputs leaves no trace of which one made them.
        return "same inputs, settings and code as before"
    when = datetime.datetime.fromtimestamp(makers[0].create_time_since_epoch / 1000)
    return f"same inputs, settings and code as execution {makers[0].id} of {when:%Y-%m-%d %H:%M}"


def sentence(error: BaseException, log: Path) -> str:
    """What a user reads of an exception.

    Args:
        error: any exception; a TextrailError may be in its chain, or as text in a message, as Beam leaves it.
        log: the file with the traceback.

    Returns:
        The TextrailError's message alone; for other exceptions their gist, and where the log is.
    """
    return told(error) or f"{gist(error).rstrip('.')}. The log has the traceback: {log}"


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def log_traceback(error: BaseException) -> None:
    """Writes the whole traceback to standard error, which the log file receives while a run lasts."""
    traceback.print_exception(type(error), error, error.__traceback__)


def _reset_peak_memory() -> None:
    """Starts the count of the process's peak memory anew, where the kernel allows it."""
    with contextlib.suppress(OSError):   # The peak is then that of the whole run so far.
        Path("/proc/self/clear_refs").write_text("5")


def _peak_memory() -> int:
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    match = re.search(r"VmHWM:\s+(\d+) kB", status)
    return int(match[1]) * 1024 // 10**6 if match else 0
