"""Refuses what open-source Kubeflow Pipelines does not run, before a cluster is asked.

What it runs is read from its source (github.com/kubeflow/pipelines, `backend/src/v2`): the compiler to Argo's workflows
knows containers and importers, and nothing else; the driver ignores lifecycle hooks; names become Argo's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from kubeflow.executor_input import FOLDERS, LOGS
from modules.errors import TextrailError

PIPELINE = re.compile(r"(?!.{64})[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
NAMES = "of up to 63 letters a to z, digits, '-' and '.', with a letter or digit at either end"
TASK = re.compile(r"[A-Za-z0-9][-A-Za-z0-9]{0,62}")    # Argo names a node after each.
KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")      # Of inputs and outputs, which are Python's names to kfp.
# As registries have it: github.com/distribution/reference.
IMAGE = re.compile(r"([a-zA-Z0-9][a-zA-Z0-9.-]*(:[0-9]+)?/)?[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"
                   r"(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*(:[a-zA-Z0-9_][\w.-]{0,127})?(@[a-z0-9]+:[0-9a-fA-F]{32,})?",
                   re.ASCII)
BUCKET = re.compile(r"[a-zA-Z0-9][\w.-]*", re.ASCII)
STORES = ", ".join(FOLDERS)
KINDS: Mapping[str, tuple[type, ...]] = {
    "STRING": (str,), "BOOLEAN": (bool,), "NUMBER_INTEGER": (int,), "NUMBER_DOUBLE": (int, float), "LIST": (list,),
    "STRUCT": (dict,)}
BYTES = 120 << 10   # An argument of a process may have 128 kB on Linux, and the ExecutorInput is one.


def flaw(uri: str, is_folder: bool = False) -> str:
    """What is wrong with the URI of something in a store that Kubeflow reaches; "" if nothing is.

    Args:
        uri: e.g. s3://texts/reviews.csv.
        is_folder: whether a whole bucket will do.
    """
    scheme, mark, place = uri.partition("://")
    bucket, _, key = place.partition("/")
    parts = key.rstrip("/").split("/")
    if scheme + mark not in FOLDERS:
        return f"none of {STORES}"
    if not BUCKET.fullmatch(bucket):
        return "without a bucket's name"
    if parts == [""]:
        return "" if is_folder else "a bucket, and nothing in it"
    if {"", ".", ".."} & {*parts}:
        return "with a part that is empty, '.' or '..'"
    if found := re.search(r"[*?\[#]|\{\{|\s$", uri):
        return f"with {found.group()!r}"
    return ""


def check(documents: Sequence[Mapping[str, Any]]) -> None:
    """Checks a compiled pipeline.

    Args:
        documents: of the YAML file: the pipeline spec and, if any, the platform spec.

    Raises:
        TextrailError: Kubeflow would refuse or misread it; tells of every component what is wrong with it.
    """
    spec, *platforms = documents
    problems = [*_pipeline(spec), *_tasks(spec)]
    for name, executor in _executors(spec).items():
        problems += (f"{name.removeprefix('exec-')}: {problem}" for problem in _executor(executor))
    for platform in platforms:
        unknown = _platform_executors(platform).keys() - _executors(spec).keys()
        problems += (f"{name}: the platform spec has settings for it, the pipeline has no such executor"
                     for name in sorted(unknown))
    if not problems:
        problems = [*_against_schema(spec, platforms)]
    if problems:
        lines = "".join(f"\n  {problem}" for problem in problems)
        raise TextrailError("a pipeline that open-source Kubeflow runs", f"{lines}\n", "Nothing was written.")


def _executors(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    return spec.get("deploymentSpec", {}).get("executors", {})


def _platform_executors(platform: Mapping[str, Any]) -> Mapping[str, Any]:
    kubernetes = platform.get("platforms", {}).get("kubernetes", {})
    return kubernetes.get("deploymentSpec", {}).get("executors", {})


def _pipeline(spec: Mapping[str, Any]) -> Iterator[str]:
    name, root = spec.get("pipelineInfo", {}).get("name", ""), spec.get("defaultPipelineRoot")
    if spec.get("schemaVersion") != "2.1.0":
        yield f"the pipeline: schemaVersion {spec.get('schemaVersion')!r}, Kubeflow takes 2.1.0 only"
    if not PIPELINE.fullmatch(name):
        yield f"the pipeline: the name {name!r} is not {NAMES}; rename the run"
    if root is not None and (problem := flaw(root, is_folder=True)):
        yield f"the pipeline: defaultPipelineRoot {root!r} ({problem})"


def _tasks(spec: Mapping[str, Any]) -> Iterator[str]:
    components, root = spec.get("components", {}), spec.get("root", {})
    tasks = root.get("dag", {}).get("tasks", {})
    if not tasks:
        yield "the pipeline: it has no tasks"
    for name, task in tasks.items():
        reference = task.get("componentRef", {}).get("name", "")
        component = components.get(reference)
        if component is None:
            yield f"{name}: there is no component {reference!r}"
            continue
        found = [*_names(name, task, component), *_component(spec, component), *_inputs(task, tasks, components)]
        yield from (f"{name}: {problem}" for problem in found)


def _names(name: str, task: Mapping[str, Any], component: Mapping[str, Any]) -> Iterator[str]:
    if not TASK.fullmatch(name) or name == "root":
        yield "a task's name is up to 63 letters, digits and '-', and not 'root'"
    for unknown in task.keys() & {"artifactIterator", "parameterIterator", "triggerPolicy", "iteratorPolicy"}:
        yield f"{unknown}, which no pipeline of ours needs, is not checked here"
    for side in ("inputDefinitions", "outputDefinitions"):
        for kind in ("artifacts", "parameters"):
            for key in component.get(side, {}).get(kind, {}):
                if not KEY.fullmatch(key):
                    yield f"Kubeflow takes letters, digits and '_' in the name of an input or output, not {key!r}"
    if LOGS in component.get("outputDefinitions", {}).get("artifacts", {}):
        yield f"the output {LOGS} is Kubeflow's own"


def _component(spec: Mapping[str, Any], component: Mapping[str, Any]) -> Iterator[str]:
    label = component.get("executorLabel")
    if "dag" in component:
        yield "a pipeline in a pipeline, which no run of ours needs, is not checked here"
    elif label not in _executors(spec):
        yield f"there is no executor {label!r}"
    for side in ("inputDefinitions", "outputDefinitions"):
        for key, parameter in component.get(side, {}).get("parameters", {}).items():
            if parameter.get("parameterType") not in KINDS:
                yield f"the parameter {key} has no parameterType, without which Kubeflow loses it"
        for key, artifact in component.get(side, {}).get("artifacts", {}).items():
            if not artifact.get("artifactType", {}).keys() & {"schemaTitle", "instanceSchema"}:
                yield f"the artifact {key} has no type"


def _executor(executor: Mapping[str, Any]) -> Iterator[str]:
    if list(executor) == ["importer"]:
        uri = executor["importer"].get("artifactUri", {}).get("constant", "")
        if problem := flaw(uri):
            yield f"Kubeflow imports files and folders of {STORES}, not {uri!r} ({problem})"
        return
    if list(executor) != ["container"]:
        yield (f"a {' and '.join(executor) or 'missing'} executor; open-source Kubeflow runs containers and importers "
               "only")
        return
    container = executor["container"]
    if not IMAGE.fullmatch(container.get("image", "")):
        yield f"the image {container.get('image', '')!r} is no name of an image"
    if "lifecycle" in container:
        yield "a lifecycle hook (a custom driver), which Kubeflow ignores"
    if not container.get("command"):
        yield "no command, and Kubeflow does not take that of the image"
    if "{{$}}" not in container.get("args", []):
        yield "no {{$}} among its args, so that it is told nothing"


def _inputs(task: Mapping[str, Any], tasks: Mapping[str, Any], components: Mapping[str, Any]) -> Iterator[str]:
    component = components[task["componentRef"]["name"]]
    declared, given = component.get("inputDefinitions", {}), task.get("inputs", {})
    for kind in ("parameters", "artifacts"):
        for key in declared.get(kind, {}).keys() ^ given.get(kind, {}).keys():
            optional = declared.get(kind, {}).get(key, {})
            if not optional.get("isOptional") and "defaultValue" not in optional:
                yield f"the input {key} is {'not given' if optional else 'not one of the component'}"
    size = 0
    for key, source in given.get("parameters", {}).items():
        if "runtimeValue" in source:
            value = source["runtimeValue"].get("constant")
            wanted = declared.get("parameters", {}).get(key, {}).get("parameterType", "STRING")
            size += len(str(value).encode())
            if not isinstance(value, KINDS.get(wanted, (object,))):
                yield f"the parameter {key} is declared {wanted} and has a value of type {type(value).__name__}"
            if "{{" in str(value):
                yield f"the parameter {key} has '{{{{', which Argo and Kubeflow take for a place to fill in"
        else:
            yield from _producer(key, source.get("taskOutputParameter"), "outputParameterKey", "parameters", task,
                                 tasks, components)
    if size > BYTES:
        yield f"its parameters have {size:,} bytes, and a container is told at most {BYTES:,}"
    for key, source in given.get("artifacts", {}).items():
        yield from _producer(key, source.get("taskOutputArtifact"), "outputArtifactKey", "artifacts", task, tasks,
                             components)


def _producer(key: str, source: Mapping[str, Any] | None, field: str, kind: str, task: Mapping[str, Any],
              tasks: Mapping[str, Any], components: Mapping[str, Any]) -> Iterator[str]:
    if not source:
        yield f"the input {key} is no task's output"
        return
    producer, output = source.get("producerTask", ""), source.get(field, "")
    made = components.get(tasks.get(producer, {}).get("componentRef", {}).get("name", ""), {})
    if output not in made.get("outputDefinitions", {}).get(kind, {}):
        yield f"the input {key} is {output!r} of {producer!r}, which makes no such thing"
    elif producer not in task.get("dependentTasks", []):
        yield f"the input {key} is made by {producer}, which is not among dependentTasks: it might run later"


def _against_schema(spec: Mapping[str, Any], platforms: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What Kubeflow's own protobuf schema says of it."""
    try:
        from google.protobuf import json_format
        from kfp.pipeline_spec import pipeline_spec_pb2 as schema
    except ImportError as error:
        raise TextrailError("Kubeflow's schema, of kfp-pipeline-spec", f"an environment without it ({error})",
                            "Install it: `uv sync --extra kubeflow`, or pip install kfp.") from error
    messages = [("the pipeline", spec, schema.PipelineSpec()),
                ("the executors", spec["deploymentSpec"], schema.PipelineDeploymentConfig()),
                *(("the platform spec", platform, schema.PlatformSpec()) for platform in platforms)]
    for what, document, message in messages:
        try:
            json_format.ParseDict(document, message)
        except json_format.ParseError as error:
            yield f"{what} against Kubeflow's schema: {error}"
