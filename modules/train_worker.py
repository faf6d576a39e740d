"""One of the processes of a training with `strategy: multi_worker`.

TF_CONFIG in its environment says which one it is. The Trainer starts the first itself, in the run; whoever runs the
cluster starts the others, with `textrail train-worker`, on any machine that reaches the first one and the run's files.
All do the same work on files of their own; what the first writes counts. A process of its own it must be, for
TensorFlow joins a cluster before anything else or never.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import glob
import importlib
import json
import logging
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from typing import TYPE_CHECKING, Any

from modules import progress, rendezvous
from modules.errors import TextrailError

if TYPE_CHECKING:
    from modules.training import TrainArgs

WAIT_SECONDS = 1800   # For all others to come.
JOIN_SECONDS = 300    # For TensorFlow to join those that have come.
GONE_SECONDS = 10     # From an operation that failed to the news of which process is gone.
SHARED = "processes"  # A file of the checkpoints' folder that all must see.
SCRATCH = "textrail-worker-"   # How folders for what counts for nothing begin.


def check_is_first(streams: int) -> None:
    """Refuses what a run with `strategy: multi_worker` would fail with after hours of other work.

    Args:
        streams: `training.loading.streams`.

    Raises:
        TextrailError: this process is not the first of a cluster, or its processes cannot share the streams.
    """
    from modules.streams import check_shared

    here = rendezvous.place()
    if here.number:
        raise TextrailError(f"the run in the first process of TF_CONFIG, at {here.hosts[0]}",
                            f"it in {here.name(here.number)}", f"Start `{rendezvous.COMMAND}` here instead.")
    check_shared(streams, len(here.hosts))


def train_here_and_elsewhere(run_fn: str, args: TrainArgs, code: str) -> None:
    """Trains as the first of the cluster's processes, in one of its own; progress comes back to this one.

    Args:
        run_fn: import path of the function.
        args: what it is called with; every process must reach its files and its `checkpoint_dir`.
        code: fingerprint of this project's code, which must be the same everywhere.

    Raises:
        TextrailError: this is not the first process, another one does not come, fails or is gone, or the training
            failed for a reason of ours.
        RuntimeError: it failed for another one.
    """
    check_is_first(args.settings["training"].get("loading", {}).get("streams", 1))
    token = _leave_token(args.checkpoint_dir)
    child = subprocess.Popen([sys.executable, "-m", "modules.train_worker"], text=True, stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, start_new_session=True,
                             env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))})
    failure = None
    try:
        assert child.stdin is not None
        # It stays open: when this process ends, however, the other one reads its end.
        training = {"run_fn": run_fn, "args": dataclasses.asdict(args), "token": token}
        child.stdin.write(json.dumps({"training": training, "code": code, "wait_seconds": WAIT_SECONDS}) + "\n")
        child.stdin.flush()
        for told in _told(child):
            if "error" in told:
                failure = TextrailError(*told["error"])
            else:
                progress.report(told["message"], **told["fields"])
        if child.wait():
            raise failure or RuntimeError(f"the training's process ended with status {child.returncode}; the log says "
                                          "why")
    finally:
        child.kill()   # TensorFlow keeps gentler signals from ending it.
        child.wait()


def _told(child: subprocess.Popen) -> Iterator[dict[str, Any]]:
    for line in child.stdout or ():
        try:
            told = json.loads(line)
        except ValueError:
            told = None
        if isinstance(told, dict) and ("error" in told or "message" in told):
            yield told
        else:
            print(line, end="")   # TensorFlow's or Keras's, for the log.


def main() -> int:
    """The first process: reads from standard input what the Trainer has it train, and writes how it goes."""
    told = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_the_run, daemon=True).start()
    handler = logging.Handler()
    handler.emit = lambda record: _say(   # type: ignore[method-assign]
        {"message": record.getMessage(), "fields": getattr(record, "progress", {})})
    progress.LOGGER.addHandler(handler)
    here = rendezvous.place()

    def fail(error: TextrailError) -> None:
        _say({"error": [error.expected, error.received, error.fix]})
        os._exit(1)   # Whatever TensorFlow waits for.

    try:
        if others := ", ".join(map(here.name, range(1, len(here.hosts)))):
            progress.report(f"waiting for {others}: `{rendezvous.COMMAND}` there", lasting=True)
        training = told["training"]
        connections = rendezvous.gather(here, _card(told["code"]), training, told["wait_seconds"])
        _train(here, connections, training["run_fn"], _args(training["args"]), fail)
    except TextrailError as error:
        fail(error)
    return 0


def take_part(code: str, wait_seconds: float) -> None:
    """Any other process: waits for the run to come to its training, and takes part in it unless it has none.

    Args:
        code: see `train_here_and_elsewhere`.
        wait_seconds: for the run to come there.

    Raises:
        TextrailError: this is the first process, no run came, this process cannot take part, or the training failed.
    """
    told: dict[str, Any] = {}
    here = rendezvous.place()
    if not here.number:
        raise TextrailError("the number of another process in TF_CONFIG", f"that of the first, {here.hosts[0]}",
                            "That is where `textrail run` starts.")

    def hear(training: dict[str, Any]) -> None:
        _check_reached(_args(training["args"]), training["token"])
        told.update(training)

    print(f"{here.name(here.number)} waits for a training at {here.hosts[0]}", flush=True)
    # Before it is asked whether it can train: of a busy machine or a slow disk this takes minutes.
    importlib.import_module("modules.training")
    connection = rendezvous.come(here, _card(code), wait_seconds, hear)
    if connection is None:
        print("nothing to train: the run has taken its model from the cache", flush=True)
        return
    print(f"takes part in {told['args']['checkpoint_dir']}", flush=True)
    with _scratch() as scratch:   # What it writes counts for nothing.
        args = dataclasses.replace(_args(told["args"]), serving_dir=os.path.join(scratch, "model"),
                                   run_dir=os.path.join(scratch, "run"))

        def fail(error: TextrailError) -> None:
            shutil.rmtree(scratch, ignore_errors=True)
            print(f"textrail: {error}", file=sys.stderr, flush=True)
            os._exit(1)   # Whatever TensorFlow waits for.

        _train(here, {0: connection}, told["run_fn"], args, fail)
    print("the training is over", flush=True)


def send_away() -> None:
    """Tells processes that wait for a training that the run has none for them."""
    rendezvous.send_away(rendezvous.place())


@contextlib.contextmanager
def _scratch() -> Iterator[str]:
    """A folder that goes with this process; a killed one's goes when the next one starts.

    Whoever uses such a folder holds its lock, and has it before the folder has its name.
    """
    for left in glob.glob(os.path.join(tempfile.gettempdir(), f"{SCRATCH}*")):
        with contextlib.suppress(OSError), _locked(left):   # One is in use, or another user's.
            shutil.rmtree(left)
    begun = tempfile.mkdtemp(prefix="textrail-begun-")
    folder = begun.replace("textrail-begun-", SCRATCH)
    with _locked(begun):
        os.rename(begun, folder)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: str) -> Iterator[None]:
    """Holds a folder's lock.

    Raises:
        OSError: another process holds it, or the folder is not ours.
    """
    opened = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(opened)


def _train(here: rendezvous.Place, others: Mapping[int, rendezvous.Connection], run_fn: str, args: TrainArgs,
           fail: Callable[[TextrailError], None]) -> None:
    """Joins TensorFlow's cluster and trains; `fail` ends the process."""
    watch = rendezvous.Watch(here, others, fail)
    late = threading.Timer(JOIN_SECONDS, fail, [TextrailError(
        f"TensorFlow's servers at {', '.join(here.hosts)} to reach each other within {JOIN_SECONDS} s", "silence",
        "All processes must reach all of these addresses: see to names, ports and firewalls.")])
    late.daemon = True
    late.start()
    try:
        # Before anything of TensorFlow runs.
        from modules.training import choose_strategy

        choose_strategy("multi_worker")
        late.cancel()
        # TensorFlow takes both for itself, and a process that waits for others would hear neither.
        for end in (signal.SIGTERM, signal.SIGINT):
            signal.signal(end, signal.SIG_DFL)
        module, function = run_fn.rsplit(".", 1)
        getattr(importlib.import_module(module), function)(args)
        watch.finish()
    except Exception as error:
        import tensorflow as tf

        if isinstance(error, tf.errors.OpError) and others:
            time.sleep(GONE_SECONDS)   # Where another one is gone, `fail` tells of it meanwhile.
        if not isinstance(error, TextrailError):
            line = (str(error).strip().splitlines() or [""])[0]
            logging.getLogger(__name__).exception("training failed")
            error = TextrailError("a training without errors of TensorFlow", f"{type(error).__name__}: {line}",
                                  "The log has the traceback.")
        watch.tell(error)
        raise error from None
    finally:
        late.cancel()


def _args(told: dict[str, Any]) -> TrainArgs:
    from modules.training import TrainArgs

    return TrainArgs(**told)


def _card(code: str) -> dict[str, str]:
    """What must be the same in all processes."""
    return {"Python": ".".join(platform.python_version_tuple()[:2]),
            **{name: metadata.version(name) for name in ("tensorflow", "keras")}, "code": code[:12]}


def _leave_token(folder: str) -> str:
    """Writes what shows that another process sees the same folder."""
    import tensorflow as tf

    token = uuid.uuid4().hex
    tf.io.gfile.makedirs(folder)
    with tf.io.gfile.GFile(os.path.join(folder, SHARED), "w") as file:
        file.write(token)
    return token


def _check_reached(args: TrainArgs, token: str) -> None:
    """Refuses a training whose files are not all reached from here.

    Raises:
        TextrailError: one is not.
    """
    import tensorflow as tf

    named = {"training": args.train_files[0], "validation": args.validation_files[0],
             "the transform graph": args.transform_graph, "the encoder": args.encoder,
             "the vocabulary": args.vocabulary, "checkpoints": os.path.join(args.checkpoint_dir, SHARED)}
    for what, path in named.items():
        if path and not tf.io.gfile.exists(path):
            raise TextrailError(f"{what} at {path}", "nothing there", "Keep the workspace, and beam.artifacts where it "
                                "is set, in a folder that all machines have under the same path.")
    with tf.io.gfile.GFile(named["checkpoints"]) as file:
        if file.read() != token:
            raise TextrailError(f"one folder {args.checkpoint_dir} for all processes", "another one",
                                "Keep the workspace in a folder that all machines share.")


def _end_with_the_run() -> None:
    sys.stdin.read()
    os._exit(1)


def _say(told: Mapping[str, Any]) -> None:
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    sys.exit(main())
