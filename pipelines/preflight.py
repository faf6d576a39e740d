"""A look at the workers before a run begins: one small Beam job, and a sentence if it fails or takes too long.

Flink waits for workers for ever: one that cannot start, for want of a package or of an address, would show as a run
that does not move.
"""

from __future__ import annotations

import json
import os
import platform
import socket
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import apache_beam as beam
import tensorflow as tf
from apache_beam.metrics import MetricsFilter

from components import files, worker_probe
from components.beam_jobs import end_jobs
from components.beam_options import ENDPOINTS, environment_of
from components.beam_runner import make_pipeline
from components.code_fingerprint import project_fingerprint
from components.versions import served_version
from modules.errors import TextrailError
from pipelines.failures import gist, told
from pipelines.sections import Data, Settings

# What workers import; more comes with these.
OWN = ("components.splits_writer", "components.vocabulary_gen", "components.text_transform",
       "components.instance_gen", "components.judging", "modules.tokenization", "modules.subwords")
FOLDER = ".preflight-"   # How the one begins that workers look for and write into.
ENDPOINT_SECONDS = 5   # For a job server to accept a connection.


class Seen(NamedTuple):
    """What the workers told.

    Attributes:
        hosts: their machines, sorted.
        versions: name → version.
        seconds: until all had answered.
    """

    hosts: list[str]
    versions: dict[str, str]
    seconds: float

    def __str__(self) -> str:
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        return f"workers on {', '.join(self.hosts)}: {versions}; answered after {self.seconds:.0f} s"


def files_read(settings: Settings, destination: str) -> list[str]:
    """A file of each place that workers read, beside what the components make.

    Args:
        settings: validated, with absolute paths.
        destination: of pushed models; the one served now is judged beside the new one.
    """
    found = data_files(settings.data)
    if version := served_version(destination):
        found.append(os.path.join(destination, version, "saved_model.pb"))
    return found


def data_files(data: Data) -> list[str]:
    """The first file of each of `data`'s paths."""
    paths = list(data.path.values()) if isinstance(data.path, dict) else [data.path]
    patterns = [*paths, data.pairs, data.data_dir and os.path.join(data.data_dir, "**", "dataset_info.json")]
    found = [files.find(pattern) or files.find(os.path.join(pattern, "*")) for pattern in patterns if pattern]
    return [of[0].path for of in found if of]


def is_wanted(settings: Mapping[str, Any]) -> bool:
    """Whether there are workers elsewhere, and time to look at them."""
    return settings["runner"] != "direct" and settings["preflight_seconds"] > 0


def check(settings: Mapping[str, Any], root: str, reads: Sequence[str]) -> Seen:
    """Sends a small job to the workers, and refuses what would fail or hang later.

    Jobs that a killed call for the same folder has left on the cluster are ended before.

    Args:
        settings: the section `beam` of a run's settings; `preflight_seconds` bounds the time.
        root: folder or URI for what is made; made if it is not there.
        reads: files that workers read.

    Returns:
        What they told.

    Raises:
        TextrailError: nobody answers where the job server should be, no worker answers in time, workers have other
            versions or other code, or do not reach a path.
    """
    began = time.monotonic()
    _check_paths_can_be_shared(settings, root)
    _check_server_answers(settings)
    end_jobs(settings, root)
    for left in tf.io.gfile.glob(os.path.join(root, f"{FOLDER}*")):
        tf.io.gfile.rmtree(left)
    folder = os.path.join(root, f"{FOLDER}{uuid.uuid4().hex}")
    tf.io.gfile.makedirs(folder)
    try:
        with tf.io.gfile.GFile(os.path.join(folder, "here"), "w") as file:
            file.write("")
        answers = _ask(settings, root, {"root": folder, "reads": list(reads), "own": list(OWN)})
    finally:
        tf.io.gfile.rmtree(folder)
    here = worker_probe_here()
    for answer in answers:
        _check_answer(answer, here, root, folder, settings)
    return Seen(sorted({answer["host"] for answer in answers}), answers[0]["versions"], time.monotonic() - began)


def worker_probe_here() -> dict[str, Any]:
    """Versions and code of this process."""
    import tensorflow_text
    from tfx import version

    return {"code": project_fingerprint(), "versions": {
        "Python": platform.python_version(), "Beam": beam.__version__, "TensorFlow": tf.__version__,
        "TensorFlow Text": tensorflow_text.__version__, "TFX": version.__version__}}


def _check_paths_can_be_shared(settings: Mapping[str, Any], root: str) -> None:
    """Refuses a folder of this machine where workers are in containers, which have none of its folders."""
    if environment_of(settings) == "DOCKER" and not files.is_uri(root):
        raise TextrailError(f"a place for artifacts that containers reach, with beam.runner={settings['runner']} and "
                            "an image", f"{root}, a folder of this machine",
                            "Set beam.artifacts to a URI such as gs://bucket/runs.")


def _check_server_answers(settings: Mapping[str, Any]) -> None:
    if settings["runner"] not in ENDPOINTS:
        return
    endpoint = settings["job_endpoint"] or ENDPOINTS[settings["runner"]]
    host, _, port = endpoint.rpartition(":")
    try:
        socket.create_connection((host, int(port)), ENDPOINT_SECONDS).close()
    except OSError as error:
        raise TextrailError(f"Beam's job server of {settings['runner']} at {endpoint}", f"none ({error})",
                            "Start it, or correct beam.job_endpoint; docs/cluster.md shows how.") from error


def _ask(settings: Mapping[str, Any], root: str, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Runs the job, in a thread of its own since any call of it may wait for ever.

    Returns:
        The workers' answers, at least one.

    Raises:
        TextrailError: there is none in time, or the job failed.
    """
    # Pickled functions are imported where they are unpickled; a worker without our modules could not even say so.
    source = Path(worker_probe.__file__).read_text("utf-8")
    expression = f"(lambda space: exec({source!r}, space) or space['answer'](**{dict(arguments)!r}))({{}})"
    found: list[Any] = []
    result: list[Any] = []

    def run() -> None:
        try:
            pipeline = make_pipeline(settings, "preflight", root)
            _ = (pipeline
                 | "Questions" >> beam.Create([expression] * 2 * (settings["parallelism"] or 1))
                 | "Spread" >> beam.Reshuffle()
                 | "Answer" >> beam.Map(eval).with_output_types(int))
            result.append(pipeline.run())
            result[0].wait_until_finish()
            counters = result[0].metrics().query(MetricsFilter().with_namespace("textrail.preflight"))["counters"]
            found.extend(json.loads(counter.key.metric.name) for counter in counters)
        except BaseException as error:
            found.append(error)

    thread = threading.Thread(target=run, name="preflight", daemon=True)
    thread.start()
    thread.join(settings["preflight_seconds"])
    if thread.is_alive():
        end_jobs(settings, root)
        raise TextrailError(f"an answer of a worker within {settings['preflight_seconds']:g} s "
                            "(beam.preflight_seconds)", "none" if result else "none, nor of the job server",
                            _look_at(settings))
    if found and isinstance(found[0], BaseException):
        error = found[0]
        raise TextrailError("a worker that answers", told(error) or gist(error), _look_at(settings)) from error
    if not found:
        raise TextrailError("a worker that answers", "a job that ended without one", _look_at(settings))
    return found


def _look_at(settings: Mapping[str, Any]) -> str:
    """Where the reason is most often, by where the workers are."""
    environment = environment_of(settings)
    if environment == "EXTERNAL":
        return (f"Is a pool of workers at {settings['worker_pool']} of each of the cluster's machines? Start it with "
                "`textrail workers` (a pool started otherwise needs this environment's python first on PATH: its "
                "workers start as plain `python`, and die in silence without Beam).")
    if environment == "DOCKER":
        return f"Can the cluster's machines pull {settings['image']}, and has it this project's environment?"
    return "Has the cluster free slots, at least beam.parallelism of them? Its own page and log say more."


def _check_answer(answer: Mapping[str, Any], here: Mapping[str, Any], root: str, folder: str,
                  settings: Mapping[str, Any]) -> None:
    fix = {"EXTERNAL": "Start the pool of workers from this project's environment (`textrail workers`).",
           "DOCKER": "Build the image anew from this project's environment, or, where only the code is older, set "
                     "beam.ship_code=true."}.get(environment_of(settings) or "", "Start the run anew.")
    where = f"the workers on {answer['host']}"
    for name, version in here["versions"].items():
        theirs = answer["versions"].get(name)
        # Pickles, and TensorFlow's graphs, keep to a minor version of Python.
        same = theirs and (theirs.split(".")[:2] == version.split(".")[:2] if name == "Python" else theirs == version)
        if not same:
            reason = next((problem for problem in answer["problems"] if theirs is None), "")
            raise TextrailError(f"{name} {version} on {where}, as here", theirs or reason or "none", fix)
    if answer["problems"]:
        raise TextrailError(f"modules of this project on {where}", answer["problems"][0], fix)
    if answer["code"] != here["code"]:
        raise TextrailError(f"the same code of textrail on {where} as here", "other source files", fix)
    for path, reason in answer["unseen"].items():
        if path == folder:
            raise TextrailError(f"a folder for artifacts that {where} reach", f"{root}, where they find: {reason}",
                                "Set beam.artifacts to a folder that all machines share, or a URI.")
        raise TextrailError(f"a file that {where} can read", f"{path}, where they find: {reason}",
                            "Put it where all machines see it under the same path, or at a URI.")
