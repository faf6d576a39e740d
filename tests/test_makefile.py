"""What make does before it can do anything: find uv, and know for which Python it has installed."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

if not shutil.which("make"):
    pytest.skip("make is not installed", allow_module_level=True)


@pytest.fixture
def project(tmp_path) -> Path:
    """The files that the Makefile looks at."""
    shutil.copy(Path(__file__).parents[1] / "Makefile", tmp_path)
    for name in ("pyproject.toml", "uv.lock"):
        (tmp_path / name).touch()
    return tmp_path


def make(project: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    inherited = {name: value for name, value in os.environ.items() if name != "UV_PYTHON"}
    return subprocess.run(["make", *arguments], cwd=project, capture_output=True, text=True, env=inherited | variables)


def test_another_python_is_installed_before_anything_runs(project):
    for made in (".uv/bin/uv", ".venv/.installed-3.10"):
        (project / made).parent.mkdir(parents=True)
        (project / made).touch()
    assert "sync" not in make(project, "-n", "setup", UV_PYTHON="3.10").stdout
    assert "sync --frozen" in make(project, "-n", "setup", UV_PYTHON="3.13").stdout
    assert "sync --frozen" in make(project, "-n", "setup", UV_PYTHON="/usr/bin/python3").stdout
    assert "sync --frozen" in make(project, "-n", "setup").stdout


def test_an_index_without_uv_is_not_called_a_missing_python(project):
    told = make(project, ".uv/bin/uv", PIP_NO_INDEX="1")
    assert told.returncode != 0
    assert "pip could not install it" in told.stderr
    assert "virtual environment" not in told.stderr
