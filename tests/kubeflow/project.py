"""A user's project for tests, run on a cluster: what it reads is in the cluster's store, what it pushes on a volume."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from components.versions import read_manifest, versions
from pipelines import settings
from tests.kubeflow.launcher import Cluster, Finished
from tests.pipelines.project import Project


class OnKubeflow:
    """Compiles a project's run and has a cluster run it.

    Args:
        project: whose settings and data are taken.
        folder: empty; for everything that is made.
        data: settings of that section that go before the project's own.
        fresh: see `Cluster`.
    """

    def __init__(self, project: Project, folder: Path, data: Mapping[str, Any] | None = None, fresh: bool = False):
        pytest.importorskip("kfp.pipeline_spec", reason="compiling for Kubeflow needs the extra `kubeflow`")
        self.cluster, self.models = Cluster(folder / "cluster", fresh), folder / "models"
        self._project, self._folder = project, folder
        self.models.mkdir(parents=True)
        told = yaml.safe_load((project.folder / project.file).read_text())
        told["data"] |= data or {}
        path = told["data"]["path"]
        told["data"]["path"] = ({split: self._stored(one) for split, one in path.items()} if isinstance(path, dict)
                                else self._stored(path))
        if "encoder" in told:
            told["encoder"]["source"] = self._stored(told["encoder"]["source"])
        told["push"] = {"destination": str(self.models / project.name)}
        told["kubeflow"] = {"volumes": [{"claim": "models", "path": str(self.models)}]}
        self._file = folder / project.file
        self._file.write_text(yaml.safe_dump(told))

    def _stored(self, name: str) -> str:
        """Puts what a setting names into the store."""
        source = self._project.folder / name
        uri = f"s3://texts/{self._project.name}/{source.name}"
        target = self.cluster.path(uri)
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
        return uri

    def run(self, *overrides: str, pipeline_root: str = "s3://artifacts/textrail") -> dict[str, Finished]:
        from kubeflow import compile as kubeflow

        documents = kubeflow.compile_run(settings.load(str(self._file), overrides), self._project.name,
                                         "textrail:test", pipeline_root)
        kubeflow.write(documents, self._folder / "compiled.yaml")
        return self.cluster.run(self._folder / "compiled.yaml")

    def pushed(self) -> list[int]:
        return versions(str(self.models / self._project.name))

    def assert_local_model(self, **texts: list[str]) -> None:
        """Asserts that the first model is the one that the local runner pushed first: it answers texts the same."""
        import tensorflow as tf
        import tensorflow_text  # noqa: F401  # its ops are in the graph

        local = self._project.folder / "workspace" / self._project.name / "pushed"
        folders = [str(folder / str(versions(str(folder))[0])) for folder in (local, self.models / self._project.name)]
        here, there = (tf.saved_model.load(folder).signatures["serving_default"](
            **{key: tf.constant(value) for key, value in texts.items()}) for folder in folders)
        assert here.keys() == there.keys()
        for key, value in here.items():
            if value.dtype == tf.string:
                np.testing.assert_array_equal(value, there[key])
            else:
                np.testing.assert_allclose(value, there[key], atol=1e-5)
        ours, theirs = map(read_manifest, folders)
        assert ours.keys() == theirs.keys()
        assert ours.get("classes") == theirs.get("classes")
