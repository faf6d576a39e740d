"""One of the processes of a training with `strategy: multi_worker`: `python -m modules.train_worker FOLDER`.

TF_CONFIG in its environment says which one it is. The Trainer starts the first itself, in the run; whoever runs the
cluster starts the others, on any machine that reaches the run's files. All do the same work on files of their own; what
the first writes counts. A process of its own it must be, for TensorFlow joins a cluster before anything else or never.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from modules import progress
from modules.errors import TextrailError

ARGUMENTS = "training.json"   # What the Trainer leaves for every process.
WAIT_SECONDS = 3600           # For it to come, with the data work before it.


def cluster() -> tuple[int, int]:
    """This process's number and how many there are, by TF_CONFIG.

    Raises:
        TextrailError: there is none, or it is not what TensorFlow reads.
    """
    config = os.environ.get("TF_CONFIG", "")
    try:
        values = json.loads(config)
        chiefs, workers = (values["cluster"].get(key, []) for key in ("chief", "worker"))
        kind, index = values["task"]["type"], int(values["task"]["index"])
        number = {"chief": 0, "worker": len(chiefs)}[kind] + index
        if not 0 <= number < len(chiefs) + len(workers):
            raise ValueError(f"task {kind} {index}")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TextrailError(
            'TF_CONFIG such as {"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", '
            '"index": 0}} for training.strategy=multi_worker', config or "none",
            f"Set it for every process ({error}); docs/cluster.md has an example.") from None
    return number, len(chiefs) + len(workers)


def train_here_and_elsewhere(run_fn: str, args: Any) -> None:
    """Trains as the first of the cluster's processes, in one of its own; progress comes back to this one.

    Args:
        run_fn: import path of the function.
        args: its `TrainArgs`; `checkpoint_dir` must be where every process reaches it.

    Raises:
        TextrailError: this is not the first process, or the training failed for a reason of ours.
        RuntimeError: it failed for another one.
    """
    import tensorflow as tf

    number, count = cluster()
    if number:
        raise TextrailError("the run in the first process of TF_CONFIG's cluster", f"it in number {number} of {count}",
                            f"Start the others with: python -m modules.train_worker {args.checkpoint_dir}")
    tf.io.gfile.makedirs(args.checkpoint_dir)
    path = os.path.join(args.checkpoint_dir, ARGUMENTS)
    with tf.io.gfile.GFile(f"{path}.part", "w") as file:
        file.write(json.dumps({"run_fn": run_fn, "args": dataclasses.asdict(args)}))
    tf.io.gfile.rename(f"{path}.part", path, overwrite=True)
    progress.report(f"{count - 1} more to be started: python -m modules.train_worker {args.checkpoint_dir}",
                    lasting=True)
    child = subprocess.Popen([sys.executable, "-m", "modules.train_worker", args.checkpoint_dir], text=True,
                             stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    failure = None
    try:
        for told in _told(child):
            if "error" in told:
                failure = TextrailError(*told["error"])
            else:
                progress.report(told["message"], **told["fields"])
    except BaseException:
        child.terminate()
        raise
    if child.wait():
        raise failure or RuntimeError(f"the training's process ended with status {child.returncode}; the log says why")


def _told(child: subprocess.Popen) -> Iterator[dict[str, Any]]:
    for line in child.stdout or ():
        try:
            yield json.loads(line)
        except ValueError:
            print(line, end="")   # TensorFlow's or Keras's, for the log.


def main(folder: str) -> int:
    """Waits for the run to come to its training, then takes part in it."""
    number, _ = cluster()
    handler = logging.Handler()
    if number == 0:
        handler.emit = _tell   # type: ignore[method-assign]
        progress.LOGGER.addHandler(handler)
    try:
        # Before anything of TensorFlow runs.
        from modules.training import TrainArgs, choose_strategy

        choose_strategy("multi_worker")
        import tensorflow as tf

        path, began = os.path.join(folder, ARGUMENTS), time.monotonic()
        while not tf.io.gfile.exists(path):
            if time.monotonic() - began > WAIT_SECONDS:
                raise TextrailError(f"a training in {folder}", f"none after {WAIT_SECONDS} s",
                                    "Start the run, whose Trainer names its folder.")
            time.sleep(1)
        with tf.io.gfile.GFile(path) as file:
            told = json.load(file)
        args = TrainArgs(**told["args"])
        if number:   # What it writes counts for nothing.
            scratch = tempfile.mkdtemp(prefix="textrail-worker-")
            args = dataclasses.replace(args, serving_dir=os.path.join(scratch, "model"),
                                       run_dir=os.path.join(scratch, "run"))
        module, function = told["run_fn"].rsplit(".", 1)
        getattr(importlib.import_module(module), function)(args)
    except TextrailError as error:
        print(json.dumps({"error": [error.expected, error.received, error.fix]}), flush=True)
        return 1
    return 0


def _tell(record: logging.LogRecord) -> None:
    print(json.dumps({"message": record.getMessage(), "fields": getattr(record, "progress", {})}), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
