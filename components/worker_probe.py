"""What a worker of a cluster tells of itself. Its source travels to workers as text, so it imports nothing of ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def probe(root: str, reads: list[str], own: list[str]) -> str:
    """Looks around where it runs. Nothing in here raises: what is wrong is what it tells.

    Args:
        root: folder or URI that workers write into.
        reads: files that workers read.
        own: modules of the project that workers import.

    Returns:
        JSON: `host`, `versions` (name → version, or None with the reason among `problems`), `code` (fingerprint of the
        project's source, None where it cannot be imported), `problems` (sentences) and `unseen` (path → reason).
    """
    import functools
    import importlib
    import json
    import os
    import platform
    import socket
    import uuid

    told: dict[str, Any] = {"host": socket.gethostname(), "versions": {"Python": platform.python_version()},
                            "code": None, "problems": [], "unseen": {}}

    def load(module: str) -> Any:
        try:
            return importlib.import_module(module)
        except Exception as error:
            told["problems"].append(f"{module} cannot be imported ({type(error).__name__}: {error})")
            return None

    for name, module in (("Beam", "apache_beam"), ("TensorFlow", "tensorflow"),
                         ("TensorFlow Text", "tensorflow_text"), ("TFX", "tfx")):
        loaded = load(module)
        if loaded is None:
            told["versions"][name] = None
        elif hasattr(loaded, "__version__"):
            told["versions"][name] = loaded.__version__
        else:   # TFX's top is empty.
            told["versions"][name] = importlib.import_module(f"{module}.version").__version__
    for module in own:
        load(module)
    fingerprint = load("components.code_fingerprint")
    if fingerprint is not None and hasattr(fingerprint, "project_fingerprint"):
        told["code"] = fingerprint.project_fingerprint()

    def attempt(path: str, look: Callable[[], None]) -> None:
        try:
            look()
        except Exception as error:
            told["unseen"][path] = f"{type(error).__name__}: {error}".splitlines()[0]

    if told["versions"]["TensorFlow"]:
        from tensorflow import io

        def write() -> None:
            # The folder must be the one that the run has made, not another machine's that happens to be called so.
            if not io.gfile.exists(os.path.join(root, "here")):
                raise FileNotFoundError("another folder, without what the run has just put there")
            with io.gfile.GFile(os.path.join(root, f"worker-{uuid.uuid4().hex}"), "w") as file:
                file.write(told["host"])

        def read(path: str) -> None:
            try:
                with io.gfile.GFile(path, "rb") as file:
                    file.read(1)
            except Exception:
                # TensorFlow has fewer file systems than Beam, which our readers use for URIs.
                from apache_beam.io.filesystems import FileSystems

                with FileSystems.open(path) as file:
                    file.read(1)

        attempt(root, write)
        for path in reads:
            attempt(path, functools.partial(read, path))
    return json.dumps(told)


def answer(**arguments: Any) -> int:
    """Probes, and sends what it found as the name of a counter.

    Counters are the one thing that reaches whoever started the job without a folder that both see.
    """
    from apache_beam.metrics import Metrics

    Metrics.counter("textrail.preflight", probe(**arguments)).inc()
    return 1
