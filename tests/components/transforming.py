"""Runs TextTransform on a few rows, for the tests of it and of what comes after it."""

import json

import tensorflow as tf
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.types import artifact_utils, standard_artifacts

from components.artifacts import Encoder
from components.text_transform import Executor

COLUMN = 'feature {{ name: "{}" type: BYTES presence {{ min_fraction: 1 }} shape {{ dim {{ size: 1 }} }} {} }}'
LABEL = 'string_domain { name: "stars" value: "bad" value: "good" }'


def example(**columns: str) -> bytes:
    feature = {name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode()]))
               for name, value in columns.items()}
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def transform(folder, encoder_folder, splits: dict[str, list[dict]], schema: str, pair: str | None = None,
              max_length: int = 8, function: str = "modules.classifier.preprocessing_fn"
              ) -> tuple[str, dict[str, list]]:
    """Runs the executor; the transform graph's folder and, by split, the written examples in order of token ids."""
    examples, schema_artifact, encoder = standard_artifacts.Examples(), standard_artifacts.Schema(), Encoder()
    graph, transformed = standard_artifacts.TransformGraph(), standard_artifacts.Examples()
    for artifact, name in ((examples, "in"), (schema_artifact, "schema"), (graph, "graph"), (transformed, "out")):
        artifact.uri = str(folder / name)
    encoder.uri = str(encoder_folder)
    examples.split_names = artifact_utils.encode_split_names(list(splits))
    for split, rows in splits.items():
        (folder / "in" / f"Split-{split}").mkdir(parents=True)
        path = folder / "in" / f"Split-{split}" / "data_tfrecord-00000-of-00001.gz"
        with tf.io.TFRecordWriter(str(path), options="GZIP") as writer:
            for row in rows:
                writer.write(example(**row))
    (folder / "schema").mkdir()
    (folder / "schema" / "schema.pbtxt").write_text(
        text_format.MessageToString(text_format.Parse(schema, schema_pb2.Schema())))
    settings = {"data": {"text": "text", "text_pair": pair, "label": "stars"}, "max_length": max_length}
    Executor().Do({"examples": [examples], "schema": [schema_artifact], "encoder": [encoder]},
                  {"transform_graph": [graph], "transformed_examples": [transformed]},
                  {"settings": json.dumps(settings), "preprocessing_fn": function})
    assert sorted(artifact_utils.decode_split_names(transformed.split_names)) == sorted(splits)
    written = {}
    for split in splits:
        files = [str(file) for file in (folder / "out" / f"Split-{split}").iterdir()]
        records = [tf.train.Example.FromString(r.numpy()) for r in tf.data.TFRecordDataset(files, "GZIP")]
        written[split] = sorted((list(r.features.feature["token_ids$ragged_values"].int64_list.value),
                                 list(r.features.feature["label_id"].int64_list.value)) for r in records)
    return str(folder / "graph"), written
