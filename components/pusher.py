"""Pusher: puts a model that passed where a model server watches, as a new version that appears all at once."""

from __future__ import annotations

import datetime
import json
import os
import tempfile
import time
import uuid
from typing import Any

from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.dsl.io import fileio
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.utils import io_utils, path_utils

from components import object_store  # noqa: F401  # serves s3:// and minio://
from components.artifacts import DataBlessing
from components.verdict import VERDICT_FILE, refusal
from components.versions import read_manifest, served_version, versions
from modules import progress
from modules.errors import TextrailError
from modules.manifest import DESCRIPTION, MANIFEST, TFHUB

# Hidden from model servers, which take all-digits folders for versions.
HIDDEN = ".textrail-"
# Leftovers of a killed push are deleted after this long, when no push can still be writing them.
STALE_SECONDS = 24 * 3600


class Executor(base_executor.BaseExecutor):
    """A gate and a push: what is not blessed raises, what is blessed becomes a version."""

    def Do(self, input_dict: dict[str, list[types.Artifact]], output_dict: dict[str, list[types.Artifact]],
           exec_properties: dict[str, Any]) -> None:
        """Pushes the model and marks `pushed_model` as TFX's own Pusher does.

        Raises:
            TextrailError: the model missed a threshold or failed its check, and the message says which and why; or
                what is served is not what the model was compared with.
        """
        verdict = _read_json(artifact_utils.get_single_uri(input_dict["evaluation"]), VERDICT_FILE)
        _require_blessings(input_dict, verdict)
        gate = input_dict.get("gate")
        report = _read_json(artifact_utils.get_single_uri(gate), "report.json") if gate else {}
        model = artifact_utils.get_single_uri(input_dict["model"])
        destination, baseline = exec_properties["destination"], exec_properties["baseline_version"]
        facts = {"recipe": exec_properties["recipe"], "attempt": exec_properties["attempt"], "model": model,
                 "baseline_version": baseline or None, "label_counts": report.get("label_counts", {}),
                 "metrics": verdict["metrics"]}
        version = served_version(destination)
        now = read_manifest(os.path.join(destination, version)) if version else {}
        # The same attempt: this very push was cut off behind its last step, or its cached model was lost and made anew.
        if version and (now.get("model") == model or now.get("attempt") == facts["attempt"]):
            progress.report(f"version {version} in {destination} is this very model", version=version, lasting=True)
        else:
            _require_comparison(destination, version or "", baseline)
            version = push(path_utils.serving_model_path(model), destination, facts)
            delete_old(destination, exec_properties["keep"])
            progress.report(f"pushed version {version} to {destination}", version=version, lasting=True)

        pushed = artifact_utils.get_single_instance(output_dict["pushed_model"])
        fileio.makedirs(pushed.uri)
        pushed.set_int_custom_property("pushed", 1)
        pushed.set_string_custom_property("pushed_destination", os.path.join(destination, version))
        pushed.set_string_custom_property("pushed_version", version)


def _read_json(folder: str, name: str) -> dict[str, Any]:
    with fileio.open(os.path.join(folder, name), "r") as file:
        return json.loads(file.read())


def _require_blessings(input_dict: dict[str, list[types.Artifact]], verdict: dict[str, Any]) -> None:
    blessed, checked = (artifact_utils.get_single_instance(input_dict[name]).get_int_custom_property("blessed")
                        for name in ("model_blessing", "infra_blessing"))
    if not blessed:
        raise refusal(verdict)
    if not checked:
        raise TextrailError("a model that answers in a fresh process", "one that ModelCheck did not bless",
                            "Nothing was pushed. Read ModelCheck's log for the reason.")


def _require_comparison(destination: str, served: str, compared: str) -> None:
    """Two runs may push to one place: the second must not replace what it was never compared with."""
    if served != compared:
        raise TextrailError(f"{destination} to serve {f'version {compared}' if compared else 'nothing'}, which the "
                            "model was compared with", f"version {served}" if served else "nothing served",
                            "Another run pushed or deleted a version meanwhile. Nothing was pushed: run again.")


def push(source: str, destination: str, facts: dict[str, Any]) -> str:
    """Copies a SavedModel into the destination as its newest version.

    The copy grows in a hidden folder beside the versions and is renamed when whole, so that a server never sees a
    half. If another push took the same number meanwhile, the next one is tried.

    Args:
        source: folder of the SavedModel; a pretrained encoder goes along, see `write_encoder`.
        destination: folder or URI of the versions; made if missing.
        facts: what is added to the version's textrail.json, beside `pushed_at` and `version`.

    Returns:
        The version: unix seconds, or one more than the newest if that is not less.
    """
    fileio.makedirs(destination)
    hidden = _hidden_folder(destination)
    try:
        io_utils.copy_dir(source, hidden)
        if read_manifest(source).get("shape") == "pretraining":
            write_encoder(source, hidden)
        manifest = read_manifest(source) | facts | {
            "pushed_at": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")}
        while True:
            version = str(max([int(time.time()), *(number + 1 for number in versions(destination))]))
            with fileio.open(os.path.join(hidden, MANIFEST), "w") as file:
                file.write(json.dumps(manifest | {"version": version}, ensure_ascii=False, indent=1))
            try:
                fileio.rename(hidden, os.path.join(destination, version))
                return version
            except Exception:
                # File systems differ in what they raise; only a number taken meanwhile is worth another try.
                if int(version) not in versions(destination):
                    raise
    finally:
        if fileio.exists(hidden):
            fileio.rmtree(hidden)


def write_encoder(source: str, version: str) -> None:
    """Writes the encoder of a pretraining model into the folder of its version, where no model server looks.

    Args:
        source: folder of the SavedModel.
        version: folder or URI; gets `assets.extra/encoder` in HuggingFace's layout, heads included, which
            `transformers` loads, and `assets.extra/tfhub` with the SavedModels `encoder` and `preprocessing`, which
            `hub.load` does.

    Raises:
        TextrailError: see `export_reader.read_export`.
    """
    from modules.export_reader import read_export  # other shapes need not wait for Keras
    from modules.tfhub_export import export_tfhub

    checkpoint, length = read_export(source), read_manifest(source)["max_length"]
    with tempfile.TemporaryDirectory(prefix="textrail-") as folder:   # TensorFlow writes to few stores.
        checkpoint.write(os.path.join(folder, DESCRIPTION), length)
        export_tfhub(checkpoint, os.path.join(folder, TFHUB), length)
        for part in (DESCRIPTION, TFHUB):
            io_utils.copy_dir(os.path.join(folder, part), os.path.join(version, part))


def delete_old(destination: str, keep: int) -> None:
    """Deletes all but the newest versions, and what killed pushes left behind.

    Args:
        destination: folder or URI of the versions.
        keep: versions that stay, at least 1.
    """
    for number in versions(destination)[:-keep]:
        hidden = _hidden_folder(destination)
        # A server that lists the folder sees the version whole or not at all.
        fileio.rename(os.path.join(destination, str(number)), hidden)
        fileio.rmtree(hidden)
    for name in map(str, fileio.listdir(destination)):
        if name.startswith(HIDDEN) and time.time() - int(name.split("-")[1]) > STALE_SECONDS:
            fileio.rmtree(os.path.join(destination, name))


def _hidden_folder(destination: str) -> str:
    return os.path.join(destination, f"{HIDDEN}{int(time.time())}-{uuid.uuid4().hex}")


class PusherSpec(ComponentSpec):
    PARAMETERS = {
        "destination": ExecutionParameter(type=str),
        "keep": ExecutionParameter(type=int),
        "recipe": ExecutionParameter(type=str),
        "baseline_version": ExecutionParameter(type=str),
        "attempt": ExecutionParameter(type=str),
    }
    INPUTS = {
        "model": ChannelParameter(type=standard_artifacts.Model),
        "model_blessing": ChannelParameter(type=standard_artifacts.ModelBlessing),
        "infra_blessing": ChannelParameter(type=standard_artifacts.InfraBlessing),
        "evaluation": ChannelParameter(type=standard_artifacts.ModelEvaluation),
        "gate": ChannelParameter(type=DataBlessing, optional=True),
    }
    OUTPUTS = {"pushed_model": ChannelParameter(type=standard_artifacts.PushedModel)}


class Pusher(base_component.BaseComponent):
    """Pushes a blessed model; a model that is not blessed stops the run."""

    SPEC_CLASS = PusherSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(self, model: types.BaseChannel, model_blessing: types.BaseChannel, infra_blessing: types.BaseChannel,
                 evaluation: types.BaseChannel, destination: str, keep: int, recipe: str, baseline_version: str,
                 attempt: str = "", gate: types.BaseChannel | None = None):
        """Builds the component.

        Args:
            model: the candidate.
            model_blessing: from Evaluator.
            infra_blessing: from ModelCheck.
            evaluation: from Evaluator; says why a model is not pushed, and its metrics go with the version.
            destination: folder or URI that the model server watches.
            keep: newest versions that stay.
            recipe: what the model was made with, kept in the version's textrail.json.
            baseline_version: version it was compared with; "" if none.
            attempt: names this push. The cache answers only for an attempt whose version is still served.
            gate: from AnomalyGate; its label counts go with the version, to tell the next run's drift.
        """
        super().__init__(PusherSpec(
            model=model, model_blessing=model_blessing, infra_blessing=infra_blessing, evaluation=evaluation,
            gate=gate, destination=destination, keep=keep, recipe=recipe, baseline_version=baseline_version,
            attempt=attempt, pushed_model=types.Channel(type=standard_artifacts.PushedModel)))
