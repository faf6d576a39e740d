"""A run as the YAML that Kubeflow Pipelines runs: pipeline spec 2.1, and behind it what only Kubernetes knows.

It is written from the components' own specs. TFX's compiler for Kubeflow aims at Vertex AI, and open-source Kubeflow
refuses or misreads half of what it writes; see docs/kubeflow.md.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import posixpath
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from tfx.dsl.components.base.base_component import BaseComponent

from components.code_fingerprint import executor_fingerprint
from kubeflow import lookup
from kubeflow.checker import IMAGE, NAMES, PIPELINE, check, flaw
from kubeflow.entrypoint import CODE
from kubeflow.executor_input import FOLDERS, IMPORTED
from kubeflow.reach import HOME, brought, in_containers, is_on
from modules.errors import TextrailError
from pipelines.kubeflow_sections import Kubeflow, Pod
from pipelines.sections import Settings
from pipelines.served import Served
from pipelines.shapes import build

# What Kubeflow's pages show of a type; others are plain artifacts. Components know their types by themselves.
TYPES = {"Examples": "system.Dataset", "Model": "system.Model", "PushedModel": "system.Model", "Report": "system.HTML"}
PARAMETER_TYPES = {str: "STRING", bool: "BOOLEAN", int: "NUMBER_INTEGER", float: "NUMBER_DOUBLE"}
FOUND = "textrail-lookup:"   # Begins the parameters that the task Lookup finds.
CHECKPOINTS = "/tmp/checkpoints"


@dataclass(frozen=True)
class Output:
    """What a task makes, be it an artifact or a parameter, as another one reads it."""

    task: str
    key: str


@dataclass
class Task:
    """One task of the pipeline.

    Attributes:
        name: of the task.
        arguments: of its container's command; none of an importer.
        parameters: by name; `Output` stands for what another task finds.
        inputs: artifacts by name.
        outputs: Kubeflow's types of artifacts, by name.
        finds: parameters that it answers with.
        before: further tasks that must be done before.
        imports: URI that an importer brings; "" of a container.
        cached: whether Kubeflow's cache may answer for it.
    """

    name: str
    arguments: Sequence[str] = ()
    parameters: dict[str, Any] = field(default_factory=dict)
    inputs: dict[str, Output] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    finds: Sequence[str] = ()
    before: Sequence[str] = ()
    imports: str = ""
    cached: bool = True

    @property
    def needs(self) -> list[str]:
        """Names of the tasks that must be done before."""
        read = [*self.inputs.values(), *(value for value in self.parameters.values() if isinstance(value, Output))]
        return sorted({*self.before, *(output.task for output in read)})


class Cluster:
    """The `pipelines.place.Place` of a run on Kubeflow: what is looked up, is looked up by the first task.

    Args:
        settings: with paths of containers.
        command: what compiles the run again.
        forced: whether the run's model is to be a new one.
    """

    pipeline_root = "kubeflow"   # TFX wants a word; the pipeline spec has the real one.
    metadata = ""                # No container reads ML Metadata.

    def __init__(self, settings: Settings, command: str, forced: bool):
        self.checkpoints = settings.kubeflow.checkpoints or CHECKPOINTS
        self.pushed = settings.push.destination or ""
        self._command = command
        self.request: dict[str, Any] = {"read": {}, "forced": forced}

    def command(self, settings: Settings) -> str:
        return self._command

    def data(self, data: dict[str, Any]) -> str:
        return self._later("data", data)

    def schema(self, curated: str | None) -> str:
        return self._later("schema", curated)

    def encoder(self, source: str, config: str, preprocessing: str) -> str:
        return self._later("encoder", source, config, preprocessing)

    def served(self, destination: str, code: str, read: Mapping[str, str], reads: Mapping[str, str | None],
               training: Mapping[str, Any]) -> Served:
        self.request |= {"destination": destination, "code": code, "reads": dict(reads)}
        return Served(*(FOUND + key for key in ("recipe", "baseline", "attempt")))

    def _later(self, key: str, *arguments: Any) -> str:
        self.request["read"][key] = arguments
        return FOUND + key

    def lookup(self) -> Task:
        """The task that looks."""
        return Task(lookup.NAME, ["-m", "kubeflow.lookup"], {lookup.REQUEST: json.dumps(self.request, sort_keys=True)},
                    finds=(*self.request["read"], "recipe", "baseline", "attempt"), cached=False)


def compile_run(settings: Settings, run: str, image: str, pipeline_root: str = "", cache: bool = True,
                home: str = HOME) -> list[dict[str, Any]]:
    """Compiles a run.

    Args:
        settings: validated, with absolute paths of this machine.
        run: its name.
        image: of the containers.
        pipeline_root: where artifacts go: a URI, or a folder of a volume; "" leaves it to the cluster.
        cache: false has every task run, and the model be a new one.
        home: the project's folder in the image.

    Returns:
        YAML documents: the pipeline spec and, where anything needs it, the Kubernetes platform spec.

    Raises:
        TextrailError: containers cannot reach what the settings name, or Kubeflow would refuse what comes out.
    """
    name = run.lower().replace("_", "-")
    if not PIPELINE.fullmatch(name):
        raise TextrailError(f"a run whose name Kubeflow takes: {NAMES}", repr(name), "Rename its settings file.")
    if not IMAGE.fullmatch(image):
        raise TextrailError("--image as registries name them, in lower case: REGISTRY/textrail:1", repr(image),
                            "Correct it; docs/kubeflow.md tells how the image is built.")
    settings = in_containers(settings, home)
    root = _checked_root(pipeline_root, settings.kubeflow)
    place = Cluster(settings, shlex.join(["textrail", "kubeflow", "compile", run, "--image", image]), not cache)
    pipeline = build(settings, run, place)
    tasks = [place.lookup(), *map(_task, pipeline.components)]
    _check_components(settings.kubeflow, [task.name for task in tasks])
    tasks = [*_importers(settings, tasks, pipeline_root), *tasks]
    for task in tasks:
        task.cached = task.cached and cache and settings.kubeflow.pod(task.name).cache
    spec = _pipeline_spec(name, tasks, image, settings, root)
    if pipeline_root and not root:
        spec["defaultPipelineRoot"] = pipeline_root.rstrip("/")
    documents = [spec, *_platform_spec(tasks, settings.kubeflow)]
    check(documents)
    return documents


def write(documents: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Writes YAML documents as one file, whole or not at all.

    Raises:
        TextrailError: it cannot be written.
    """
    beside = path.with_name(path.name + ".part")
    try:
        beside.write_text(yaml.safe_dump_all(documents, sort_keys=True, allow_unicode=True, width=120), "utf-8")
        beside.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise TextrailError("a file that can be written", f"{path} ({error.strerror})",
                            "Name another one with --out, in a folder that is there.") from None


def described(documents: Sequence[Mapping[str, Any]], path: Path) -> str:
    """What the terminal shows of a file: its tasks, and what they ask of the cluster."""
    executors = documents[0]["deploymentSpec"]["executors"]
    asked: dict[str, str] = {}
    for name, executor in executors.items():
        if one := executor.get("container", {}).get("resources", {}).get("accelerator"):
            asked[name.removeprefix("exec-")] = f"{one['count']} {one['type']}"
    lines = [f"{path}: {len(executors)} tasks"]
    lines += (f"{name} asks for {what}; a cluster without: --set kubeflow.components.{name}.gpus=0"
              for name, what in asked.items())
    return "\n".join(lines)


def _checked_root(pipeline_root: str, kubeflow: Kubeflow) -> str:
    """The folder of a volume that artifacts go to; "" where they go to a store.

    Raises:
        TextrailError: it is neither of both.
    """
    if is_on(kubeflow, pipeline_root):
        return posixpath.normpath(pipeline_root)
    if pipeline_root and (problem := flaw(pipeline_root, is_folder=True)):
        raise TextrailError(f"--pipeline-root as {', '.join(f'{scheme}BUCKET/FOLDER' for scheme in FOLDERS)}, or a "
                            "folder on one of kubeflow.volumes", f"{pipeline_root} ({problem})",
                            "Leave it out for the cluster's own.")
    return ""


def _check_components(kubeflow: Kubeflow, names: Sequence[str]) -> None:
    for name in kubeflow.components:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1, cutoff=0)[0]
            raise TextrailError(f"kubeflow.components of {', '.join(names)}", name, f"Did you mean {close}?")


def _task(node: BaseComponent) -> Task:
    """A component as a task.

    Raises:
        TextrailError: it has a parameter that Kubeflow has no type for.
    """
    kind = type(node)
    given = {key: value for key, value in node.exec_properties.items() if value is not None}
    for key, value in given.items():
        if type(value) not in PARAMETER_TYPES:
            raise TextrailError(f"parameters of {node.id} that are texts, numbers or truth values",
                                f"{key}, of type {type(value).__name__}", "Give it as JSON.")
    parameters = {key: _found(value) for key, value in given.items()}
    if code := executor_fingerprint(node.executor_spec.class_path):
        parameters[CODE] = code
    inputs = {key: Output(channel.producer_component_id, channel.output_key) for key, channel in node.inputs.items()}
    outputs = {key: TYPES.get(channel.type_name, "system.Artifact") for key, channel in node.outputs.items()}
    path = f"{kind.__module__}.{kind.__qualname__}"
    return Task(node.id, ["-m", "kubeflow.entrypoint", "--component", path], parameters, inputs, outputs,
                before=[upstream.id for upstream in node.upstream_nodes])


def _found(value: Any) -> Any:
    is_found = isinstance(value, str) and value.startswith(FOUND)
    return Output(lookup.NAME, value.removeprefix(FOUND)) if is_found else value


def _importers(settings: Settings, tasks: Sequence[Task], pipeline_root: str) -> Iterator[Task]:
    """Tasks that bring what the settings name by URI; those that read it get it as a further input.

    Whoever reads something has its fingerprint from Lookup; a report only tells of it.

    Raises:
        TextrailError: Kubeflow's launcher would take a URI for one under the pipeline root, and bring nothing.
    """
    root = pipeline_root.rstrip("/")
    for key, uri in brought(settings).items():
        if root and uri.startswith(root) and not uri.startswith(f"{root}/"):
            raise TextrailError(f"{key} under --pipeline-root, or of another beginning than {root}", uri,
                                "Kubeflow would not find it. Give --pipeline-root another folder.")
        name = key.replace(".", "-").replace("_", "-")
        importer = Task(f"import-{name}", imports=uri, outputs={"artifact": "system.Artifact"})
        for task in tasks:
            is_reader = lookup.NAME in (task.name, *task.needs)
            if is_reader and any(uri in value for value in task.parameters.values() if isinstance(value, str)):
                task.inputs[IMPORTED + name.replace("-", "_")] = Output(importer.name, "artifact")
        yield importer


def _pipeline_spec(name: str, tasks: Sequence[Task], image: str, settings: Settings, root: str) -> dict[str, Any]:
    kinds = {(task.name, key): kind for task in tasks for key, kind in task.outputs.items()}
    return {
        "pipelineInfo": {"name": name, "description": settings.description},
        "schemaVersion": "2.1.0",
        "sdkVersion": "textrail",
        "root": {"dag": {"tasks": {task.name: _dag_task(task, settings.kubeflow.pod(task.name)) for task in tasks}}},
        "components": {f"comp-{task.name}": _component(task, kinds) for task in tasks},
        "deploymentSpec": {"executors": {f"exec-{task.name}": _executor(task, image, settings.kubeflow, root)
                                         for task in tasks}},
    }


def _dag_task(task: Task, pod: Pod) -> dict[str, Any]:
    parameters = {key: {"taskOutputParameter": {"producerTask": value.task, "outputParameterKey": value.key}}
                  if isinstance(value, Output) else {"runtimeValue": {"constant": value}}
                  for key, value in task.parameters.items()}
    artifacts = {key: {"taskOutputArtifact": {"producerTask": output.task, "outputArtifactKey": output.key}}
                 for key, output in task.inputs.items()}
    inputs = _without_empty({"parameters": parameters, "artifacts": artifacts})
    retries = {"maxRetryCount": pod.retries, "backoffDuration": f"{pod.retry_seconds}s",
               "backoffFactor": pod.retry_factor, "backoffMaxDuration": f"{pod.retry_most_seconds}s"}
    return _without_empty({
        "taskInfo": {"name": task.name},
        "componentRef": {"name": f"comp-{task.name}"},
        "dependentTasks": task.needs,
        "inputs": inputs,
        "cachingOptions": {"enableCache": True} if task.cached else {},
        "retryPolicy": retries if pod.retries and not task.imports else {},
    }) | ({} if task.cached else {"cachingOptions": {}})


def _component(task: Task, kinds: Mapping[tuple[str, str], str]) -> dict[str, Any]:
    parameters = {key: {"parameterType": "STRING" if isinstance(value, Output) else PARAMETER_TYPES[type(value)]}
                  for key, value in task.parameters.items()}
    artifacts = {key: {"artifactType": _type(kinds[output.task, output.key])} for key, output in task.inputs.items()}
    outputs = {"artifacts": {key: {"artifactType": _type(kind)} for key, kind in task.outputs.items()},
               "parameters": {key: {"parameterType": "STRING"} for key in task.finds}}
    return _without_empty({
        "executorLabel": f"exec-{task.name}",
        "inputDefinitions": _without_empty({"parameters": parameters, "artifacts": artifacts}),
        "outputDefinitions": _without_empty(outputs),
    })


def _type(title: str) -> dict[str, str]:
    return {"schemaTitle": title, "schemaVersion": "0.0.1"}


def _executor(task: Task, image: str, kubeflow: Kubeflow, root: str) -> dict[str, Any]:
    if task.imports:
        return {"importer": {"artifactUri": {"constant": task.imports}, "typeSchema": _type("system.Artifact")}}
    pod = kubeflow.pod(task.name)
    # Kubeflow's older fields, in cores and 10⁹ bytes, since both older and newer backends read them.
    resources: dict[str, Any] = {"cpuRequest": pod.cpus, "memoryRequest": pod.memory_gb, "memoryLimit": pod.memory_gb}
    if pod.gpus:
        resources["accelerator"] = {"type": pod.gpu, "count": pod.gpus}
    return {"container": _without_empty({
        "image": image,
        "command": ["python", *task.arguments],
        "args": [*(["--root", root] if root else []), "{{$}}"],
        "env": [{"name": name, "value": value} for name, value in kubeflow.environment.items()],
        "resources": resources,
    })}


def _platform_spec(tasks: Sequence[Task], kubeflow: Kubeflow) -> Iterator[dict[str, Any]]:
    executors = {f"exec-{task.name}": config for task in tasks if not task.imports
                 and (config := _kubernetes(kubeflow, kubeflow.pod(task.name)))}
    if executors:
        yield {"platforms": {"kubernetes": {"deploymentSpec": {"executors": executors}}}}


def _kubernetes(kubeflow: Kubeflow, pod: Pod) -> dict[str, Any]:
    """A KubernetesExecutorConfig, as `kubernetes_executor_config.proto` of Kubeflow has it."""
    tolerations = [_without_empty({"key": one.key, "operator": one.operator, "value": one.value, "effect": one.effect,
                                   "tolerationSeconds": one.seconds}) for one in pod.tolerations]
    secrets = [{"secretName": secret.name, "optional": False,
                "keyToEnv": [{"envVar": variable, "secretKey": key} for variable, key in secret.keys.items()]}
               for secret in kubeflow.secrets]
    return _without_empty({
        "pvcMount": [{"constant": volume.claim, "mountPath": volume.path} for volume in kubeflow.volumes],
        "secretAsEnv": secrets,
        "imagePullSecret": [{"secretName": name} for name in kubeflow.pull_secrets],
        "imagePullPolicy": kubeflow.pull_policy,
        "nodeSelector": _without_empty({"labels": pod.node_selector}),
        "tolerations": tolerations,
        "activeDeadlineSeconds": pod.timeout_seconds,
    })


def _without_empty(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves out what is not said."""
    return {key: value for key, value in mapping.items() if value not in (None, "", 0, [], {})}
