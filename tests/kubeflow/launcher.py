"""Runs a compiled pipeline task by task as Kubeflow's driver and launcher do, on this machine.

Follows `backend/src/v2` of github.com/kubeflow/pipelines: `driver/driver.go` (URIs of outputs, the added logs),
`component/launcher_v2.go` (downloads, `{{$}}`, outputs read back, uploads, in which empty folders get lost, and the log
as an artifact that has the number of the attempt), `metadata/client.go` and `metadata/converter.go` (properties that
Kubeflow adds, numbers that come back as they went, types that do not), `cacheutils/cache.go` (what the cache goes by).
Every task is a process of its own in an empty folder, which sees the artifacts that it reads and no others. The one
difference: paths lie under a folder of the test and not under `/s3` and `/tmp/kfp`, which the message says, as it may
in Kubeflow.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import uuid
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.kubeflow.warm import Start, forks_of, start_fresh

CODE = Path(__file__).resolve().parents[2]
LOGS = "executor-logs"
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
        fresh: whether each task starts from nothing, as in a cluster; else they are forks of one process that has
            imported what they import, which saves most of the time.
    """

    def __init__(self, folder: Path, fresh: bool = False):
        self._folder, self._store, self._fresh = folder, folder / "store", fresh
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
        with nullcontext(start_fresh) if self._fresh else forks_of(_modules(spec)) as start:
            while waiting:
                name = next(name for name, task in waiting.items()
                            if set(task.get("dependentTasks", ())) <= done.keys())
                done[name] = self._run_task(name, waiting.pop(name), spec, root, done, start)
        return done

    def path(self, uri: str) -> Path:
        """Where the store has what a URI names."""
        return self._store / uri.partition("://")[2]

    def _run_task(self, name: str, task: Mapping[str, Any], spec: Mapping[str, Any], root: str,
                  done: Mapping[str, Finished], start: Start) -> Finished:
        component = spec["components"][task["componentRef"]["name"]]
        executor = spec["deploymentSpec"]["executors"][component["executorLabel"]]
        if "importer" in executor:
            key, = component["outputDefinitions"]["artifacts"]
            uri = executor["importer"]["artifactUri"]["constant"]
            if uri not in self._imported:   # Else ML Metadata finds the one that was imported before.
                self._imported[uri] = self._recorded(uri, {"store_session_info": SESSION})
            return Finished({key: self._imported[uri]})
        inputs = _inputs(task, done)
        outputs = _outputs(component.get("outputDefinitions", {}), f"{root}/{name}/{uuid.uuid4()}")
        key = _cache_key(inputs, outputs, executor["container"])
        if task["cachingOptions"].get("enableCache") and key in self._cache:
            return Finished(self._cache[key].artifacts, self._cache[key].parameters, cached=True)
        finished = self._launch(name, executor["container"], inputs, outputs, start)
        self._cache[key] = finished
        return finished

    def _launch(self, name: str, container: Mapping[str, Any], inputs: dict[str, Any], outputs: dict[str, Any],
                start: Start) -> Finished:
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
        for parameter in outputs["parameters"].values():
            path = pod / parameter["outputFile"].lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            parameter["outputFile"] = str(path)
        answer = disk / outputs.pop("root") / "output_metadata.json"
        message = json.dumps({"inputs": inputs, "outputs": outputs | {"outputFile": str(answer)}})
        words = [word.replace("{{$}}", message) for word in (*container["command"], *container.get("args", ()))]
        environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(pod / "tmp"),
                       "TMPDIR": str(pod / "tmp"), "PYTHONPATH": str(CODE), "TF_CPP_MIN_LOG_LEVEL": "2",
                       **{one["name"]: one["value"] for one in container.get("env", ())}}
        log = Path(outputs["artifacts"][LOGS]["artifacts"][0]["customPath"])
        status = start(words, current, environment, log)
        output = log.read_text("utf-8", errors="replace")
        if status:
            raise TaskFailed(name, output)
        assert not list(current.iterdir()), f"{name} wrote into its working directory"
        told = json.loads(answer.read_text()) if answer.exists() else {}
        artifacts = {}
        for key, value in outputs["artifacts"].items():
            artifact = value["artifacts"][0]
            merged, = told.get("artifacts", {}).get(key, {"artifacts": [{}]})["artifacts"]
            uri = merged.get("uri") or artifact["uri"]
            extra = uri.removeprefix(artifact["uri"])   # A component may say that its artifact is one file of it.
            self._upload(Path(artifact["customPath"] + extra), uri)
            added = {"display_name": key, "store_session_info": SESSION}
            artifacts[key] = self._recorded(uri, added | merged.get("metadata", {}))
        answers = told.get("parameterValues", {})
        parameters = {key: answers[key] if key in answers else Path(one["outputFile"]).read_text()
                      for key, one in outputs["parameters"].items()}
        return Finished(artifacts, parameters, output=output)

    def _recorded(self, uri: str, metadata: Mapping[str, Any]) -> dict[str, Any]:
        """An artifact as ML Metadata gives it back: a number for a name, and no type."""
        self._artifacts += 1
        return {"name": str(self._artifacts), "uri": uri, "type": {"instanceSchema": ""}, "metadata": dict(metadata)}

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


def _modules(spec: Mapping[str, Any]) -> list[str]:
    """What containers import, as their commands name it."""
    found = set()
    for executor in spec["deploymentSpec"]["executors"].values():
        words = executor.get("container", {}).get("command", ())
        found |= {words[words.index("-m") + 1]} if words else set()
        found |= {words[words.index("--component") + 1].rpartition(".")[0]} if "--component" in words else set()
    return sorted(found)


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


def _outputs(definitions: Mapping[str, Any], root: str) -> dict[str, Any]:
    types = {key: one["artifactType"] for key, one in definitions.get("artifacts", {}).items()}
    places = {key: (f"{root}/{key}", kind) for key, kind in types.items()}
    places[LOGS] = (f"{root}/{LOGS}-0", {"schemaTitle": "system.Artifact"})   # Of the first attempt.
    return {"root": root.partition("://")[2],
            "parameters": {key: {"outputFile": f"/tmp/kfp/outputs/{key}"} for key in definitions.get("parameters", ())},
            "artifacts": {key: {"artifacts": [{"name": key, "uri": uri, "type": kind}]}
                          for key, (uri, kind) in places.items()}}


def _every(side: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [artifact for value in side["artifacts"].values() for artifact in value["artifacts"]]


def _cache_key(inputs: Mapping[str, Any], outputs: Mapping[str, Any], container: Mapping[str, Any]) -> str:
    """Numbers of artifacts, parameters, names of outputs, image and command: not what the artifacts hold."""
    names = {key: [one["name"] for one in value["artifacts"]] for key, value in inputs["artifacts"].items()}
    parts = [names, inputs["parameterValues"], sorted(outputs["artifacts"]), container["image"], container["command"],
             container.get("args")]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
