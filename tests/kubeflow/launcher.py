"""Runs a compiled pipeline task by task as Kubeflow's driver and launcher do, on this machine.

Follows `backend/src/v2` of github.com/kubeflow/pipelines: `driver/driver.go` (URIs of outputs, the added logs),
`component/launcher_v2.go` (downloads, `{{$}}`, outputs read back, uploads, in which empty folders get lost),
`metadata/converter.go` (numbers come back as they went, types do not), `cacheutils/cache.go` (what the cache goes by).
Every task is a process of its own in an empty folder, which sees the artifacts that it reads and no others. The one
difference: paths lie under a folder of the test and not under `/s3`, which `customPath` says, as it may in Kubeflow.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

CODE = Path(__file__).resolve().parents[2]
SESSION = '{"Provider":"s3","Params":{"fromEnv":"false","secretName":"mlpipeline-minio-artifact"}}'


class TaskFailed(Exception):
    """A container ended with another status than 0.

    Attributes:
        task: its name.
        line: the last one that it printed, which Kubeflow's pages show.
    """

    def __init__(self, task: str, output: str):
        self.task, self.line = task, (output.strip().splitlines() or [""])[-1]
        super().__init__(f"{task}: {output}")


@dataclass
class Finished:
    """What a task left behind.

    Attributes:
        artifacts: by key, as ML Metadata keeps them: `name` (a number), `uri`, `metadata`.
        parameters: by name.
        cached: whether it was taken from the cache.
        output: what the container printed.
    """

    artifacts: dict[str, dict[str, Any]] = field(default_factory=dict)
    parameters: dict[str, Any] = field(default_factory=dict)
    cached: bool = False
    output: str = ""


class Cluster:
    """Runs pipelines, and remembers what they made.

    Args:
        folder: empty; the store, and a folder for each task.
    """

    def __init__(self, folder: Path):
        self._folder, self._store = folder, folder / "store"
        self._artifacts, self._cache, self._imported = 0, dict[str, Finished](), dict[str, dict[str, Any]]()

    def run(self, file: Path) -> dict[str, Finished]:
        """Runs a compiled pipeline.

        Returns:
            Task → what came of it, in the order in which they ran.

        Raises:
            TaskFailed: a container failed; what does not depend on it is not run either.
        """
        spec = next(yaml.safe_load_all(file.read_text("utf-8")))
        root = f"{spec.get('defaultPipelineRoot', 's3://default/root')}/{spec['pipelineInfo']['name']}/{uuid.uuid4()}"
        waiting, done = dict(spec["root"]["dag"]["tasks"]), dict[str, Finished]()
        while waiting:
            name = next(name for name, task in waiting.items() if set(task.get("dependentTasks", ())) <= done.keys())
            done[name] = self._run_task(name, waiting.pop(name), spec, root, done)
        return done

    def path(self, uri: str) -> Path:
        """Where the store has what a URI names."""
        return self._store / uri.partition("://")[2]

    def _run_task(self, name: str, task: Mapping[str, Any], spec: Mapping[str, Any], root: str,
                  done: Mapping[str, Finished]) -> Finished:
        component = spec["components"][task["componentRef"]["name"]]
        executor = spec["deploymentSpec"]["executors"][component["executorLabel"]]
        if "importer" in executor:
            key, = component["outputDefinitions"]["artifacts"]
            uri = executor["importer"]["artifactUri"]["constant"]
            if uri not in self._imported:   # Else ML Metadata finds the one that was imported before.
                self._imported[uri] = self._recorded(uri, {})
            return Finished({key: self._imported[uri]})
        inputs = _inputs(task, done)
        outputs = _outputs(component, f"{root}/{name}/{uuid.uuid4()}")
        key = _cache_key(inputs, outputs, executor["container"])
        if task["cachingOptions"].get("enableCache") and key in self._cache:
            return Finished(self._cache[key].artifacts, self._cache[key].parameters, cached=True)
        finished = self._launch(name, executor["container"], inputs, outputs)
        self._cache[key] = finished
        return finished

    def _launch(self, name: str, container: Mapping[str, Any], inputs: dict[str, Any], outputs: dict[str, Any]
                ) -> Finished:
        pod = self._folder / "pod"   # Every one sees the same paths, and nothing of those before it.
        shutil.rmtree(pod, ignore_errors=True)
        current, disk = pod / "current", pod / "disk"
        for folder in (current, disk, pod / "tmp"):
            folder.mkdir(parents=True)
        for artifact in _every(inputs):
            artifact["customPath"] = self._download(artifact["uri"], disk)
        for artifact in _every(outputs):
            path = disk / artifact["uri"].partition("://")[2]
            path.parent.mkdir(parents=True, exist_ok=True)
            artifact["customPath"] = str(path)
        message = json.dumps({"inputs": inputs, "outputs": outputs | {
            "outputFile": str(disk / outputs.pop("root") / "output_metadata.json")}})
        words = [word.replace("{{$}}", message) for word in (*container["command"], *container.get("args", ()))]
        environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(pod / "tmp"),
                       "TMPDIR": str(pod / "tmp"), "PYTHONPATH": str(CODE), "TF_CPP_MIN_LOG_LEVEL": "2",
                       **{one["name"]: one["value"] for one in container.get("env", ())}}
        ended = subprocess.run(words, cwd=current, env=environment, text=True, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT)
        if ended.returncode:
            raise TaskFailed(name, ended.stdout)
        assert not list(current.iterdir()), f"{name} wrote into its working directory"
        answer = Path(json.loads(message)["outputs"]["outputFile"])
        told = json.loads(answer.read_text()) if answer.exists() else {}
        artifacts = {}
        for key, value in outputs["artifacts"].items():
            artifact = value["artifacts"][0]
            merged, = told.get("artifacts", {}).get(key, {"artifacts": [{}]})["artifacts"]
            uri = merged.get("uri") or artifact["uri"]
            extra = uri.removeprefix(artifact["uri"])   # A component may say that its artifact is one file of it.
            self._upload(Path(artifact["customPath"] + extra), uri)
            artifacts[key] = self._recorded(uri, merged.get("metadata", {}))
        return Finished(artifacts, told.get("parameterValues", {}), output=ended.stdout)

    def _recorded(self, uri: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """An artifact as ML Metadata gives it back: a number for a name, no type, and properties of Kubeflow's own."""
        self._artifacts += 1
        return {"name": str(self._artifacts), "uri": uri, "type": {"instanceSchema": ""},
                "metadata": {**metadata, "display_name": "a name", "store_session_info": SESSION}}

    def _download(self, uri: str, disk: Path) -> str:
        source, target = self.path(uri), disk / uri.partition("://")[2]
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        elif source.exists():
            shutil.copy(source, target)
        return str(target)

    def _upload(self, source: Path, uri: str) -> None:
        """Files only: a store has no folders, hence none that are empty."""
        files = [source] if source.is_file() else [path for path in source.rglob("*") if path.is_file()]
        for file in files:
            target = self.path(uri) / file.relative_to(source) if source.is_dir() else self.path(uri)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, target)


def _inputs(task: Mapping[str, Any], done: Mapping[str, Finished]) -> dict[str, Any]:
    given = task.get("inputs", {})
    parameters = {}
    for key, source in given.get("parameters", {}).items():
        if "runtimeValue" in source:
            parameters[key] = source["runtimeValue"]["constant"]
        else:
            output = source["taskOutputParameter"]
            parameters[key] = done[output["producerTask"]].parameters[output["outputParameterKey"]]
    artifacts = {}
    for key, source in given.get("artifacts", {}).items():
        output = source["taskOutputArtifact"]
        artifacts[key] = {"artifacts": [dict(done[output["producerTask"]].artifacts[output["outputArtifactKey"]])]}
    return {"parameterValues": parameters, "artifacts": artifacts}


def _outputs(component: Mapping[str, Any], root: str) -> dict[str, Any]:
    types = {key: one["artifactType"] for key, one in
             component.get("outputDefinitions", {}).get("artifacts", {}).items()}
    types["executor-logs"] = {"schemaTitle": "system.Artifact"}
    return {"root": root.partition("://")[2], "artifacts": {
        key: {"artifacts": [{"name": key, "uri": f"{root}/{key}", "type": kind}]} for key, kind in types.items()}}


def _every(side: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [artifact for value in side["artifacts"].values() for artifact in value["artifacts"]]


def _cache_key(inputs: Mapping[str, Any], outputs: Mapping[str, Any], container: Mapping[str, Any]) -> str:
    """Numbers of artifacts, parameters, names of outputs, image and command: not what the artifacts hold."""
    names = {key: [one["name"] for one in value["artifacts"]] for key, value in inputs["artifacts"].items()}
    parts = [names, inputs["parameterValues"], sorted(outputs["artifacts"]), container["image"], container["command"],
             container.get("args")]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
