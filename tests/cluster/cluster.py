"""A real Flink on this machine, each part of it a process of its own, from Maven's packages."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apache_beam

HERE = Path(__file__).parent / "flink"
# Beam's release → the newest Flink that it has a runner for.
FLINK = {"2.62.0": "1.19"}
WAIT_SECONDS = 900   # For anything; a limit, since all of it comes in seconds where nothing else is done.
JOB_SERVER = "org.apache.beam.runners.flink.FlinkJobServerDriver"
OPEN = ("util", "lang", "nio", "net", "util.concurrent")   # What Flink looks into of Java 17.


class NoFlink(Exception):
    """There can be none here; the message says why."""


@contextlib.contextmanager
def started(folder: Path) -> Iterator[Flink]:
    """A Flink as long as the block lasts, with configuration and logs in `folder`.

    Raises:
        NoFlink: there can be none.
    """
    flink = Flink(jars("flink"), folder)
    try:
        flink.start()
        yield flink
    finally:
        flink.stop()


def jars(name: str, scope: str = "runtime") -> Path:
    """Folder with Flink's packages, fetched by Maven the first time; of scope `provided` those of its operator.

    Args:
        name: of the folder below `build/`.
        scope: Maven's, of the packages in `flink/pom.xml`.

    Raises:
        NoFlink: this machine has no Java or Maven, no Flink fits its Beam, or Maven could not fetch the packages.
    """
    if absent := [program for program in ("java", "mvn") if not shutil.which(program)]:
        raise NoFlink(f"Flink needs {' and '.join(absent)}, which this machine lacks")
    lib, version = HERE.parents[2] / "build" / name / "lib", apache_beam.__version__
    if version not in FLINK:
        raise NoFlink(f"no Flink is named here for Beam {version}")
    lib.mkdir(parents=True, exist_ok=True)
    if not (lib / ".complete").exists():
        done = subprocess.run(
            ["mvn", "-B", "-q", "-f", str(HERE / "pom.xml"), f"-Dbeam.version={version}",
             f"-Dflink.version={FLINK[version]}", "dependency:copy-dependencies", f"-DoutputDirectory={lib}",
             f"-DincludeScope={scope}"], capture_output=True, text=True)
        if done.returncode:
            raise NoFlink(f"Maven could not fetch Flink: {(done.stdout + done.stderr).strip()[-300:]}")
        (lib / ".complete").touch()
    return lib


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("localhost", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Flink:
    """JobManager, TaskManager with two slots, Beam's job server and a pool of Python workers.

    Args:
        lib: see `jars`.
        folder: for configuration and logs; what else the parts write goes when they are stopped.

    Attributes:
        job_endpoint: of Beam's job server.
        worker_pool: of the pool.
    """

    def __init__(self, lib: Path, folder: Path):
        self._lib, self._folder, self._processes = lib.resolve(), folder, {}   # type: ignore[var-annotated]
        self._scratch = folder / "scratch"
        self._scratch.mkdir()
        rpc, self._rest, job, artifacts, expansion, pool = free_ports(6)
        self.job_endpoint, self.worker_pool = f"localhost:{job}", f"localhost:{pool}"
        config = (HERE / "config.yaml").read_text().replace("RPC_PORT", str(rpc)).replace("REST_PORT", str(self._rest))
        (folder / "config.yaml").write_text(config)
        # It says what for; only a JDK starts a program from its source.
        jobserver = HERE / "JobServer.java" if shutil.which("javac") else JOB_SERVER
        self._commands = {
            "jobmanager": self._java("1g", "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint",
                                     "--configDir", folder),
            "taskmanager": self._java("1152m", "org.apache.flink.runtime.taskexecutor.TaskManagerRunner",
                                      "--configDir", folder),
            "jobserver": self._java("512m", jobserver, f"--job-port={job}", f"--artifact-port={artifacts}",
                                    f"--expansion-port={expansion}", f"--flink-master=localhost:{self._rest}",
                                    f"--flink-conf-dir={folder}", f"--artifacts-dir={self._scratch / 'staged'}"),
            "pool": [sys.executable, "-m", "pipelines.cli", "workers", "--port", str(pool)]}

    def _java(self, memory: str, main: str | Path, *arguments: Any) -> list[str]:
        opened = [f"--add-opens=java.base/java.{package}=ALL-UNNAMED" for package in OPEN]
        return ["java", f"-Xmx{memory}", "-XX:MaxDirectMemorySize=1g", *opened,
                f"-Djava.io.tmpdir={self._scratch}", "-Dorg.slf4j.simpleLogger.showDateTime=true",
                "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss",
                "-cp", f"{self._lib}/*", *map(str, (main, *arguments))]

    def start(self, *names: str) -> None:
        """Starts the parts of these names, all if there are none, and waits until they answer."""
        environment = {**os.environ, "PYTHONPATH": str(HERE.parents[2]), "TMPDIR": str(self._scratch)}
        names = names or tuple(self._commands)
        for name in names:
            with open(self._folder / f"{name}.log", "ab") as log:
                self._processes[name] = subprocess.Popen(
                    self._commands[name], stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=environment,
                    start_new_session=True)
        ports = {"jobmanager": self._rest, "jobserver": int(self.job_endpoint.split(":")[1]),
                 "pool": int(self.worker_pool.split(":")[1])}
        for name in set(names) & set(ports):
            wait_until(f"{name} that listens", functools.partial(_listens, ports[name]))
        wait_until("two slots", lambda: self.asked("overview")["slots-total"] == 2)

    def kill(self, name: str) -> None:
        """Ends a part as a machine does that loses its power."""
        os.killpg(self._processes[name].pid, signal.SIGKILL)
        self._processes.pop(name).wait()

    def stop(self) -> None:
        """Ends all parts."""
        for process in reversed(self._processes.values()):
            os.killpg(process.pid, signal.SIGTERM)
        for process in self._processes.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def asked(self, path: str) -> Any:
        """What Flink's REST API says."""
        with urllib.request.urlopen(f"http://localhost:{self._rest}/{path}", timeout=10) as answer:
            return json.load(answer)

    def jobs(self) -> list[dict[str, Any]]:
        """Flink's jobs, with their `name` and `state`."""
        return self.asked("jobs/overview")["jobs"]

    def wait_for(self, name: str) -> None:
        """Waits for a job, named by how its name begins, to have a task that runs."""
        wait_until(f"{name} at work", lambda: any(
            job["name"].startswith(name) and job["tasks"]["running"] for job in self.jobs()))

    def processes(self) -> dict[str, list[int]]:
        """Part → its processes; `workers` are those of the pool."""
        return {name: [process.pid] for name, process in self._processes.items()} | {"workers": self.workers()}

    def workers(self) -> list[int]:
        """The pool's Python processes."""
        found, pool = [], self._processes["pool"].pid
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
                if parent == pool and b"SdkHarness" in (folder / "cmdline").read_bytes():   # A dead one has no command.
                    found.append(int(folder.name))
            except OSError:   # It has just gone.
                pass
        return found


def wait_until(what: str, there: Callable[[], Any]) -> None:
    """Waits for something, on a busy machine for long.

    Raises:
        TimeoutError: it does not come.
    """
    end = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < end:
        try:
            if there():
                return
        except (OSError, ValueError):
            pass
        time.sleep(0.2)
    raise TimeoutError(f"Flink: no {what} within {WAIT_SECONDS} s")


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("localhost", port), 1).close()
    except OSError:
        return False
    return True
