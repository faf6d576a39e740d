"""The shipped runs on a real Kubeflow Pipelines, from the image to what the pushed models answer: `make kubeflow-e2e`.

It needs a cluster and an image builder, and says in a sentence which of these is missing:
    KFP_HOST         Kubeflow Pipelines' API, e.g. http://localhost:8888
    IMAGE_BUILDER    command that is given TAG, CONTEXT and DOCKERFILE, and prints last how the cluster calls the image
    STORE            folder of the cluster's object store for data and models, e.g. minio://mlpipeline/e2e
    STORE_IN_PODS    the store's address as pods see it, e.g. http://minio-service.kubeflow:9000
    STORE_SECRET     Secret with `accesskey` and `secretkey`, e.g. mlpipeline-minio-artifact
    KUBECONFIG       for kubectl, which looks at workflows and deletes a pod; its namespace is the runs'
    CLAIM            PersistentVolumeClaim that user 1000 may write to, for the checkpoints of the pod that is deleted
and, for this machine's own way to the store, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL_S3.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import yaml

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
CODE = Path(__file__).resolve().parents[2]
NEEDED = ("KFP_HOST", "IMAGE_BUILDER", "STORE", "STORE_IN_PODS", "STORE_SECRET", "KUBECONFIG", "CLAIM",
          "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL_S3")
IN_IMAGE = ("pyproject.toml", "uv.lock", ".dockerignore", "data", "modules", "components", "pipelines", "kubeflow")

# In a pod of the image, hence with the same TensorFlow on the same machine: the local runner trains with the same seed,
# and both models answer in a fresh process that knows nothing of this project.
COMPARE = '''
import json, subprocess, sys
run, destination, rows = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
import components.object_store, fsspec
from components.versions import served_version
done = subprocess.run([sys.executable, "-m", "pipelines.cli", "run", run, "--workspace", "/tmp/workspace"])
assert done.returncode == 0, "the local run failed"
here = f"/tmp/workspace/{run}/pushed"
local = f"{here}/{served_version(here)}"
uri = f"{destination}/{served_version(destination)}"
fsspec.filesystem("s3").get(uri.partition("://")[2], "/tmp/pushed", recursive=True)
ask = """
import json, sys
import tensorflow as tf, tensorflow_text
model = tf.saved_model.load(sys.argv[1])
found = model.signatures["serving_default"](**{k: tf.constant(v) for k, v in json.loads(sys.argv[2]).items()})
print(json.dumps({k: [x.decode() if isinstance(x, bytes) else x for x in v.numpy().flatten().tolist()]
                  for k, v in found.items()}))
"""
for name, folder in (("local", local), ("pushed", "/tmp/pushed")):
    out = subprocess.run([sys.executable, "-I", "-c", ask, folder, json.dumps(rows)], text=True, capture_output=True)
    print(f"answers of {name}: " + (out.stdout.strip().splitlines() or [out.stderr])[-1], flush=True)
'''

ROWS: Mapping[str, Mapping[str, list[str]]] = {
    "reviews": {"review": ["We came for a quick lunch and stayed all afternoon, the food was that good.",
                           "The zip broke on day two and nobody answers my emails."]},
    "paraphrases": {"first": ["We left before noon."], "second": ["We had gone by midday."]},
    "phrasebook": {"pt": ["o gato preto dorme em cima da cadeira velha"]},
    "essays": {"text": ["He walked [MASK] the road and into the [MASK]."]},
}


class Said(NamedTuple):
    """A command that ended: its exit status, and what it printed."""

    status: int
    text: str


class Cluster:
    """The cluster that the environment variables name, with an image of this code."""

    def __init__(self) -> None:
        self.store = os.environ["STORE"].rstrip("/")
        self.image = self._build()

    def _build(self) -> str:
        """The tag follows from the content, so that Kubeflow's cache holds as long as the code does."""
        known = subprocess.run(["git", "ls-files", "-z", *IN_IMAGE], cwd=CODE, text=True, stdout=subprocess.PIPE,
                               check=True).stdout
        files = [CODE / name for name in known.split("\0") if name and (CODE / name).is_file()]
        digest = hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in files)).hexdigest()
        tag = f"textrail:{digest[:12]}"
        with tempfile.TemporaryDirectory() as folder:   # What git does not know stays out.
            for path in files:
                target = Path(folder) / path.relative_to(CODE)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, target)
            words = [*os.environ["IMAGE_BUILDER"].split(), tag, folder, f"{folder}/kubeflow/Dockerfile"]
            began = time.monotonic()
            done = subprocess.run(words, text=True, stdout=subprocess.PIPE, check=True)
        image = done.stdout.strip().splitlines()[-1]
        print(f"image {image}: {time.monotonic() - began:.0f} s")
        return image

    def upload(self, folder: str) -> None:
        """Puts a folder of `data/` into the store."""
        import fsspec

        target = f"{self.store.partition('://')[2]}/data/"
        fsspec.filesystem("s3").put(str(CODE / "data" / folder), target, recursive=True)

    def settings(self, run: str) -> list[str]:
        """What a run must be told to read and push in this cluster's store."""
        shipped = yaml.safe_load((CODE / "pipelines" / "runs" / f"{run}.yaml").read_text())["data"]
        moved = {key: json.loads(json.dumps(shipped[key]).replace('"data/', f'"{self.store}/data/'))
                 for key in ("path", "pairs", "schema_file") if key in shipped}
        keys = {"AWS_ACCESS_KEY_ID": "accesskey", "AWS_SECRET_ACCESS_KEY": "secretkey"}
        environment = {"AWS_ENDPOINT_URL": os.environ["STORE_IN_PODS"], "AWS_REGION": "us-east-1"}
        return [*(f"data.{key}={json.dumps(value)}" for key, value in moved.items()),
                f"push.destination={self.store}/models/{run}", "kubeflow.components.Trainer.gpus=0",
                f"kubeflow.secrets={json.dumps([{'name': os.environ['STORE_SECRET'], 'keys': keys}])}",
                f"kubeflow.environment={json.dumps(environment)}", "kubeflow.pull_policy=IfNotPresent"]

    def submit(self, run: str, *settings: str) -> str:
        """Has the cluster run something as a user does. Returns the run's id."""
        overrides = [word for setting in (*self.settings(run), *settings) for word in ("--set", setting)]
        said = textrail("submit", run, "--image", self.image, *overrides)
        found = re.search(r"run ([0-9a-f-]{36})", said.text)
        assert said.status == 0 and found, said
        return found[1]

    def versions(self, run: str) -> list[int]:
        from components import object_store  # noqa: F401  # fileio's way to the store
        from components.versions import versions

        return versions(f"{self.store}/models/{run}")


def textrail(*words: str) -> Said:
    """Runs `textrail kubeflow` and shows what it says as it says it."""
    process = subprocess.Popen([sys.executable, "-m", "pipelines.cli", "kubeflow", *words, "--host",
                                os.environ["KFP_HOST"]], cwd=CODE, text=True, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT)
    lines = []
    for line in process.stdout or ():
        print(line, end="", flush=True)
        lines.append(line)
    return Said(process.wait(), "".join(lines))


def kubectl(*words: str, stdin: str = "") -> str:
    return subprocess.run(["kubectl", *words], text=True, input=stdin, stdout=subprocess.PIPE, check=True).stdout


def tasks(run_id: str) -> Iterator[tuple[str, float, bool, str]]:
    """Component, minutes, whether it came from Kubeflow's cache, and phase of each task of a run."""
    found = json.loads(kubectl("get", "workflows", "-l", f"pipeline/runid={run_id}", "-o", "json"))["items"]
    nodes = found[0]["status"]["nodes"].values()
    drivers = {node["displayName"].removesuffix("-driver"): node for node in nodes
               if node["displayName"].endswith("-driver") and node["type"] == "Pod"}
    for node in sorted(nodes, key=lambda node: node["startedAt"]):
        if (name := node["displayName"]) in drivers and node["type"] == "DAG" and name != "root":
            inside = (one for one in nodes if one.get("boundaryID") == node["id"])
            cached = any(one["phase"] in ("Skipped", "Omitted") for one in inside)
            seconds = _seconds(node["finishedAt"]) - _seconds(drivers[name]["startedAt"])
            yield name, seconds / 60, cached, node["phase"]


def _seconds(text: str) -> float:
    return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ"))


def show(run_id: str) -> None:
    """Prints the table of a run."""
    print("component | minutes | cached | outcome")
    for name, minutes, cached, phase in tasks(run_id):
        print(f"{name} | {minutes:.1f} | {'yes' if cached else 'no'} | {phase.lower()}", flush=True)


def compare(cluster: Cluster, run: str) -> None:
    """The pushed model answers as that of the local runner with the same seed."""
    pod = f"textrail-e2e-{run}"
    kubectl("delete", "pod", pod, "--ignore-not-found")
    env: list[dict[str, Any]] = [{"name": "AWS_ENDPOINT_URL", "value": os.environ["STORE_IN_PODS"]},
                                 {"name": "AWS_REGION", "value": "us-east-1"}]
    env += [{"name": name, "valueFrom": {"secretKeyRef": {"name": os.environ["STORE_SECRET"], "key": key}}}
            for name, key in (("AWS_ACCESS_KEY_ID", "accesskey"), ("AWS_SECRET_ACCESS_KEY", "secretkey"))]
    command = ["python", "-c", COMPARE, run, f"{cluster.store}/models/{run}", json.dumps(ROWS[run])]
    container = {"name": "main", "image": cluster.image, "imagePullPolicy": "IfNotPresent", "env": env,
                 "workingDir": "/opt/textrail", "command": command,
                 "resources": {"requests": {"cpu": "1", "memory": "4G"}}}   # Else it gets what the others leave.
    manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod},
                "spec": {"restartPolicy": "Never", "containers": [container]}}
    kubectl("apply", "-f", "-", stdin=json.dumps(manifest))
    while (phase := kubectl("get", "pod", pod, "-o", "jsonpath={.status.phase}")) in ("", "Pending", "Running"):
        time.sleep(5)
    log = kubectl("logs", pod)
    answers = dict(re.findall(r"^answers of (\w+): (.*)$", log, re.MULTILINE))
    assert phase == "Succeeded" and len(answers) == 2, log[-3000:]
    local, pushed = (json.loads(answers[name]) for name in ("local", "pushed"))
    assert local.keys() == pushed.keys()
    worst = 0.0
    for key, values in local.items():
        for one, other in zip(values, pushed[key], strict=True):
            if isinstance(one, float):
                worst = max(worst, abs(one - other))
            else:
                assert one == other, (key, one, other)
    print(f"{run}: the pushed model answers as the local one; scores differ by at most {worst:.2g}")
    assert worst < 1e-4
    kubectl("delete", "pod", pod)


def shape(cluster: Cluster, run: str) -> None:
    """A shipped run from its data in the store to a model that answers as the local one; then again, from the cache."""
    cluster.upload(run)
    first = cluster.submit(run)
    assert textrail("follow", first).status == 0
    show(first)
    pushed = cluster.versions(run)
    compare(cluster, run)
    second = cluster.submit(run)
    assert textrail("follow", second).status == 0 and cluster.versions(run) == pushed
    show(second)
    assert {name for name, _, cached, _ in tasks(second) if not cached} == {"Lookup"}


def bad_schema(cluster: Cluster) -> None:
    """A schema without the label fails with our sentence, and nothing is pushed."""
    import fsspec

    cluster.upload("reviews")
    bad = f"{cluster.store}/data/bad_schema.pbtxt"
    fsspec.filesystem("s3").pipe(bad.partition("://")[2], b'feature { name: "review" type: BYTES }')
    pushed = cluster.versions("reviews")
    run_id = cluster.submit("reviews", f"data.schema_file={bad}")
    said = textrail("follow", run_id)
    show(run_id)
    assert said.status == 1 and "expected a feature 'sentiment'" in said.text.strip().splitlines()[-1]
    assert cluster.versions("reviews") == pushed


def lost_pod(cluster: Cluster) -> None:
    """A Trainer whose pod is deleted midway goes on from its checkpoint in another."""
    cluster.upload("reviews")
    seed = f"seed={int(time.time()) % 10**6}"   # Nothing of an earlier time is to be taken up.
    run_id = cluster.submit(
        "reviews", seed, "training.epochs=2", "evaluation.thresholds={accuracy: {min: 0.8}}",
        "training.checkpoint_seconds=5", "kubeflow.checkpoints=/mnt/e2e/checkpoints",
        f"kubeflow.volumes=[{{claim: {os.environ['CLAIM']}, path: /mnt/e2e}}]")
    ours = ("-l", f"pipeline/runid={run_id}", "-o", "name")
    pod = ""
    while not pod:
        time.sleep(3)
        for name in kubectl("get", "pods", "--field-selector=status.phase=Running", *ours).split():
            if "retry-system-container-impl" in name and "step" in kubectl("logs", name, "-c", "main"):
                pod = name
    kubectl("delete", pod, "--wait=false")
    assert textrail("follow", run_id).status == 0
    show(run_id)
    logs = [kubectl("logs", name, "-c", "main") for name in kubectl("get", "pods", *ours).split()
            if "retry-system-container-impl" in name]
    resumed = [line for log in logs for line in log.splitlines() if line.startswith("resumed at step")]
    print(f"{pod} was deleted; another: {resumed}")
    assert resumed


def main() -> None:
    missing = [name for name in NEEDED if not os.environ.get(name)]
    if missing:
        sys.exit(f"kubeflow-e2e needs a cluster: {', '.join(missing)} in the environment, as "
                 f"{Path(__file__).relative_to(CODE)} says; nothing was started")
    parts: dict[str, Callable[[Cluster], None]] = {run: partial(shape, run=run) for run in ROWS}
    parts |= {"bad_schema": bad_schema, "lost_pod": lost_pod}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=list(parts), help="default: all")
    wanted, cluster = parser.parse_args().parts or list(parts), Cluster()
    for part in wanted:
        print(f"== {part}", flush=True)
        parts[part](cluster)
    print("kubeflow-e2e: done")


if __name__ == "__main__":
    main()
