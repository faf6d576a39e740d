"""Has a cluster run what was compiled, through kfp's client, and follows it."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from kubeflow.api import Api, NoAnswer
from modules.errors import TextrailError

ENDED = {"SUCCEEDED", "FAILED", "ERROR", "CANCELED", "SKIPPED"}
BROKEN = {"FAILED", "ERROR"}
RUN = "run"   # What is waited for where it is not one of its tasks, which have ids.
REASON = "textrail: "   # Begins the last line of our container that failed.
# Of Kubeflow's, for what runs in a pod of its own: containers first, then what prepares them.
TEMPLATES = ("retry-system-container-impl", "system-container-impl", "system-container-driver", "system-importer",
             "system-dag-driver")
LAUNCHERS = re.compile(r"^[EF]\d{4} .*?\] (.*)$")   # A line of Kubeflow's launcher or driver that tells an error.
NO_PROJECT = re.compile(r"No module named '?kubeflow|executable file not found")
CRON = re.compile(r"@(yearly|annually|monthly|weekly|daily|midnight|hourly|every \S+)|([\w*?/,-]+ +){5}[\w*?/,-]+")
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Order:
    """What is asked of the cluster.

    Attributes:
        name: of the run.
        experiment: that it is filed under.
        service_account: that pods run as; none is the cluster's choice.
        cron: when it recurs, in six fields; "" starts it once, now.

    Raises:
        TextrailError: of `cron`, Kubeflow would make something else.
    """

    name: str
    experiment: str = "textrail"
    service_account: str | None = None
    cron: str = ""

    def __post_init__(self) -> None:
        if self.cron and not CRON.fullmatch(self.cron.strip()):
            fix = f"Put the seconds first: '0 {self.cron.strip()}'." if len(self.cron.split()) == 5 else "Correct it."
            raise TextrailError("--cron as six fields, seconds first, such as '0 0 3 * * *', or as @daily",
                                repr(self.cron), fix)


@dataclass(frozen=True)
class Patience:
    """How long is waited for what, in seconds.

    Attributes:
        poll: between two questions.
        lost: until an API that does not answer is given up.
        pending: until something that has not begun is told of.
    """

    poll: float = 5
    lost: float = 300
    pending: float = 180


def submit(documents: Sequence[Mapping[str, Any]], order: Order, api: Api, tell: Tell) -> str:
    """Starts a run, or has it started again and again.

    Args:
        documents: what was compiled.
        order: how it is to run.
        api: where.
        tell: takes lines for the terminal.

    Returns:
        The run's id; "" of a recurring one.

    Raises:
        TextrailError: the cluster does not answer or refuses the pipeline, or has a recurring run of that name.
    """
    from kubeflow.compile import write

    client = api.client()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pipeline.yaml"
        write(documents, file)
        given = {"pipeline_package_path": str(file), "service_account": order.service_account}
        try:
            experiment = client.create_experiment(order.experiment, namespace=api.namespace or None).experiment_id
            if order.cron:
                _check_is_new(client, experiment, order)
                made = client.create_recurring_run(experiment, order.name, cron_expression=order.cron.strip(),
                                                   no_catchup=True, **given)
                tell(f"recurring run {order.name} ({made.recurring_run_id}): {order.cron}, in the cluster's time zone")
                return ""
            started = client.run_pipeline(experiment, f"{order.name} {time.strftime('%Y-%m-%d %H:%M:%S')}", **given)
        except TextrailError:
            raise
        except Exception as error:
            raise TextrailError(f"a pipeline that {api.host} takes", f"its refusal: {_refusal(error)}",
                                "Nothing was started.") from error
    tell(f"run {started.run_id}: {api.page(started.run_id)}")
    return started.run_id


def _check_is_new(client: Any, experiment: str, order: Order) -> None:
    """Refuses a second schedule of the same name: two runs that push to one place get in each other's way."""
    same = {"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": order.name}]}
    found = client.list_recurring_runs(experiment_id=experiment, page_size=1, filter=json.dumps(same)).recurring_runs
    if found:
        raise TextrailError(f"no recurring run {order.name} in the experiment {order.experiment} yet",
                            found[0].recurring_run_id,
                            "Delete that one in Kubeflow's pages, or give this one another --name.")


def _refusal(error: BaseException) -> str:
    """What the API said; kfp's client wraps it in headers."""
    try:
        return json.loads(getattr(error, "body", ""))["message"]
    except (ValueError, TypeError, KeyError):
        return (str(error).strip().splitlines() or [type(error).__name__])[-1]


def follow(api: Api, run_id: str, tell: Tell, patience: Patience = Patience()) -> str:
    """Tells each change of a component's state until the run ends.

    Args:
        api: where it runs.
        run_id: whose.
        tell: takes lines for the terminal.
        patience: how long is waited for what.

    Returns:
        The failed component and the last sentence that it said; "" of a run that succeeded.

    Raises:
        TextrailError: there is no such run, or the API answers no more.
        KeyboardInterrupt: somebody has seen enough; the run goes on.
    """
    again = f"textrail kubeflow follow {run_id} --host {api.host}"
    seen: dict[str, str] = {}
    waiting = _Waiting(api, run_id, tell, patience)
    try:
        while True:
            run = _run(api, run_id, again, tell, patience)
            details = run.get("run_details", {}).get("task_details", [])
            for detail in filter(_is_component, details):
                name, state = detail["display_name"], detail["state"]
                if seen.get(name) != state:
                    seen[name] = state
                    tell(f"{name:20} {state.lower()}{_minutes(detail)}")
            state = run.get("state", "")
            if state in ENDED:
                break
            waiting.look(state, details)
            time.sleep(patience.poll)
    except KeyboardInterrupt:
        tell(f"the run goes on: {api.page(run_id)}, or {again}")
        raise
    if state == "SUCCEEDED":
        return ""
    failed = next((name for name, state in seen.items() if state in BROKEN), "the run")
    reason = _reason(api, run_id, failed, details) or (
        f"it left no log, as a pod does that was deleted or lost with its node; see {api.page(run_id)}. Started again, "
        "the run takes what is done from the cache")
    return f"{failed} {state.lower()}: {reason}"


def _run(api: Api, run_id: str, again: str, tell: Tell, patience: Patience) -> dict[str, Any]:
    """What the API says of a run; a connection that is lost may come back."""
    lost = 0.0
    while True:
        try:
            run = api.ask(f"/apis/v2beta1/runs/{run_id}")
            if lost:
                tell(f"{api.host} answers again")
            return run
        except NoAnswer as error:
            if error.status in (400, 404):
                raise TextrailError(f"a run {run_id} at {api.host}", str(error),
                                    "Kubeflow's pages list them.") from None
            if not lost:
                lost = time.monotonic()
                tell(f"no answer from {api.host} ({error}); the run goes on, and is asked after for "
                     f"{patience.lost / 60:.0f} min more")
            if time.monotonic() - lost >= patience.lost:
                raise TextrailError(f"{api.host} to answer within {patience.lost / 60:.0f} min", f"nothing ({error})",
                                    f"The run goes on. Once the API answers: {again}.") from None
            time.sleep(patience.poll)


class _Waiting:
    """Tells once of each thing that does not begin, and where to look why."""

    def __init__(self, api: Api, run_id: str, tell: Tell, patience: Patience):
        self._tell, self._patience = tell, patience
        self._pods = f"kubectl describe pods -n {api.place} -l pipeline/runid={run_id}"
        self._since: dict[str, float] = {}

    def look(self, state: str, details: Sequence[Mapping[str, Any]]) -> None:
        now = time.monotonic()
        pending = {detail["task_id"] for detail in details if detail.get("state") == "PENDING"}
        if state in ("", "PENDING"):
            pending.add(RUN)
        self._since = {key: self._since.get(key, now) for key in pending}
        for key, since in self._since.items():
            if now - since >= self._patience.pending:
                self._since[key] = float("inf")
                self._tell(f"{self._what(key, details)} {self._pods}")

    def _what(self, key: str, details: Sequence[Mapping[str, Any]]) -> str:
        minutes = f"{self._patience.pending / 60:.0f} min"
        if key == RUN:
            return (f"the run has been pending for {minutes}: Kubeflow has not begun it, or its persistence agent "
                    "(deployment ml-pipeline-persistenceagent), which tells of it, is down.")
        begun = sorted(detail["display_name"] for detail in filter(_is_component, details)
                       if detail["state"] in ("PENDING", "RUNNING"))
        return (f"a pod of {' or '.join(begun) or 'the run'} has been pending for {minutes}: no node has the cores, "
                "the memory or the GPU that it asks for, its image cannot be pulled, or a Secret or claim is missing.")


def _is_component(detail: Mapping[str, Any]) -> bool:
    """Whether what the API tells of is one of the pipeline's tasks, not a node that Kubeflow needs around them."""
    name = detail.get("display_name", "")
    workflow = {_workflow(pod) for pod in _children(detail)}
    return bool(name and detail.get("state")) and not (
        name == "root" or name.endswith("-driver") or name.partition("(")[0] == "executor" or name in workflow)


def _children(detail: Mapping[str, Any]) -> list[str]:
    return [child["pod_name"] for child in detail.get("child_tasks", []) if child.get("pod_name")]


def _workflow(node: str) -> str:
    return node.rpartition("-")[0]


def _minutes(detail: Mapping[str, Any]) -> str:
    """How long a component took; one that has not ended yet ends in a year long past."""
    try:
        start, end = (datetime.fromisoformat(detail[key].replace("Z", "+00:00")) for key in ("start_time", "end_time"))
    except (KeyError, ValueError):
        return ""
    return f" {(end - start).total_seconds() / 60:.1f} min" if detail["state"] in ENDED and end > start else ""


def _reason(api: Api, run_id: str, failed: str, details: Sequence[Mapping[str, Any]]) -> str:
    """What the log of a failed pod ends with, if the log is still there."""
    broken = [detail for detail in details if detail.get("state") in BROKEN]
    # The API tells a node's children: a component's own pod, or those of its attempts, which are the executor's.
    broken.sort(key=lambda detail: (detail.get("display_name") != failed, detail.get("display_name") != "executor"))
    pods = [pod for detail in broken for node in reversed(_children(detail)) for pod in _pods(node)]
    for log in itertools.chain(_logs(api, run_id, pods), _logs_of_cluster(api.place, pods)):
        if reason := next(_told(log), ""):
            return reason
    return ""


def _logs(api: Api, run_id: str, pods: Sequence[str]) -> Iterator[str]:
    """Logs of pods, as far as the API has them."""
    for pod in pods:
        with contextlib.suppress(NoAnswer):   # A log that is gone must not hide that the run failed.
            yield api.read(f"/apis/v1alpha1/runs/{run_id}/nodes/{pod}/log")


def _logs_of_cluster(namespace: str, pods: Sequence[str]) -> Iterator[str]:
    """The same as kubectl has them: where there are no profiles, the API looks for pods outside of any namespace."""
    from kubernetes import client, config

    try:
        config.load_kube_config(os.environ.get("KUBECONFIG"))
    except Exception:   # Nobody said that this machine knows the cluster.
        return
    core = client.CoreV1Api()
    for pod in pods:
        try:
            answer = core.read_namespaced_pod_log(pod, namespace, container="main", tail_lines=1000,
                                                  _preload_content=False, _request_timeout=10)
        except client.ApiException:
            continue
        except Exception:
            return
        yield answer.data.decode("utf-8", "replace")


def _told(log: str) -> Iterator[str]:
    """What a log says of why it ended, the best first."""
    lines = [line for line in log.splitlines() if not line.startswith('{"error_message"')]
    for line in reversed(lines):
        if line.startswith(REASON):
            yield line.removeprefix(REASON)
    for line in lines:
        if NO_PROJECT.search(line):
            yield ("the image is not one of kubeflow/Dockerfile, or --image names another: "
                   f"{found.group(1) if (found := LAUNCHERS.search(line)) else line}")
    for line in reversed(lines):
        if found := LAUNCHERS.search(line):
            yield found.group(1)


def _pods(node: str) -> list[str]:
    """Pods of an Argo node: the API tells nodes, `WORKFLOW-HASH`, whose pods are `WORKFLOW-TEMPLATE-HASH`.

    Example: "reviews-x7-retry-system-container-impl-31" is the first of "reviews-x7-31".
    """
    return [f"{_workflow(node)}-{template}-{node.rpartition('-')[2]}" for template in TEMPLATES]
