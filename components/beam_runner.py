"""Beam pipelines of every component, made in one place from the run's settings."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

from components.beam_jobs import job_name
from components.beam_options import IN_THIS_PROCESS, beam_arguments

PROJECT = Path(__file__).resolve().parent.parent
PACKAGES = ("modules", "components", "pipelines")
VERSION = "0"   # Of the code that is shipped; it replaces whatever version an image has.


def run_beam_in_this_process() -> None:
    """Makes Beam's in-memory Python runner this process's default; Beam arguments that name another still win.

    It is what Beam's own default, DirectRunner, comes down to, but newer releases of that first try Prism, a program
    that they download from the internet. To pass this runner as a Beam argument instead would have TFX build a package
    of itself for every component (`make_beam_dependency_flags`), which takes seconds and which nobody reads here.
    """
    StandardOptions.DEFAULT_RUNNER = IN_THIS_PROCESS


def make_pipeline(settings: Mapping[str, Any], name: str, root: str) -> beam.Pipeline:
    """A Beam pipeline that runs where the settings say.

    Args:
        settings: the section `beam` of a run's settings.
        name: of what it does, which the cluster's own page shows.
        root: folder or URI for the results, by which `components.beam_jobs.end_jobs` finds the job.
    """
    arguments = [*beam_arguments(settings), f"--job_name={job_name(name, root)}"]
    if settings["ship_code"]:
        arguments.append(f"--extra_package={code_package()}")
    return beam.Pipeline(options=PipelineOptions(arguments))


@functools.lru_cache(maxsize=1)
def code_package() -> str:
    """Packs this project's modules as they are now for the workers of a cluster, once a process.

    It asks for no other packages: those are in the workers' image. With the project's own list of requirements pip
    would look for versions anew on every worker, and find that TFX's do not fit together (docs/stack.md).

    Returns:
        Path of a wheel, which goes when the process does.
    """
    folder = tempfile.mkdtemp(prefix="textrail-code-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    about = f"textrail-{VERSION}.dist-info"
    content = {f"{about}/METADATA": f"Metadata-Version: 2.1\nName: textrail\nVersion: {VERSION}\n",
               f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: textrail\nRoot-Is-Purelib: true\nTag: py3-none-any\n"}
    names = [path.relative_to(PROJECT).as_posix() for package in PACKAGES
             for path in sorted((PROJECT / package).rglob("*")) if path.suffix in (".py", ".yaml")]
    content[f"{about}/RECORD"] = "".join(f"{name},,\n" for name in [*names, *content, f"{about}/RECORD"])
    path = os.path.join(folder, f"textrail-{VERSION}-py3-none-any.whl")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name in names:
            wheel.write(PROJECT / name, name)
        for name, text in content.items():
            wheel.writestr(name, text)
    return path
