"""The settings of a run on Kubeflow: what the pods of its components get."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from pipelines.section import Section

# What only some components get unless the settings say otherwise.
OWN: Mapping[str, Mapping[str, Any]] = {"Trainer": {"gpus": 1, "retries": 2}}


# Folders that containers have already: of Kubeflow's launcher, of the image, and of every Linux.
TAKEN = ("/gcs", "/s3", "/minio", "/kfp-launcher", "/tmp/kfp_outputs", "/.local", "/.cache", "/.config",
         "/opt/textrail", "/opt/venv", "/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc", "/proc", "/sys", "/dev",
         "/run", "/var/run")


def is_in(path: str, folder: str) -> bool:
    """Whether an absolute path is a folder or lies in it."""
    return f"{path}/".startswith(f"{folder.rstrip('/')}/")


def _free(path: str) -> str:
    """A path where a volume can be mounted, in its shortest form."""
    plain = posixpath.normpath(f"/{path.lstrip('/')}")
    if not path.startswith("/") or re.search(r"[:\s]|\{\{", path):
        raise ValueError(f"an absolute path without colons and spaces, such as /mnt/models, received {path!r}")
    for taken in TAKEN:
        if is_in(plain, taken) or is_in(taken, plain):
            raise ValueError(f"a folder of its own, such as /mnt/models, received {path!r}, which would hide {taken}, "
                             "or lie in it")
    return plain


def _matching(pattern: str, what: str) -> Callable[[str], str]:
    """Refuses what Kubernetes would refuse only when a pod is to start."""
    def check(text: str) -> str:
        if not re.fullmatch(pattern, text, re.ASCII):
            raise ValueError(f"{what}, received {text!r}")
        return text

    return check


LABEL = r"[A-Za-z0-9]([-\w.]{0,61}[A-Za-z0-9])?"
DOMAIN = r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?"
KEY = "a name as Kubernetes has them for labels and resources, such as disk or nvidia.com/gpu"

Name = Annotated[str, AfterValidator(_matching(
    DOMAIN, "a Kubernetes name of lower-case letters, digits, '-' and '.'"))]
# Kubeflow names the pod's volume after the claim, and such names are shorter.
Claim = Annotated[str, AfterValidator(_matching(
    r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", "a claim's name of at most 63 lower-case letters, digits and '-', since "
    "Kubeflow names a volume after it"))]
Variable = Annotated[str, AfterValidator(_matching(
    r"[A-Za-z_]\w*", "the name of an environment variable, of letters, digits and '_'"))]
SecretKey = Annotated[str, AfterValidator(_matching(
    r"[-\w.]{1,253}", "a key of a Secret, of letters, digits, '-', '_' and '.'"))]
Key = Annotated[str, AfterValidator(_matching(rf"({DOMAIN}/)?{LABEL}", KEY))]
TaintKey = Annotated[str, AfterValidator(_matching(rf"(({DOMAIN}/)?{LABEL})?", KEY))]
Value = Annotated[str, AfterValidator(_matching(
    rf"({LABEL})?", "a label's value of at most 63 letters, digits, '-', '_' and '.'"))]
# Argo fills such places in; what is meant for the container would not reach it.
Text = Annotated[str, AfterValidator(_matching(
    r"(?s)(?!.*\{\{).*", "a text without '{{', which Argo takes for a place to fill in"))]


class Toleration(Section):
    key: TaintKey = Field("", description="Of the taint; empty stands for all.")
    operator: Literal["Exists", "Equal"] = Field("Exists", description="`Equal` also compares the value.")
    value: Value = Field("", description="Of the taint.")
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = Field("", description="Empty is all of them.")
    seconds: int | None = Field(None, description="`NoExecute`: how long the pod may stay.")

    @model_validator(mode="after")
    def _can_be(self) -> Toleration:
        if self.operator == "Exists" and self.value:
            raise ValueError(f"no value with operator Exists, received {self.value!r}; say `operator: Equal`")
        if self.operator == "Equal" and not self.key:
            raise ValueError("a key with operator Equal, received none")
        if self.seconds is not None and self.effect != "NoExecute":
            raise ValueError(f"seconds with effect NoExecute alone, received {self.effect or 'no effect'}")
        return self


class Pod(Section):
    cpus: float = Field(1, ge=0.01, description="Cores that are set aside.")
    memory_gb: float = Field(4, ge=0.01, description="Memory that is set aside and not exceeded, in 10⁹ bytes.")
    gpus: int = Field(0, ge=0, description="Accelerators. The Trainer has 1 unless `components.Trainer.gpus` says "
                      "otherwise.")
    gpu: Key = Field("nvidia.com/gpu", description="Kind of accelerator, as the cluster names the resource.")
    node_selector: dict[Key, Value] = Field(default_factory=dict, description="Labels of the nodes that will do.")
    tolerations: list[Toleration] = Field(
        default_factory=list, description="Taints of nodes that will do: `[{key: gpu, operator: Exists or Equal, "
        "value: …, effect: NoSchedule, seconds: …}]`.")
    retries: int = Field(0, ge=0, description="Further attempts of a pod that failed; of one that was deleted, see "
                         "[Kubeflow](kubeflow.md#resources). The Trainer has 2 unless `components.Trainer.retries` "
                         "says otherwise; gates fail again, however often asked.")
    retry_seconds: int = Field(30, ge=1, description="Wait before the first further attempt.")
    retry_factor: int = Field(2, ge=1, description="Each wait is so many times the one before it.")
    retry_most_seconds: int = Field(
        7 * 24 * 3600, ge=1, description="So long after the first attempt began, another is neither begun nor let run "
        "on: longer than the component takes.")
    timeout_seconds: int = Field(0, ge=0, description="After which a pod is ended; 0 never.")
    cache: bool = Field(True, description="Whether what was made of the same inputs, settings, code and image is taken "
                        "again.")


class Volume(Section):
    claim: Claim = Field(..., description="Of a PersistentVolumeClaim in the run's namespace.")
    path: Annotated[str, AfterValidator(_free)] = Field(..., description="Where containers see it.")


class Secret(Section):
    name: Name = Field(..., description="Of a Secret in the run's namespace.")
    keys: dict[Variable, SecretKey] = Field(..., min_length=1, description="Environment variable → key in the Secret.")


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
    environment: dict[Variable, Text] = Field(
        default_factory=dict, description="Environment variables of every container.")
    pull_secrets: list[Name] = Field(default_factory=list, description="Secrets that the image is pulled with.")
    pull_policy: Literal["", "Always", "IfNotPresent", "Never"] = Field(
        "", description="When the image is pulled; empty leaves it to Kubernetes.")
    checkpoints: str = Field(
        "", description="Folder of a volume for the checkpoints of a training in progress, so that another attempt "
        "takes up where a lost pod stopped; empty begins anew.")

    @model_validator(mode="after")
    def _is_said_once(self) -> Kubeflow:
        for what, count in Counter(_named(self)).items():
            if count > 1:
                raise ValueError(f"{what} once, received it {count} times")
        return self

    def pod(self, component: str) -> Pod:
        """What the pod of a component gets: its own keys, before those that only some components have, before all's."""
        own = self.components.get(component)
        written = {key: getattr(own, key) for key in own.model_fields_set} if own else {}
        return self.pods.model_copy(update=dict(OWN.get(component, {})) | written)


def _named(kubeflow: Kubeflow) -> Iterator[str]:
    """What a pod can have once only."""
    for volume in kubeflow.volumes:
        yield f"the claim {volume.claim} among the volumes"
        yield f"the path {volume.path} among the volumes"
    for variable in (*kubeflow.environment, *(variable for secret in kubeflow.secrets for variable in secret.keys)):
        yield f"the variable {variable} among environment and secrets"
