"""Trainer: runs a task's `run_fn` on the transformed examples and the encoder or vocabulary."""

import hashlib
import importlib
import json
import os
from typing import Any

import tensorflow as tf
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, channel, component_spec, standard_artifacts
from tfx.utils import path_utils

from components import environment
from components.artifacts import DataBlessing, Encoder, Vocabulary
from components.code_fingerprint import code_fingerprint, project_fingerprint
from modules import progress
from modules.train_worker import train_here_and_elsewhere
from modules.training import TrainArgs


class TrainerSpec(component_spec.ComponentSpec):
    PARAMETERS = {
        "run_fn": component_spec.ExecutionParameter(type=str),
        "settings": component_spec.ExecutionParameter(type=str),
        "code": component_spec.ExecutionParameter(type=str),
        "checkpoints": component_spec.ExecutionParameter(type=str),
    }
    INPUTS = {
        "examples": component_spec.ChannelParameter(type=standard_artifacts.Examples),
        "transform_graph": component_spec.ChannelParameter(type=standard_artifacts.TransformGraph, optional=True),
        "encoder": component_spec.ChannelParameter(type=Encoder, optional=True),
        "vocabulary": component_spec.ChannelParameter(type=Vocabulary, optional=True),
        "gate": component_spec.ChannelParameter(type=DataBlessing),
    }
    OUTPUTS = {
        "model": component_spec.ChannelParameter(type=standard_artifacts.Model),
        "model_run": component_spec.ChannelParameter(type=standard_artifacts.ModelRun),
    }


class Executor(base_executor.BaseExecutor):
    """Turns artifacts into `TrainArgs` and calls the `run_fn`."""

    def Do(self, input_dict: dict[str, list], output_dict: dict[str, list], exec_properties: dict[str, Any]) -> None:
        """Trains and exports.

        Args:
            input_dict: `examples` (transformed, splits train and validation), `gate`, `encoder` or `vocabulary` or
                both, and maybe `transform_graph`.
            output_dict: `model`, a SavedModel under `Format-Serving/`; `model_run`, TensorBoard logs and history, with
                the custom properties `stack`, versions as JSON, and `machine`.
            exec_properties: see `Trainer`.
        """
        model, run = (artifact_utils.get_single_instance(output_dict[key]) for key in ("model", "model_run"))
        run.set_string_custom_property("stack", json.dumps(environment.versions()))
        run.set_string_custom_property("machine", environment.machine())
        checkpoint_dir = os.path.join(exec_properties["checkpoints"], _identity(input_dict, exec_properties))
        args = TrainArgs(
            train_files=_files(input_dict["examples"], "train"),
            validation_files=_files(input_dict["examples"], "validation"),
            transform_graph=_folder(input_dict, "transform_graph"),
            encoder=_folder(input_dict, "encoder"), vocabulary=_folder(input_dict, "vocabulary"),
            serving_dir=path_utils.serving_model_dir(model.uri), run_dir=run.uri, checkpoint_dir=checkpoint_dir,
            settings=json.loads(exec_properties["settings"]))
        module, function = exec_properties["run_fn"].rsplit(".", 1)
        if tf.io.gfile.exists(checkpoint_dir):
            progress.report(f"found the checkpoint of a training that was cut off: {checkpoint_dir}", lasting=True)
        if args.settings.get("training", {}).get("strategy") == "multi_worker":
            train_here_and_elsewhere(exec_properties["run_fn"], args, project_fingerprint())
        else:
            getattr(importlib.import_module(module), function)(args)
        if tf.io.gfile.exists(checkpoint_dir):
            tf.io.gfile.rmtree(checkpoint_dir)


def _identity(input_dict: dict[str, list], exec_properties: dict[str, Any]) -> str:
    """Names a training by all it depends on, so that only the very same one resumes from its checkpoint.

    With several streams it is the same on any number of devices, see `modules.streams`.
    """
    inputs = {key: [artifact.uri for artifact in artifacts] for key, artifacts in input_dict.items()}
    settings = json.loads(exec_properties["settings"])
    if settings.get("training", {}).get("loading", {}).get("streams", 1) > 1:
        del settings["training"]["strategy"]
    parts = [inputs, settings, {key: exec_properties[key] for key in ("run_fn", "code")}]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _folder(input_dict: dict[str, list], key: str) -> str:
    """Where an input lies; "" where the shape has none of it."""
    return artifact_utils.get_single_uri(input_dict[key]) if input_dict.get(key) else ""


def _files(examples: list, split: str) -> list[str]:
    folder = artifact_utils.get_split_uri(examples, split)
    return [os.path.join(folder, name) for name in sorted(tf.io.gfile.listdir(folder)) if not name.startswith(".")]


class Trainer(base_component.BaseComponent):
    """Trains a model with the `run_fn` of a task module.

    Args:
        examples: transformed examples.
        gate: that the data passed, so that nothing trains before.
        settings: plain values for the `run_fn`.
        run_fn: its import path. Its source and all it uses counts for the cache.
        checkpoints: folder for checkpoints of a training in progress.
        encoder: pretrained weights and their vocabulary, of a shape that starts from some.
        vocabulary: learned, of a shape that starts from new weights.
        transform_graph: the graph that made the examples, which the model takes along, of a shape that has one.
    """

    SPEC_CLASS = TrainerSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(self, examples: channel.BaseChannel, gate: channel.BaseChannel, settings: dict[str, Any],
                 run_fn: str, checkpoints: str, encoder: channel.BaseChannel | None = None,
                 vocabulary: channel.BaseChannel | None = None, transform_graph: channel.BaseChannel | None = None):
        super().__init__(TrainerSpec(
            examples=examples, transform_graph=transform_graph, encoder=encoder,
            vocabulary=vocabulary, gate=gate,
            settings=json.dumps(settings, sort_keys=True), run_fn=run_fn, code=code_fingerprint(run_fn),
            checkpoints=checkpoints, model=channel.Channel(type=standard_artifacts.Model),
            model_run=channel.Channel(type=standard_artifacts.ModelRun)))
