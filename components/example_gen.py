"""ExampleGen: rows of text from files or TFDS, to tf.Examples in train, validation and test."""

from __future__ import annotations

import json
import os
from typing import Any

from tfx import types
from tfx.components.util import examples_utils
from tfx.dsl.components.base import base_beam_component, base_beam_executor, executor_spec
from tfx.dsl.io import fileio
from tfx.proto import example_gen_pb2
from tfx.types import artifact_utils, component_spec, standard_artifacts

from components import splits_writer
from components.rows import wanted
from components.sources import make_source
from modules.progress import report


class Executor(base_beam_executor.BaseBeamExecutor):
    """Reads `data` through Beam and writes it as gzipped TFRecords, shuffled, one folder a split."""

    def Do(self, input_dict: dict[str, list[types.Artifact]], output_dict: dict[str, list[types.Artifact]],
           exec_properties: dict[str, Any]) -> None:
        """Writes the `examples` artifact.

        Args:
            input_dict: empty.
            output_dict: `examples`, one artifact. Gets `Split-NAME/data_tfrecord-*.gz`, the custom properties
                `rows_NAME` and `skipped_rows` and, if rows were skipped, `skipped_rows.jsonl`.
            exec_properties: as `ExampleGen` takes them.

        Raises:
            TextrailError: the source is not there, or has rows that cannot be used.
        """
        data = json.loads(exec_properties["data"])
        examples = artifact_utils.get_single_instance(output_dict["examples"])
        source = make_source(data)
        pieces = source.pieces()
        shard_bytes = data["shard_megabytes"] << 20 if "shard_megabytes" in data else splits_writer.SHARD_BYTES
        plan = splits_writer.Plan(pieces, data["split"], shard_bytes)
        temp = os.path.join(examples.uri, "temp")
        try:
            with self._make_beam_pipeline() as pipeline:
                splits_writer.write_splits(pipeline, source, wanted(data), pieces, plan, examples.uri, temp)
            counts = splits_writer.finish(examples.uri, temp, plan, skip=data["bad_rows"] == "skip")
        finally:
            if fileio.exists(temp):
                fileio.rmtree(temp)

        examples.split_names = artifact_utils.encode_split_names(list(counts.written))
        examples.span = 0
        # What StatisticsGen, Transform and Evaluator go by to choose their reader.
        examples_utils.set_payload_format(examples, example_gen_pb2.FORMAT_TF_EXAMPLE)  # type: ignore[attr-defined]
        examples_utils.set_file_format(examples, "tfrecords_gzip")
        examples.set_int_custom_property("skipped_rows", counts.skipped)
        for split, count in counts.written.items():
            examples.set_int_custom_property(f"rows_{split}", count)
        told = ", ".join(f"{split} {count:,}" for split, count in counts.written.items())
        report(f"rows: {told}; skipped {counts.skipped:,}", lasting=True, skipped=counts.skipped, **counts.written)


class ExampleGenSpec(component_spec.ComponentSpec):
    """Inputs none; one output, `examples`."""

    PARAMETERS = {
        "data": component_spec.ExecutionParameter(type=str),
        "fingerprint": component_spec.ExecutionParameter(type=str),
    }
    INPUTS: dict = {}
    OUTPUTS = {"examples": component_spec.ChannelParameter(type=standard_artifacts.Examples)}


class ExampleGen(base_beam_component.BaseBeamComponent):
    """Reads rows of text.

    Needs no driver of its own: what the cache must know of the data stands in `fingerprint`.

    Args:
        data: JSON of `sections.Data`, its paths absolute or URIs.
        fingerprint: `components.sources.data_fingerprint` of the same.
    """

    SPEC_CLASS = ExampleGenSpec
    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)

    def __init__(self, data: str, fingerprint: str):
        super().__init__(ExampleGenSpec(data=data, fingerprint=fingerprint,
                                        examples=types.Channel(type=standard_artifacts.Examples)))
