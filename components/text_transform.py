"""TextTransform: raw texts, and labels if there are any, to unpadded token ids and class indices, and their graph.

A preprocessing function without analyzers is traced here; one that has some is left to TFX's Transform, which reads
the split train for them. Applying the graph is a step of our own: a task a file, in batches of one size, where rows
that are too long are left out and counted. TFX's way, made for statistics beside it, costs about 250 Beam transforms
and batches that begin at one row.
"""

from __future__ import annotations

import functools
import json
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

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

from components.artifacts import DataBlessing, Encoder, Vocabulary
from components.code_fingerprint import code_fingerprint
from components.encoder_positions import check_positions
from components.schema_gen import class_names
from modules.errors import UNKNOWN_LABEL, TextrailError
from modules.progress import report
from modules.serving import RawFeatures

# How tf.Transform begins to say that a function cannot be traced without a look at the data.
HAS_ANALYZERS = "TFT analyzers found"
BATCH = 512   # Rows that are in memory at a time, with their tokens.
COUNTS = "counts"                 # Files with the rows of each file.
NEEDED = ("train", "validation")  # Splits that a model cannot be trained without.


class TextTransformSpec(component_spec.ComponentSpec):
    PARAMETERS: ClassVar = {
        "settings": component_spec.ExecutionParameter(type=str),
        "preprocessing_fn": component_spec.ExecutionParameter(type=str),
        "code": component_spec.ExecutionParameter(type=str),
    }
    INPUTS: ClassVar = {
        "examples": component_spec.ChannelParameter(type=standard_artifacts.Examples),
        "schema": component_spec.ChannelParameter(type=standard_artifacts.Schema),
        "encoder": component_spec.ChannelParameter(type=Encoder, optional=True),
        "vocabulary": component_spec.ChannelParameter(type=Vocabulary, optional=True),
        "gate": component_spec.ChannelParameter(type=DataBlessing, optional=True),
    }
    OUTPUTS: ClassVar = {
        "transform_graph": component_spec.ChannelParameter(type=standard_artifacts.TransformGraph),
        "transformed_examples": component_spec.ChannelParameter(type=standard_artifacts.Examples),
    }


class Executor(tfx_transform.Executor):
    """Writes the graph from what schema, vocabulary and preprocessing function know, then applies it to every file."""

    def Do(self, input_dict: dict[str, list], output_dict: dict[str, list], exec_properties: dict[str, Any]) -> None:
        """Writes the graph, then applies it to every split.

        Args:
            input_dict: `examples` in gzipped TFRecords; `schema`, with the domain of the label if there is one;
                `encoder` or `vocabulary`, whose folder the preprocessing function gets under that name.
            output_dict: `transform_graph`, `transformed_examples`. The latter's custom properties `dropped_SPLIT` say
                how many rows were too long, where `max_tokens` has rows dropped.
            exec_properties: `settings`, see `TextTransform`; `preprocessing_fn`, the function's import path. Analyzers
                in it see the split train.

        Raises:
            TextrailError: a row has a label that the schema does not list, the encoder has fewer positions than
                max_length, or train or validation has no row of at most max_tokens.
        """
        settings = json.loads(exec_properties["settings"])
        schema_folder = artifact_utils.get_single_uri(input_dict["schema"])
        schema = io_utils.SchemaReader().read(io_utils.get_only_uri_in_dir(schema_folder))
        words = {name: artifact_utils.get_single_uri(input_dict[name])
                 for name in ("encoder", "vocabulary") if input_dict.get(name)}
        if "encoder" in words:
            check_positions(words["encoder"], settings["max_length"])
        graph = artifact_utils.get_single_uri(output_dict["transform_graph"])
        examples = artifact_utils.get_single_instance(input_dict["examples"])
        transformed = artifact_utils.get_single_instance(output_dict["transformed_examples"])
        temp = os.path.join(transformed.uri, "temp")  # Where every worker reaches it.
        tf.io.gfile.makedirs(temp)
        try:
            config = settings | words | _classes(schema, settings["data"].get("label"), temp)
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
                     | "TransformFile" >> beam.ParDo(_TransformFile(graph, temp, settings.get("max_tokens")))
                     | "CountAsText" >> beam.Map(json.dumps)
                     | "WriteCounts" >> beam.io.WriteToText(os.path.join(temp, COUNTS)))
            counts = _read_counts(temp)
            if (unknown := sum(counts.values(), Rows()).unknown) is not None:
                label = settings["data"]["label"]
                raise unknown_label(label, class_names(schema, label), unknown)
            if "max_tokens" in settings:
                _account(transformed, counts, settings["max_tokens"])
        finally:
            tf.io.gfile.rmtree(temp)


def _classes(schema: schema_pb2.Schema, label: str | None, folder: str) -> dict[str, str]:
    """What the preprocessing function is told of the classes; nothing where there is no label."""
    return {"classes": write_classes(class_names(schema, label), folder)} if label else {}


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


def _files(examples: standard_artifacts.Examples, transformed: standard_artifacts.Examples
           ) -> list[tuple[str, str, str]]:
    """Names the splits of `transformed`; every file of `examples`, behind its split, with the one it becomes.

    Files are the tasks, since nobody can start reading gzip in the middle.
    """
    transformed.split_names = examples.split_names
    pairs = []
    for split in artifact_utils.decode_split_names(examples.split_names):
        source, = artifact_utils.get_split_uris([examples], split)
        target, = artifact_utils.get_split_uris([transformed], split)
        tf.io.gfile.makedirs(target)
        names = sorted(tf.io.gfile.listdir(source))
        pairs += [(split, os.path.join(source, name),
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


class Rows(NamedTuple):
    """What came of the rows of a split, or of one of its files.

    Attributes:
        read: how many there are.
        dropped: of those, how many were too long.
        unknown: a label that is no class of the schema, at which reading ended, if there is one.
    """

    read: int = 0
    dropped: int = 0
    unknown: str | None = None

    @property
    def share(self) -> float:
        return self.dropped / max(self.read, 1)

    def __add__(self, other: Rows) -> Rows:   # type: ignore[override]
        unknown = [rows.unknown for rows in (self, other) if rows.unknown is not None]
        return Rows(self.read + other.read, self.dropped + other.dropped, min(unknown, default=None))


def _read_counts(folder: str) -> dict[str, Rows]:
    """Split → its rows, of all its files."""
    counts: dict[str, Rows] = {}
    for path in tf.io.gfile.glob(os.path.join(folder, f"{COUNTS}-*")):
        with tf.io.gfile.GFile(path) as file:
            for split, *rows in map(json.loads, file):
                counts[split] = counts.get(split, Rows()) + Rows(*rows)
    return counts


def _account(transformed: standard_artifacts.Examples, counts: Mapping[str, Rows], max_tokens: int) -> None:
    """Notes and tells how many rows were too long.

    Raises:
        TextrailError: all of train or of validation were.
    """
    splits = [split for split in artifact_utils.decode_split_names(transformed.split_names) if split in counts]
    for split in splits:
        transformed.set_int_custom_property(f"dropped_{split}", counts[split].dropped)
        if split in NEEDED and 0 < counts[split].read == counts[split].dropped:
            raise all_too_long(split, counts[split].read, max_tokens)
    told = ", ".join(f"{split} {counts[split].dropped:,} of {counts[split].read:,} ({counts[split].share:.1%})"
                     for split in splits)
    report(f"rows left out, longer than {max_tokens} tokens: {told}", lasting=True,
           **{f"dropped_{split}": counts[split].dropped for split in splits})


def all_too_long(split: str, rows: int, max_tokens: int) -> TextrailError:
    """What to say of a split none of whose rows is short enough."""
    return TextrailError(f"rows of at most {max_tokens} tokens in the split {split}",
                         f"none, all of its {rows:,} rows are longer", "Raise model.max_tokens.")


class _TransformFile(beam.DoFn):
    """A file of raw examples to one of transformed examples in the same order; outputs its split and its `Rows`.

    Args:
        graph: folder of the transform graph.
        temp: folder for unfinished files, on the file system of the finished ones.
        max_tokens: rows with a ragged feature that is longer are left out; none leaves none out.
    """

    def __init__(self, graph: str, temp: str, max_tokens: int | None):
        self._graph, self._temp, self._max_tokens = graph, temp, max_tokens

    def setup(self) -> None:
        schema = tft.TFTransformOutput(self._graph).transformed_metadata.schema
        self._raw = RawFeatures(self._graph)
        self._converter = impl_helper.make_tensor_to_arrow_converter(schema)
        self._encoder = tfxio.RecordBatchToExamplesEncoder(schema)

    def process(self, paths: tuple[str, str, str]) -> Iterator[tuple[str, int, int, str | None]]:
        split, source, target = paths
        # While one batch is written the next is read and tokenized.
        batches = tf.data.TFRecordDataset(source, "GZIP").batch(BATCH).map(self._transform).prefetch(1)
        unfinished = os.path.join(self._temp, uuid.uuid4().hex)
        read = written = 0
        try:
            with tf.io.TFRecordWriter(unfinished, "GZIP") as writer:
                for features, rows in batches:
                    for example in self._encoder.encode(self._converter.convert(features)):
                        writer.write(example)
                        written += 1
                    read += int(rows)
        except tf.errors.InvalidArgumentError as error:
            # Told and not raised: a cluster would try such a file again and again.
            _, met, unknown = error.message.partition(UNKNOWN_LABEL)
            if not met:
                raise
            yield split, *Rows(read, 0, unknown.partition("\n")[0])
            return
        # Renamed when complete, so that a killed or repeated attempt leaves no half file.
        tf.io.gfile.rename(unfinished, target, overwrite=True)
        yield split, *Rows(read, read - written)

    def _transform(self, serialized: tf.Tensor) -> tuple[dict[str, Any], tf.Tensor]:
        """Serialized examples [batch] to features of those that are short enough, and how many there were."""
        features = self._raw.from_examples(serialized)
        return features if self._max_tokens is None else short_rows(features, self._max_tokens), tf.size(serialized)


def short_rows(features: Mapping[str, tf.Tensor | tf.RaggedTensor], max_tokens: int
               ) -> dict[str, tf.Tensor | tf.RaggedTensor]:
    """Rows none of whose ragged features is longer than `max_tokens`.

        {"source_ids": [[2, 9, 3], [2, 3]], "target_ids": [[2, 3], [2, 8, 3]]}, 2 → nothing; with 3 → both rows

    Args:
        features: each [batch, ...], dense or ragged.
        max_tokens: of a row in a ragged feature.

    Returns:
        The same features, each [rows kept, ...].
    """
    ragged = [feature for feature in features.values() if isinstance(feature, tf.RaggedTensor)]
    longest = functools.reduce(tf.maximum, [feature.row_lengths() for feature in ragged])  # [batch]
    kept = longest <= max_tokens  # [batch]
    return {name: tf.ragged.boolean_mask(feature, kept) for name, feature in features.items()}


class TextTransform(base_beam_component.BaseBeamComponent):
    """Writes token ids, and class indices if there is a label, for every split, and the graph that makes them.

    Args:
        examples: rows with the columns of texts and maybe of a label.
        schema: schema, with the label's domain if there is one.
        settings: what the preprocessing function is told. `data`: the columns' names by role, maybe with `label`. With
            an encoder `max_length`, in tokens; with `max_tokens` rows that have more tokens are left out.
        preprocessing_fn: import path of the function that builds the graph. Its source and all it uses counts for
            the cache.
        encoder: whose vocabulary and case flag are used.
        vocabulary: what is used in the place of an encoder's; one of the two is given.
        gate: that the data passed, so that nothing is encoded before.
    """

    SPEC_CLASS = TextTransformSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)

    def __init__(self, examples: channel.BaseChannel, schema: channel.BaseChannel, *, settings: dict[str, Any],
                 preprocessing_fn: str, encoder: channel.BaseChannel | None = None,
                 vocabulary: channel.BaseChannel | None = None, gate: channel.BaseChannel | None = None):
        if (encoder is None) == (vocabulary is None):
            raise ValueError("TextTransform takes either an encoder or a vocabulary")
        super().__init__(TextTransformSpec(
            examples=examples, schema=schema, encoder=encoder, vocabulary=vocabulary, gate=gate,
            settings=json.dumps(settings, sort_keys=True), preprocessing_fn=preprocessing_fn,
            code=code_fingerprint(preprocessing_fn),
            transform_graph=channel.Channel(type=standard_artifacts.TransformGraph),
            transformed_examples=channel.Channel(type=standard_artifacts.Examples)))
