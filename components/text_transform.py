"""TextTransform: raw texts and labels to unpadded token ids and class indices, and the graph that does it.

A preprocessing function without analyzers is traced here; one that has some is left to TFX's Transform, which reads
the split train for them. Applying the graph is a step of our own: a task a file, in batches of one size. TFX's way,
made for statistics beside it, costs about 250 Beam transforms and batches that begin at one row.
"""

import functools
import json
import os
import uuid
from collections.abc import Sequence
from typing import Any, ClassVar

import apache_beam as beam
import tensorflow as tf
import tensorflow_transform as tft
from tensorflow_metadata.proto.v0 import schema_pb2
from tensorflow_transform import impl_helper
from tensorflow_transform.tf_metadata import metadata_io, schema_utils
from tfx.components.transform import executor as tfx_transform
from tfx.components.util import udf_utils
from tfx.dsl.components.base import base_beam_component, executor_spec
from tfx.types import artifact_utils, channel, component_spec, standard_artifacts
from tfx.utils import io_utils
from tfx_bsl.public import tfxio

from components.artifacts import DataBlessing, Encoder
from components.code_fingerprint import code_fingerprint
from components.schema_gen import class_names
from modules.errors import UNKNOWN_LABEL, TextrailError
from modules.serving import RawFeatures

# How tf.Transform begins to say that a function cannot be traced without a look at the data.
HAS_ANALYZERS = "TFT analyzers found"
BATCH = 512   # Rows that are in memory at a time, with their tokens.


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
    """Writes the graph from what schema, encoder and preprocessing function know, then applies it to every file."""

    def Do(self, input_dict: dict[str, list], output_dict: dict[str, list], exec_properties: dict[str, Any]) -> None:
        """Writes the graph, then applies it to every split.

        Args:
            input_dict: `examples` in gzipped TFRecords, `schema` with the label's domain, `encoder`.
            output_dict: `transform_graph`, `transformed_examples`.
            exec_properties: `settings`, JSON with `data` (names of `text`, `text_pair`, `label`) and `max_length`;
                `preprocessing_fn`, the function's import path. Analyzers in it see the split train.

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
        check_positions(encoder, settings["max_length"])
        graph = artifact_utils.get_single_uri(output_dict["transform_graph"])
        examples = artifact_utils.get_single_instance(input_dict["examples"])
        transformed = artifact_utils.get_single_instance(output_dict["transformed_examples"])
        temp = os.path.join(transformed.uri, "temp")  # Where every worker reaches it.
        tf.io.gfile.makedirs(temp)
        try:
            config = settings | {"classes": write_classes(classes, temp), "encoder": encoder}
            try:
                _trace(exec_properties["preprocessing_fn"], config, schema, graph)
            except RuntimeError as error:
                if not str(error).startswith(HAS_ANALYZERS):
                    raise
                tf.io.gfile.rmtree(graph)
                super().Do({key: input_dict[key] for key in ("examples", "schema")},
                           {"transform_graph": output_dict["transform_graph"]},
                           {"preprocessing_fn": exec_properties["preprocessing_fn"],
                            "custom_config": json.dumps(config), "disable_statistics": 1})
            with self._make_beam_pipeline() as pipeline:
                _ = (pipeline
                     | "Files" >> beam.Create(_files(examples, transformed))
                     | "SpreadFiles" >> beam.Reshuffle()
                     | "TransformFile" >> beam.ParDo(_TransformFile(graph, temp)))
        except Exception as error:
            if UNKNOWN_LABEL not in str(error):
                raise
            unknown = str(error).split(UNKNOWN_LABEL, 1)[1].splitlines()[0]
            raise unknown_label(label, classes, unknown) from error
        finally:
            tf.io.gfile.rmtree(temp)


def unknown_label(label: str, classes: Sequence[str], value: str) -> TextrailError:
    """What to say of a value in the column `label` that is none of the classes."""
    return TextrailError(f"a {label!r} among {', '.join(classes)}", repr(value),
                         "Correct the rows, or list the class in a curated schema (data.schema_file).")


def write_classes(classes: Sequence[str], folder: str) -> str:
    """Writes the file that `preprocessing_fn` takes its classes from, and returns its path."""
    path = os.path.join(folder, "classes.txt")
    with tf.io.gfile.GFile(path, "w") as file:
        file.write("".join(f"{name}\n" for name in classes))
    return path


def _files(examples: standard_artifacts.Examples, transformed: standard_artifacts.Examples) -> list[tuple[str, str]]:
    """Names the splits of `transformed` and pairs every file of `examples` with the one it becomes.

    Files are the tasks, since nobody can start reading gzip in the middle.
    """
    transformed.split_names = examples.split_names
    pairs = []
    for split in artifact_utils.decode_split_names(examples.split_names):
        source, = artifact_utils.get_split_uris([examples], split)
        target, = artifact_utils.get_split_uris([transformed], split)
        tf.io.gfile.makedirs(target)
        names = sorted(tf.io.gfile.listdir(source))
        pairs += [(os.path.join(source, name),
                   os.path.join(target, f"transformed_examples-{i:05d}-of-{len(names):05d}.gz"))
                  for i, name in enumerate(names)]
    return pairs


def _trace(function: str, config: dict[str, Any], schema: schema_pb2.Schema, graph: str) -> None:
    """Writes a transform graph that needs no look at the data.

    Raises:
        RuntimeError: it does need one.
    """
    preprocessing_fn = udf_utils.get_fn({"preprocessing_fn": function}, "preprocessing_fn")
    spec = schema_utils.schema_as_feature_spec(schema).feature_spec
    metadata_io.write_metadata(tft.DatasetMetadata(schema), os.path.join(graph, tft.TFTransformOutput.RAW_METADATA_DIR))
    impl_helper.analyze_in_place(functools.partial(preprocessing_fn, custom_config=config), False, spec,
                                 impl_helper.get_type_specs_from_feature_specs(spec), graph)


class _TransformFile(beam.DoFn):
    """A file of raw examples to one of transformed examples in the same order, whose path it outputs.

    Args:
        graph: folder of the transform graph.
        temp: folder for unfinished files, on the file system of the finished ones.
    """

    def __init__(self, graph: str, temp: str):
        self._graph, self._temp = graph, temp

    def setup(self) -> None:
        schema = tft.TFTransformOutput(self._graph).transformed_metadata.schema
        self._raw = RawFeatures(self._graph)
        self._converter = impl_helper.make_tensor_to_arrow_converter(schema)
        self._encoder = tfxio.RecordBatchToExamplesEncoder(schema)

    def process(self, paths: tuple[str, str]) -> list[str]:
        source, target = paths
        # While one batch is written the next is read and tokenized.
        batches = tf.data.TFRecordDataset(source, "GZIP").batch(BATCH).map(self._raw.from_examples).prefetch(1)
        unfinished = os.path.join(self._temp, uuid.uuid4().hex)
        with tf.io.TFRecordWriter(unfinished, "GZIP") as writer:
            for features in batches:
                for example in self._encoder.encode(self._converter.convert(features)):
                    writer.write(example)
        # Renamed when complete, so that a killed or repeated attempt leaves no half file.
        tf.io.gfile.rename(unfinished, target, overwrite=True)
        return [target]


def check_positions(encoder: str, max_length: int) -> None:
    """Before anything is encoded: training would find out only after it.

    Raises:
        TextrailError: the encoder has fewer positions than a text may have tokens.
    """
    with tf.io.gfile.GFile(os.path.join(encoder, "config.json")) as file:
        positions = json.load(file)["max_position_embeddings"]  # none where a SavedModel does not say
    if positions is not None and max_length > positions:
        raise TextrailError(f"model.max_length of at most {positions}, as many positions as the encoder has",
                            str(max_length), f"Set model.max_length to {positions} or less.")


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
