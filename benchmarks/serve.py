"""Requests/s of `textrail serve` while many clients ask at once: calls of the model shared, and one a request.

    python benchmarks/serve.py [RUN] [--workspace DIR] [--clients 32] [--seconds 30]

RUN is one whose model was pushed, `reviews` by default. Each client has a connection of its own and asks again as soon
as it is answered, a text of the run's data at a time. The server is a process of its own, started anew for each way.
What is printed beside requests/s is how long the clients waited: half of the requests no longer than p50, and so on.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import numpy as np

from components.versions import read_manifest, served_version
from modules.errors import TextrailError
from pipelines import workspace

START_SECONDS = 300
WARM_SECONDS = 3   # Not counted: batches of all sizes are seen, and threads are started.
WAYS = {"one call a request": ("--max-batch", "1", "--max-wait-ms", "0"), "shared calls": ()}


class Server(NamedTuple):
    """A server that runs.

    Attributes:
        process: its own.
        host: where it listens.
        port: where it listens.
        lines: what it has printed so far; grows.
    """

    process: subprocess.Popen[str]
    host: str
    port: int
    lines: list[str]


@contextmanager
def running(run: str, folder: Path, *options: str) -> Iterator[Server]:
    """`textrail serve` on a free port for as long as the block lasts.

    Args:
        run: its name.
        folder: the workspace.
        options: of the command.
    """
    command = [sys.executable, "-m", "pipelines.cli", "serve", run, "--workspace", str(folder), "--port", "0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)
    lines: list[str] = []
    ready = threading.Event()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            if " is served at " in line:
                ready.set()
        ready.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        ready.wait(START_SECONDS)
        found = re.search(r"http://([^/]+):(\d+)/v1/", "\n".join(lines))
        if found is None:
            raise RuntimeError("the server did not start: " + "\n".join(lines))
        yield Server(process, found[1], int(found[2]), lines)
    finally:
        process.terminate()
        process.wait(60)
        reader.join(5)


class Load(NamedTuple):
    """What came of a load.

    Attributes:
        waited: [requests] float64, seconds.
        errors: sentences of the requests that failed.
        seconds: it lasted.
    """

    waited: np.ndarray
    errors: list[str]
    seconds: float


def load(server: Server, run: str, bodies: Sequence[bytes], clients: int, seconds: float) -> Load:
    """Asks with many clients at once.

    Args:
        server: that is asked.
        run: name of the model.
        bodies: of requests, taken in turn.
        clients: that ask.
        seconds: for which they do.
    """
    waited: list[list[float]] = [[] for _ in range(clients)]
    errors: list[str] = []
    end = time.perf_counter() + seconds

    def ask(number: int) -> None:
        connection = http.client.HTTPConnection(server.host, server.port, timeout=60)
        turn = number
        while (began := time.perf_counter()) < end:
            try:
                connection.request("POST", f"/v1/models/{run}:predict", bodies[turn % len(bodies)])
                response = connection.getresponse()
                answer = response.read()
                if response.status != 200:
                    errors.append(f"{response.status} {answer.decode()}")
            except OSError as error:
                errors.append(f"{type(error).__name__}: {error}")
                connection.close()
            waited[number].append(time.perf_counter() - began)
            turn += clients

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return Load(np.concatenate(waited), errors, time.perf_counter() - began)


def request_bodies(paths: workspace.Workspace, count: int = 500) -> list[bytes]:
    """Requests with a row each, of texts that the model was not trained on.

    Raises:
        TextrailError: nothing was pushed.
    """
    version = served_version(paths.destination())
    if version is None:
        raise TextrailError(f"a pushed model in {paths.destination()}", "none", f"textrail run {paths.run} pushes one.")
    from pipelines.serving.examples import examples

    manifest = read_manifest(os.path.join(paths.destination(), version))
    columns = [manifest[key] for key in ("text", "text_pair") if manifest.get(key)]
    names = manifest.get("inputs", columns)
    rows = examples(str(paths.pipeline_root), columns, None, count) or [["a text"] * len(columns)]
    return [json.dumps({"instances": [dict(zip(names, row, strict=True))]}).encode() for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", default="reviews")
    parser.add_argument("--workspace")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=30)
    options = parser.parse_args()
    try:
        paths = workspace.existing(options.run, options.workspace)
        bodies = request_bodies(paths)
    except TextrailError as error:
        print(f"skipped: {error}")
        return
    rates = {}
    for way, flags in WAYS.items():
        with running(paths.run, paths.folder.parent, "--no-page", *flags) as server:
            load(server, paths.run, bodies, options.clients, WARM_SECONDS)
            found = load(server, paths.run, bodies, options.clients, options.seconds)
        rates[way] = len(found.waited) / found.seconds
        p50, p95, p99 = np.percentile(found.waited * 1000, (50, 95, 99))
        print(f"{way}: {rates[way]:.0f} requests/s from {options.clients} clients in {found.seconds:.0f} s, "
              f"p50 {p50:.0f} ms, p95 {p95:.0f} ms, p99 {p99:.0f} ms, {len(found.errors)} errors", flush=True)
        for sentence in sorted(set(found.errors))[:3]:
            print(f"  {sentence}")
    plain, shared = rates.values()
    print(f"ratio: {shared / plain:.2f} times the requests/s with shared calls")


if __name__ == "__main__":
    main()
