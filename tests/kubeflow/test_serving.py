"""The manifests of kubeflow/serving: what KServe's and Kubernetes' own models of them take, and what agrees."""

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines import settings

client = pytest.importorskip("kubernetes.client", reason="Kubernetes' models come with the extra `kubeflow`")

ROOT = Path(__file__).parents[2]
SERVING = ROOT / "kubeflow" / "serving"
KSERVE = "kserve==0.16.0"
PLAIN = {"str": str, "int": int, "bool": bool, "float": (int, float), "object": object}
# What KServe's models leave open: pkg/apis/serving/v1beta1/component.go; the last two need no Knative.
METRICS = ("concurrency", "rps", "cpu", "memory")


@pytest.fixture(scope="module")
def service() -> dict:
    return yaml.safe_load((SERVING / "inference_service.yaml").read_text("utf-8"))


@pytest.fixture(scope="module")
def volume() -> dict:
    return yaml.safe_load((SERVING / "volume.yaml").read_text("utf-8"))


@pytest.fixture(scope="module")
def models() -> Path:
    """KServe's own models, of its package for Python: they are read, not imported, hence need none of what it needs."""
    uv = shutil.which("uv") or shutil.which("uv", path=ROOT / ".uv" / "bin")
    if not uv:
        pytest.skip("KServe's models are fetched with uv, which is neither on the PATH nor in .uv")
    folder = ROOT / "build" / KSERVE.replace("==", "-")
    if not folder.is_dir():
        done = subprocess.run([uv, "pip", "install", "-q", "--no-deps", "--python", sys.executable, "--python-version",
                               "3.12", "--target", str(folder), KSERVE], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"KServe's models cannot be fetched: {done.stderr.strip().splitlines()[-1]}")
    return folder / "kserve" / "models"


def fields(kind: str, models: Path) -> dict[str, str]:
    """Key → type of an object's keys: {"httpGet": "V1HTTPGetAction", …} of V1Probe."""
    if hasattr(client, kind):
        types, names = getattr(client, kind).openapi_types, getattr(client, kind).attribute_map
    else:
        snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", kind).lower()
        body = next(node.body for node in ast.parse((models / f"{snake}.py").read_text("utf-8")).body
                    if isinstance(node, ast.ClassDef))
        tables = {node.targets[0].id: ast.literal_eval(node.value) for node in body if isinstance(node, ast.Assign)}
        types, names = tables["openapi_types"], tables["attribute_map"]
    return {names[key]: kind for key, kind in types.items()}


def problems(value: Any, kind: str, models: Path, where: str) -> list[str]:
    """Where a manifest is not what a model says; unknown keys are problems, as they are to API servers."""
    if found := re.fullmatch(r"list\[(.*)\]", kind):
        return [problem for index, item in enumerate(value) for problem in
                problems(item, found.group(1), models, f"{where}.{index}")]
    if found := re.fullmatch(r"dict\(str, (.*)\)", kind):
        return [problem for key, item in value.items() for problem in
                problems(item, found.group(1), models, f"{where}.{key}")]
    if kind in PLAIN:
        return [] if isinstance(value, PLAIN[kind]) else [f"{where}: no {kind}"]
    known = fields(kind, models)
    unknown = [f"{where}.{key}: unknown to {kind}" for key in value if key not in known]
    return [problem for key, item in value.items() if key in known for problem in
            problems(item, known[key], models, f"{where}.{key}")] + unknown


def test_kserve_takes_the_service(service, models):
    assert (service["apiVersion"], service["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    assert problems(service, "V1beta1InferenceService", models, "service") == []
    predictor = service["spec"]["predictor"]
    assert predictor["scaleMetric"] in METRICS and predictor["minReplicas"] <= predictor["maxReplicas"]
    model = predictor["model"]
    wrong = {**service, "spec": {"predictor": {"model": {
        **model, "replicas": 2, "readinessProbe": {"httpGet": {"path": 8080}}, "runtimeVersion": 2.2}}}}
    assert problems(wrong, "V1beta1InferenceService", models, "service") == [
        "service.spec.predictor.model.runtimeVersion: no str",
        "service.spec.predictor.model.readinessProbe.httpGet.path: no str",
        "service.spec.predictor.model.replicas: unknown to V1beta1ModelSpec"]


def test_kubernetes_takes_the_volume(volume):
    assert (volume["apiVersion"], volume["kind"]) == ("v1", "PersistentVolumeClaim")
    assert problems(volume, "V1PersistentVolumeClaim", SERVING, "volume") == []


def test_names_and_paths_agree(service, volume):
    name, model = service["metadata"]["name"], service["spec"]["predictor"]["model"]
    assert model["storageUri"] == f"pvc://{volume['metadata']['name']}/{name}"
    assert model["readinessProbe"]["httpGet"] == {"path": f"/v1/models/{name}", "port": 8080}
    assert model["livenessProbe"]["tcpSocket"] == {"port": 8080}   # KServe's runtime says --rest_api_port=8080.
    curl = re.search(r"curl http://(\S+?)-predictor\.NAMESPACE\S*/v1/models/(\S+):predict.*?\[\{\"(\w+)\": ",
                     (SERVING / "inference_service.yaml").read_text("utf-8"), re.DOTALL)
    assert curl.groups() == (name, name, settings.load("reviews").data.text)
