"""TextTransform end to end on a few rows: exact records, the graph without labels, and labels nobody knows."""

import json

import pytest
import tensorflow as tf
import tensorflow_transform as tft
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2
from tfx.types import artifact_utils, channel, standard_artifacts

from components.artifacts import Encoder
from components.code_fingerprint import code_fingerprint
from components.text_transform import Executor, TextTransform
from modules.errors import TextrailError

COLUMN = 'feature {{ name: "{}" type: BYTES presence {{ min_fraction: 1 }} shape {{ dim {{ size: 1 }} }} {} }}'
LABEL = 'string_domain { name: "stars" value: "bad" value: "good" }'
# In the tiny encoder's vocabulary the words stand behind the five special tokens.
THE, GOOD, BAD, FILM, CLS, SEP = 5, 26, 27, 30, 2, 3


def example(**columns: str) -> bytes:
    feature = {name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode()]))
               for name, value in columns.items()}
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()


def transform(folder, encoder_folder, splits: dict[str, list[dict]], schema: str, pair: str | None = None):
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
    settings = {"data": {"text": "text", "text_pair": pair, "label": "stars"}, "max_length": 8}
    Executor().Do({"examples": [examples], "schema": [schema_artifact], "encoder": [encoder]},
                  {"transform_graph": [graph], "transformed_examples": [transformed]},
                  {"settings": json.dumps(settings), "preprocessing_fn": "modules.classifier.preprocessing_fn"})
    assert sorted(artifact_utils.decode_split_names(transformed.split_names)) == sorted(splits)
    written = {}
    for split in splits:
        files = [str(file) for file in (folder / "out" / f"Split-{split}").iterdir()]
        records = [tf.train.Example.FromString(r.numpy()) for r in tf.data.TFRecordDataset(files, "GZIP")]
        written[split] = sorted((list(r.features.feature["token_ids$ragged_values"].int64_list.value),
                                 list(r.features.feature["label_id"].int64_list.value)) for r in records)
    return str(folder / "graph"), written


@pytest.fixture(scope="module")
def reviews(tiny_encoder, tmp_path_factory):
    return transform(tmp_path_factory.mktemp("reviews"), tiny_encoder, {
        "train": [{"text": "the good film", "stars": "good"}, {"text": "Bad", "stars": "bad"},
                  {"text": "", "stars": "bad"}],
        "validation": [{"text": "film " * 20, "stars": "good"}],
    }, COLUMN.format("text", "") + COLUMN.format("stars", LABEL))


def test_records_hold_unpadded_ids_and_class_indices(reviews):
    assert reviews[1] == {
        "train": [([CLS, SEP], [0]), ([CLS, THE, GOOD, FILM, SEP], [1]), ([CLS, BAD, SEP], [0])],
        "validation": [([CLS] + [FILM] * 6 + [SEP], [1])],
    }


def test_the_class_names_are_an_asset(reviews):
    with open(f"{reviews[0]}/transform_fn/assets/classes.txt") as file:
        assert file.read() == "bad\ngood\n"


def test_the_graph_works_without_labels(reviews):
    layer = tft.TFTransformOutput(reviews[0]).transform_features_layer()
    out = layer({"text": tf.constant([["the good film"], [""]])})
    assert set(out) == {"token_ids"} and out["token_ids"].to_list() == [[CLS, THE, GOOD, FILM, SEP], [CLS, SEP]]


def test_the_graph_names_a_label_it_does_not_know(reviews):
    layer = tft.TFTransformOutput(reviews[0]).transform_features_layer()
    with pytest.raises(tf.errors.InvalidArgumentError, match="no class of the schema: mixed"):
        layer({"text": tf.constant([["a"], ["b"]]), "stars": tf.constant([["good"], ["mixed"]])})


def test_an_unknown_label_fails_with_a_sentence(tiny_encoder, tmp_path):
    with pytest.raises(TextrailError, match="a 'stars' among bad, good; received 'mixed'"):
        transform(tmp_path, tiny_encoder, {"train": [{"text": "a", "stars": "good"}],
                                           "validation": [{"text": "a", "stars": "mixed"}]},
                  COLUMN.format("text", "") + COLUMN.format("stars", LABEL))


def test_pairs_and_columns_without_a_shape(tiny_encoder, tmp_path):
    schema = 'feature { name: "text" type: BYTES } feature { name: "other" type: BYTES }'
    schema += COLUMN.format("stars", LABEL)
    _, written = transform(tmp_path, tiny_encoder, {
        "train": [{"text": "good", "other": "bad film", "stars": "good"}, {"text": "good", "stars": "bad"}],
        "validation": [{"text": "good", "other": "", "stars": "bad"}]}, schema, pair="other")
    assert written == {
        "train": [([CLS, GOOD, SEP, SEP], [0]), ([CLS, GOOD, SEP, BAD, FILM, SEP], [1])],
        "validation": [([CLS, GOOD, SEP, SEP], [0])],
    }


def test_the_component_tells_the_cache_its_code():
    component = TextTransform(
        examples=channel.Channel(type=standard_artifacts.Examples),
        schema=channel.Channel(type=standard_artifacts.Schema), encoder=channel.Channel(type=Encoder),
        settings={"data": {"text": "t", "text_pair": None, "label": "l"}, "max_length": 8})
    assert component.id == "TextTransform"
    assert component.exec_properties["code"] == code_fingerprint("modules.classifier.preprocessing_fn")
    assert sorted(component.outputs) == ["transform_graph", "transformed_examples"]
