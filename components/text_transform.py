"""TextTransform: raw texts and labels to unpadded token ids and class indices, and the graph that does it."""

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import tensorflow as tf
from tfx.components.transform import executor as tfx_transform
from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.types import artifact_utils, channel, component_spec, standard_artifacts
from tfx.utils import io_utils

from components.artifacts import DataBlessing, Encoder
from components.code_fingerprint import code_fingerprint
from components.schema_gen import class_names
from modules.classifier import UNKNOWN_LABEL
from modules.errors import TextrailError


class TextTransformSpec(component_spec.ComponentSpec):
    PARAMETERS: ClassVar = {
        "settings": component_spec.ExecutionParameter(type=str),
        "preprocessing_fn": component_spec.ExecutionParameter(type=str),
        "code": component_spec.ExecutionParameter(type=str),
    }
    INPUTS: ClassVar = {
        "examples": component_spec.ChannelParameter(type=standard_artifacts.Examples),
        "schema": component_spec.ChannelParameter(type=standard_artifacts.Schema),
        "encoder": component_spec.ChannelParameter(type=Encoder),
        "gate": component_spec.ChannelParameter(type=DataBlessing, optional=True),
    }
    OUTPUTS: ClassVar = {
        "transform_graph": component_spec.ChannelParameter(type=standard_artifacts.TransformGraph),
        "transformed_examples": component_spec.ChannelParameter(type=standard_artifacts.Examples),
    }


class Executor(tfx_transform.Executor):
    """TFX's Transform, told what the schema and the encoder already know."""

    def Do(self, input_dict: dict[str, list], output_dict: dict[str, list], exec_properties: dict[str, Any]) -> None:
        """Runs Transform over every split.

        Args:
            input_dict: `examples`, `schema` with the label's domain, `encoder`.
            output_dict: `transform_graph`, `transformed_examples`.
            exec_properties: `settings`, JSON with `data` (names of `text`, `text_pair`, `label`) and `max_length`;
                `preprocessing_fn`, the function's import path.

        Raises:
            TextrailError: a row has a label that the schema does not list, or the encoder has fewer positions than
                max_length.
        """
        settings = json.loads(exec_properties["settings"])
        label = settings["data"]["label"]
        schema_folder = artifact_utils.get_single_uri(input_dict["schema"])
        schema = io_utils.SchemaReader().read(io_utils.get_only_uri_in_dir(schema_folder))
        classes = class_names(schema, label)
        encoder = artifact_utils.get_single_uri(input_dict["encoder"])
        _check_positions(encoder, settings["max_length"])
        with tempfile.TemporaryDirectory() as folder:
            classes_file = Path(folder) / "classes.txt"
            classes_file.write_text("".join(f"{name}\n" for name in classes), encoding="utf-8")
            config = settings | {"classes": str(classes_file), "encoder": encoder}
            try:
                super().Do({key: input_dict[key] for key in ("examples", "schema")}, output_dict, {
                    "preprocessing_fn": exec_properties["preprocessing_fn"],
                    "custom_config": json.dumps(config),
                    "disable_statistics": 1,
                    "splits_config": json.dumps(_splits(input_dict["examples"])),
                })
            except Exception as error:
                if UNKNOWN_LABEL not in str(error):
                    raise
                unknown = str(error).split(UNKNOWN_LABEL, 1)[1].splitlines()[0]
                raise TextrailError(f"a {label!r} among {', '.join(classes)}", repr(unknown),
                                    "Correct the rows, or list the class in a curated schema (data.schema_file)."
                                    ) from error


def _check_positions(encoder: str, max_length: int) -> None:
    """Before anything is encoded: training would find out only after it."""
    with tf.io.gfile.GFile(os.path.join(encoder, "config.json")) as file:
        positions = json.load(file)["max_position_embeddings"]
    if max_length > positions:
        raise TextrailError(f"model.max_length of at most {positions}, as many positions as the encoder has",
                            str(max_length), f"Set model.max_length to {positions} or less.")


def _splits(examples: Sequence) -> dict[str, list[str]]:
    """Every split is transformed. Nothing is analysed, yet TFX reads what it is told to analyse: the smallest split."""
    splits = artifact_utils.decode_split_names(examples[0].split_names)

    def size(split: str) -> int:
        folder = artifact_utils.get_split_uris(examples, split)[0]
        return sum(tf.io.gfile.stat(os.path.join(folder, name)).length for name in tf.io.gfile.listdir(folder))

    return {"analyze": [min(splits, key=size)], "transform": splits}


class TextTransform(base_beam_component.BaseBeamComponent):
    """Writes token ids and class indices for every split, and the graph that makes them from raw texts.

    Args:
        examples: rows with the text and label columns.
        schema: schema with the label's domain.
        encoder: whose vocabulary and case flag are used.
        gate: that the data passed, so that nothing is encoded before.
        settings: `{"data": {"text", "text_pair", "label"}, "max_length": tokens}`.
        preprocessing_fn: import path of the function that builds the graph. Its source and all it uses counts for
            the cache.
    """

    SPEC_CLASS = TextTransformSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)

    def __init__(self, examples: channel.BaseChannel, schema: channel.BaseChannel, encoder: channel.BaseChannel,
                 settings: dict[str, Any], preprocessing_fn: str, gate: channel.BaseChannel | None = None):
        super().__init__(TextTransformSpec(
            examples=examples, schema=schema, encoder=encoder, gate=gate,
            settings=json.dumps(settings, sort_keys=True), preprocessing_fn=preprocessing_fn,
            code=code_fingerprint(preprocessing_fn),
            transform_graph=channel.Channel(type=standard_artifacts.TransformGraph),
            transformed_examples=channel.Channel(type=standard_artifacts.Examples)))
