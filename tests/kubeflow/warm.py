"""Starts containers as forks of one process that has imported, once, what all of them import.

Each is still a process of its own, with folder, environment and arguments of its own, and is run as `python -m` runs
it: modules are imported before the fork and run behind it, TensorFlow and Beam included.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

# Words, working directory, environment, and a file for what is printed → exit status.
Start = Callable[[list[str], Path, Mapping[str, str], Path], int]


def start_fresh(words: list[str], folder: Path, environment: Mapping[str, str], log: Path) -> int:
    """Runs a container in a process that starts from nothing."""
    with log.open("wb") as printed:
        return subprocess.run(words, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=printed,
                              stderr=printed).returncode


@contextmanager
def forks_of(modules: Sequence[str]) -> Iterator[Start]:
    """What runs a container, `python -m MODULE …`, in a fork of a process that has imported these modules."""
    server = subprocess.Popen([sys.executable, "-m", __name__, *modules], text=True, stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, cwd=Path(__file__).parents[2], start_new_session=True)

    def start(words: list[str], folder: Path, environment: Mapping[str, str], log: Path) -> int:
        assert server.stdin and server.stdout
        print(json.dumps([words, str(folder), environment, str(log)]), file=server.stdin, flush=True)
        return int(server.stdout.readline())

    try:
        yield start
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.communicate()


def _serve(modules: Sequence[str]) -> None:
    """Reads what is to be started, a JSON list a line, and answers each with an exit status."""
    for module in modules:
        importlib.import_module(module)
    for line in sys.stdin:
        if not (child := os.fork()):
            try:
                _become(*json.loads(line))
            finally:
                os._exit(1)   # Containers end by themselves.
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _become(words: list[str], folder: str, environment: Mapping[str, str], log: str) -> None:
    printed, nothing = os.open(log, os.O_WRONLY | os.O_CREAT), os.open(os.devnull, os.O_RDONLY)
    for theirs, ours in ((nothing, 0), (printed, 1), (printed, 2)):
        os.dup2(theirs, ours)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    tempfile.tempdir = None   # Else it is the one of whoever asked before.
    _, option, module, *arguments = words
    assert option == "-m", words
    sys.argv = [module, *arguments]
    del sys.modules[module]   # It is run as __main__; whoever imports it has another one.
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _serve(sys.argv[1:])
