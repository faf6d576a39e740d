"""The settings of a run on Kubeflow: what the pods of its components get."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from pipelines.section import Section

# What only some components get unless the settings say otherwise.
OWN: Mapping[str, Mapping[str, Any]] = {"Trainer": {"gpus": 1, "retries": 2}}


def _absolute(path: str) -> str:
    if not path.startswith("/") or path.rstrip("/") in ("", "/s3", "/minio", "/gcs", "/tmp", "/kfp-launcher"):
        raise ValueError(f"an absolute path that is not Kubeflow's own, received {path!r}")
    return path.rstrip("/")


def _name(name: str) -> str:
    """Refuses what Kubernetes would refuse as an object's name."""
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?", name):
        raise ValueError(f"a Kubernetes name of lower-case letters, digits, '-' and '.', received {name!r}")
    return name


Name = Annotated[str, AfterValidator(_name)]


class Toleration(Section):
    key: str = Field("", description="Of the taint; empty stands for all.")
    operator: Literal["Exists", "Equal"] = Field("Exists", description="`Equal` also compares the value.")
    value: str = Field("", description="Of the taint.")
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = Field("", description="Empty is all of them.")
    seconds: int | None = Field(None, description="`NoExecute`: how long the pod may stay.")


class Pod(Section):
    cpus: float = Field(1, gt=0, description="Cores that are set aside.")
    memory_gb: float = Field(4, gt=0, description="Memory that is set aside and not exceeded, in 10⁹ bytes.")
    gpus: int = Field(0, ge=0, description="Accelerators. The Trainer has 1 unless `components.Trainer.gpus` says "
                      "otherwise.")
    gpu: str = Field("nvidia.com/gpu", description="Kind of accelerator, as the cluster names the resource.")
    node_selector: dict[str, str] = Field(default_factory=dict, description="Labels of the nodes that will do.")
    tolerations: list[Toleration] = Field(
        default_factory=list, description="Taints of nodes that will do: `[{key: gpu, operator: Exists or Equal, "
        "value: …, effect: NoSchedule, seconds: …}]`.")
    retries: int = Field(0, ge=0, description="Further attempts of a pod that failed or was lost. The Trainer has 2 "
                         "unless `components.Trainer.retries` says otherwise; gates fail again, however often asked.")
    retry_seconds: int = Field(30, ge=1, description="Wait before the first further attempt.")
    retry_factor: int = Field(2, ge=1, description="Each wait is so many times the one before it.")
    retry_most_seconds: int = Field(
        7 * 24 * 3600, ge=1, description="So long after the first attempt began, another is neither begun nor let run "
        "on: longer than the component takes.")
    timeout_seconds: int = Field(0, ge=0, description="After which a pod is ended; 0 never.")
    cache: bool = Field(True, description="Whether what was made of the same inputs, settings, code and image is taken "
                        "again.")


class Volume(Section):
    claim: Name = Field(..., description="Of a PersistentVolumeClaim in the run's namespace.")
    path: Annotated[str, AfterValidator(_absolute)] = Field(..., description="Where containers see it.")


class Secret(Section):
    name: Name = Field(..., description="Of a Secret in the run's namespace.")
    keys: dict[str, str] = Field(..., min_length=1, description="Environment variable → key in the Secret.")


class Kubeflow(Section):
    pods: Pod = Field(default_factory=Pod, description="What the pod of every component gets.")
    components: dict[str, Pod] = Field(
        default_factory=dict, description="Component → what its pod gets instead, with the keys of `pods`: "
        "`{Trainer: {gpus: 0}}`.")
    volumes: list[Volume] = Field(default_factory=list, description="Volumes that every container sees: "
                                  "`[{claim: models, path: /mnt/models}]`.")
    secrets: list[Secret] = Field(
        default_factory=list, description="Secrets that every container sees as environment variables: `[{name: hub, "
        "keys: {HF_TOKEN: token}}]`.")
    environment: dict[str, str] = Field(default_factory=dict, description="Environment variables of every container.")
    pull_secrets: list[Name] = Field(default_factory=list, description="Secrets that the image is pulled with.")
    pull_policy: Literal["", "Always", "IfNotPresent", "Never"] = Field(
        "", description="When the image is pulled; empty leaves it to Kubernetes.")
    checkpoints: str = Field(
        "", description="Folder of a volume for the checkpoints of a training in progress, so that another attempt "
        "takes up where a lost pod stopped; empty begins anew.")

    def pod(self, component: str) -> Pod:
        """What the pod of a component gets: its own keys, before those that only some components have, before all's."""
        own = self.components.get(component)
        written = {key: getattr(own, key) for key in own.model_fields_set} if own else {}
        return self.pods.model_copy(update=dict(OWN.get(component, {})) | written)
