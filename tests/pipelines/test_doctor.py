"""What the doctor finds, here and where something is missing."""

import re
import sys
from pathlib import Path

import pytest

from pipelines import cli, doctor


def test_this_environment_is_complete(tmp_path, capsys):
    status = cli.main(["doctor", "--workspace", str(tmp_path / "not" / "made")])
    out = capsys.readouterr().out
    assert status == 0, out
    line = "B (TFX 1.21)" if sys.version_info >= (3, 11) else "A (TFX 1.16)"
    for expected in (rf"ok       line {re.escape(line)}, as Python 3\.\d+\.\d+ asks for",
                     r"ok       tfx 1\.(16|21)\.0", r"ok       tensorflow 2\.(16\.2|21\.0)",
                     r"ok       tensorflow and tensorflow_text can be imported together",
                     r"ok       \d+ cores, .*; (fast bfloat16 by .*|no fast bfloat16, training uses float32)",
                     r"ok       encoder all-MiniLM-L6-v2, sha256 as published, in .*",
                     rf"(ok|warning)  +\d+ GB free for {tmp_path}/not/made"):
        assert re.search(rf"^{expected}$", out, re.MULTILINE), expected


def test_a_glibc_too_old_for_line_b_names_line_a():
    assert doctor.glibc("Linux", "glibc", "2.36", line_b=False) == ("ok", "Linux", "")
    assert doctor.glibc("Linux", "glibc", "2.39", line_b=True) == ("ok", "Linux", "")
    assert str(doctor.glibc("Linux, glibc 2.36", "glibc", "2.36", line_b=True)) == (
        "missing  Linux, glibc 2.36: too old for TFX 1.21, whose ml-metadata and data-validation wheels need glibc "
        "2.39 (Debian 13, Ubuntu 24.04)\n"
        "         → take line A, which runs from glibc 2.17: UV_PYTHON=3.10 make setup")


def test_a_gpu_without_its_libraries_is_a_warning():
    assert doctor.graphics([], 0) == ("ok", "no GPU, training uses the CPU", "")
    assert doctor.graphics(["GPU 0: NVIDIA L4"], 1) == ("ok", "GPU 0: NVIDIA L4", "")
    assert str(doctor.graphics(["GPU 0: NVIDIA L4"], 0)) == (
        "warning  GPU 0: NVIDIA L4: nvidia-smi sees it, TensorFlow does not; training uses the CPU\n"
        "         → install the CUDA libraries that TensorFlow asks for (tensorflow[and-cuda]): "
        "`uv sync --frozen --inexact --extra gpu`")


def test_a_missing_package_gives_its_fix_and_status_1(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(doctor, "SHOWN", ("no-such-package",))
    monkeypatch.setattr(doctor, "OPTIONAL", {"no-such-extra": "nice to have"})
    assert cli.main(["doctor", "--workspace", str(tmp_path)]) == 1
    out = capsys.readouterr().out
    assert f"missing  no-such-package is not installed\n         → {doctor.INSTALL}\n" in out
    assert "warning  no-such-extra is not installed (optional)\n         → nice to have\n" in out


@pytest.mark.parametrize("free, state", [(4.9, "warning"), (5.0, "ok")])
def test_little_disk_is_a_warning(monkeypatch, free, state):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": free * 10**9}))
    assert doctor._disk(Path("/tmp/runs")).state == state
