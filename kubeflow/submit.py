"""Has a cluster run what was compiled, through kfp's client, and follows it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubeflow.compile import write
from modules.errors import TextrailError

ENDED = {"SUCCEEDED", "FAILED", "ERROR", "CANCELED", "SKIPPED"}
WAIT_SECONDS = 5.0
REASON = "textrail: "   # Begins the last line of a container that failed.
TEMPLATES = ("retry-system-container-impl", "system-container-impl")   # Of Kubeflow's, for what runs a container.


@dataclass(frozen=True)
class Target:
    """Where a run goes.

    Attributes:
        host: URL of Kubeflow Pipelines' API.
        namespace: of a profile; none on a Kubeflow of one user.
        token: file with a bearer token; none where none is asked for.
        experiment: that the run is filed under.
        service_account: that pods run as; none is the cluster's choice.
    """

    host: str
    namespace: str | None
    token: str | None
    experiment: str
    service_account: str | None

    def client(self) -> Any:
        """kfp's client.

        Raises:
            TextrailError: nobody answers, or it is not Kubeflow Pipelines.
        """
        import kfp

        token = Path(self.token).read_text("utf-8").strip() if self.token else None
        try:
            client = kfp.Client(host=self.host, existing_token=token, namespace=self.namespace or "kubeflow")
            client.get_kfp_healthz()
        except Exception as error:
            raise TextrailError(f"Kubeflow Pipelines' API at {self.host}", f"none ({_last_line(error)})",
                                "Correct --host. From outside the cluster: kubectl port-forward -n kubeflow "
                                "svc/ml-pipeline 8888:8888, and --host http://localhost:8888.") from error
        return client


def submit(documents: Sequence[Mapping[str, Any]], run: str, target: Target, cron: str, wait: bool,
           tell: Callable[[str], None]) -> str:
    """Starts a run, or has it started again and again.

    Args:
        documents: what was compiled.
        run: its name.
        target: where it goes.
        cron: when it recurs, in six fields; "" starts it once, now.
        wait: whether to follow it to its end.
        tell: takes lines for the terminal.

    Returns:
        Why it failed; "" if it did not, as far as it was followed.

    Raises:
        TextrailError: the cluster does not answer or refuses the pipeline.
    """
    client = target.client()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{run}.yaml"
        write(documents, file)
        try:
            experiment = client.create_experiment(target.experiment, namespace=target.namespace)
            if cron:
                made = client.create_recurring_run(
                    experiment.experiment_id, run, cron_expression=cron, pipeline_package_path=str(file),
                    service_account=target.service_account)
                tell(f"recurring run {made.recurring_run_id}: {cron}")
                return ""
            started = client.create_run_from_pipeline_package(
                str(file), run_name=f"{run} {time.strftime('%Y-%m-%d %H:%M:%S')}", namespace=target.namespace,
                experiment_name=target.experiment, service_account=target.service_account)
        except Exception as error:
            raise TextrailError(f"a pipeline that {target.host} takes", f"its refusal: {_last_line(error)}",
                                "Nothing was started.") from error
    tell(f"run {started.run_id}: {target.host}/#/runs/details/{started.run_id}")
    return follow(client, target, started.run_id, set(documents[0]["root"]["dag"]["tasks"]), tell) if wait else ""


def follow(client: Any, target: Target, run_id: str, names: set[str], tell: Callable[[str], None]) -> str:
    """Tells each change of a component's state until the run ends.

    Returns:
        The failed component and the last sentence that it said; "" of a run that succeeded.
    """
    seen: dict[str, str] = {}
    while True:
        run = client.get_run(run_id)
        details = (run.run_details and run.run_details.task_details) or []
        for detail in details:
            name, state = detail.display_name, detail.state
            if name in names and state and seen.get(name) != state:
                seen[name] = state
                tell(f"{name:20} {state.lower()}{_minutes(detail)}")
        if run.state in ENDED:
            break
        time.sleep(WAIT_SECONDS)
    if run.state == "SUCCEEDED":
        return ""
    failed = next((name for name, state in seen.items() if state in ("FAILED", "ERROR")), "the run")
    reason = next(filter(None, (_reason(client, run_id, detail) for detail in details)), "")
    return f"{failed} {run.state.lower()}: {reason or f'see {target.host}/#/runs/details/{run_id}'}"


def _minutes(detail: Any) -> str:
    if not (detail.start_time and detail.end_time):
        return ""
    return f" {(detail.end_time - detail.start_time).total_seconds() / 60:.1f} min"


def _reason(client: Any, run_id: str, detail: Any) -> str:
    """Our sentence at the end of a failed pod's log, if it is one of our pods and the log is still there."""
    if detail.state not in ("FAILED", "ERROR"):
        return ""
    for pod in (name for child in detail.child_tasks or () if child.pod_name for name in _pods(child.pod_name)):
        try:
            answer = client._run_api.api_client.call_api(
                f"/apis/v1alpha1/runs/{run_id}/nodes/{pod}/log", "GET", response_type="str",
                _return_http_data_only=True, auth_settings=["Bearer"])
        except Exception:   # A log that is gone must not hide that the run failed.
            continue
        lines = [line for line in str(answer).splitlines() if line.startswith(REASON)]
        if lines:
            return lines[-1].removeprefix(REASON)
    return ""


def _pods(node: str) -> list[str]:
    """Pods of an Argo node: the API tells nodes, `WORKFLOW-HASH`, whose pods are `WORKFLOW-TEMPLATE-HASH`.

    Example: ["reviews-x7-retry-system-container-impl-31", "reviews-x7-system-container-impl-31"] of "reviews-x7-31".
    """
    workflow, _, number = node.rpartition("-")
    return [f"{workflow}-{template}-{number}" for template in TEMPLATES]


def _last_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
