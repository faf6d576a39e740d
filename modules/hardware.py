"""What the processor is and is fast at, as Linux tells. Standard library only: `textrail doctor` works without any."""

from __future__ import annotations

from pathlib import Path

# Flag in /proc/cpuinfo → the unit that makes bfloat16 faster than float32.
FAST_BFLOAT16 = {"amx_bf16": "AMX", "avx512_bf16": "AVX512-BF16"}


def cpu_flags() -> set[str]:
    """The CPU's feature flags as Linux names them; empty where it does not say."""
    return set(_cpuinfo("flags").split())


def cpu_model() -> str:
    """The CPU's name; "CPU" where Linux does not say."""
    return _cpuinfo("model name") or "CPU"


def _cpuinfo(key: str) -> str:
    """The first processor's value; empty where there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return ""
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(key)), "")
