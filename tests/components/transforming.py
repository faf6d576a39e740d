"""Runs TextTransform on a few rows, for the tests of it and of what comes after it."""

import json

import tensorflow as tf
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.types import artifact_utils, standard_artifacts

from components.artifacts import Encoder, Vocabulary
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
    encoder = Encoder()
    encoder.uri = str(encoder_folder)
    settings = {"data": {"text": "text", "text_pair": pair, "label": "stars"}, "max_length": max_length}
    _, written = _run(folder, {"encoder": encoder}, splits, schema, settings, function,
                      ("token_ids$ragged_values", "label_id"))
    return str(folder / "graph"), {split: sorted(rows) for split, rows in written.items()}


def transform_pairs(folder, vocabulary_folder, splits: dict[str, list[tuple[str, str]]], max_tokens: int,
                    function: str) -> tuple[standard_artifacts.Examples, dict[str, list]]:
    """Runs the executor on pairs of texts; the written artifact and, by split, its rows as pairs of ids."""
    vocabulary = Vocabulary()
    vocabulary.uri = str(vocabulary_folder)
    return _run(folder, {"vocabulary": vocabulary},
                {split: [{"pt": source, "en": target} for source, target in rows] for split, rows in splits.items()},
                COLUMN.format("pt", "") + COLUMN.format("en", ""),
                {"data": {"text": "pt", "target": "en"}, "max_tokens": max_tokens}, function,
                ("source_ids$ragged_values", "target_ids$ragged_values"))


def _run(folder, words: dict, splits: dict[str, list[dict]], schema: str, settings: dict, function: str,
         features: tuple[str, str]) -> tuple[standard_artifacts.Examples, dict[str, list]]:
    """Runs the executor; the written artifact and, by split, two integer features of its rows in order."""
    examples, schema_artifact = standard_artifacts.Examples(), standard_artifacts.Schema()
    graph, transformed = standard_artifacts.TransformGraph(), standard_artifacts.Examples()
    for artifact, name in ((examples, "in"), (schema_artifact, "schema"), (graph, "graph"), (transformed, "out")):
        artifact.uri = str(folder / name)
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
    inputs = {"examples": [examples], "schema": [schema_artifact], **{key: [value] for key, value in words.items()}}
    Executor().Do(inputs,
                  {"transform_graph": [graph], "transformed_examples": [transformed]},
                  {"settings": json.dumps(settings), "preprocessing_fn": function})
    assert sorted(artifact_utils.decode_split_names(transformed.split_names)) == sorted(splits)
    assert sorted(path.name for path in (folder / "out").iterdir()) == sorted(f"Split-{split}" for split in splits)
    written = {}
    for split in splits:
        files = [str(file) for file in (folder / "out" / f"Split-{split}").iterdir()]
        records = [tf.train.Example.FromString(r.numpy()).features.feature
                   for r in tf.data.TFRecordDataset(files, "GZIP")]
        written[split] = [tuple(list(record[name].int64_list.value) for name in features) for record in records]
    return transformed, written
