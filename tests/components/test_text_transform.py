"""TextTransform end to end on a few rows: exact records, the graph without labels, and labels nobody knows."""

import os

import pytest
import tensorflow as tf
import tensorflow_transform as tft
from tfx.types import channel, standard_artifacts

from components.artifacts import Encoder, Vocabulary
from components.code_fingerprint import code_fingerprint
from components.text_transform import BATCH, TextTransform
from modules.classifier import preprocessing_fn
from modules.errors import TextrailError
from modules.progress import LOGGER
from modules.subwords import SPECIALS, Subwords
from tests.components.transforming import COLUMN, LABEL, transform, transform_pairs

# In the tiny encoder's vocabulary the words stand behind the five special tokens.
THE, GOOD, BAD, FILM, CLS, SEP = 5, 26, 27, 30, 2, 3


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
    with pytest.raises(TextrailError, match="a 'stars' among bad, good; received 'mixed'") as caught:
        transform(tmp_path, tiny_encoder, {"train": [{"text": "a", "stars": "good"}],
                                           "validation": [{"text": "a", "stars": "mixed"}]},
                  COLUMN.format("text", "") + COLUMN.format("stars", LABEL))
    assert caught.value.__context__ is None, "no worker raised it: a cluster would have tried again"


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


def with_longest_text(inputs, custom_config):
    """A preprocessing function with an analyzer: adds the bytes of the longest text analysed to the label."""
    features = preprocessing_fn(inputs, custom_config)
    return features | {"label_id": features["label_id"] + tft.max(tf.cast(tf.strings.length(inputs["text"]), tf.int64))}


def test_analyzers_see_the_training_split_alone(tiny_encoder, tmp_path):
    _, written = transform(tmp_path, tiny_encoder, {
        "train": [{"text": "good film", "stars": "good"}, {"text": "bad", "stars": "bad"}],
        "validation": [{"text": "the good film", "stars": "good"}],
    }, COLUMN.format("text", "") + COLUMN.format("stars", LABEL), function=f"{__name__}.with_longest_text")
    assert written == {"train": [([CLS, GOOD, FILM, SEP], [10]), ([CLS, BAD, SEP], [9])],
                       "validation": [([CLS, THE, GOOD, FILM, SEP], [10])]}


def with_a_mistake(inputs, custom_config):
    """A preprocessing function that cannot be traced, for a reason that has nothing to do with analyzers."""
    raise RuntimeError("no such table")


def test_what_goes_wrong_while_tracing_is_told_and_not_taken_for_analyzers(tiny_encoder, tmp_path):
    with pytest.raises(RuntimeError) as caught:
        transform(tmp_path, tiny_encoder, {"train": [{"text": "good", "stars": "good"}]},
                  COLUMN.format("text", "") + COLUMN.format("stars", LABEL), function=f"{__name__}.with_a_mistake")
    # tf.Transform's own run over the data would fail as well, but with this one as its context.
    assert str(caught.value) == "no such table" and caught.value.__context__ is None


def test_files_keep_their_number_and_rows_their_order(tiny_encoder, tmp_path):
    words = ["the", "good", "bad", "film"]
    texts = [" ".join(words[i % 4] for i in range(n, n + n % 7)) for n in range(BATCH + 50)]
    transform(tmp_path, tiny_encoder, {"train": [{"text": text, "stars": "bad"} for text in texts],
                                       "validation": [{"text": "good", "stars": "good"}]},
              COLUMN.format("text", "") + COLUMN.format("stars", LABEL))
    assert sorted(os.listdir(tmp_path / "out")) == ["Split-train", "Split-validation"]
    file, = (tmp_path / "out" / "Split-train").iterdir()
    assert file.name == "transformed_examples-00000-of-00001.gz"
    records = [tf.train.Example.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(file), "GZIP")]
    ids = [list(record.features.feature["token_ids$ragged_values"].int64_list.value) for record in records]
    expected = {"the": THE, "good": GOOD, "bad": BAD, "film": FILM}
    assert ids == [[CLS, *(expected[word] for word in text.split()), SEP] for text in texts]


SUBWORDS = Subwords((*SPECIALS, "um", "dois"))
UM, DOIS, START, END = 4, 5, 2, 3


@pytest.fixture
def vocabulary(tmp_path):
    for name in ("source", "target"):
        (tmp_path / "vocabulary" / name).mkdir(parents=True)
        SUBWORDS.write(tmp_path / "vocabulary" / name)
    return tmp_path / "vocabulary"


def pair_of_texts(inputs, custom_config):
    """A preprocessing function of a translation: two ragged features and no label."""
    assert "classes" not in custom_config
    texts = {name: inputs[custom_config["data"][key]] for name, key in (("source", "text"), ("target", "target"))}
    return {f"{name}_ids": Subwords.read(f"{custom_config['vocabulary']}/{name}").encode(tf.reshape(values, [-1]))
            for name, values in texts.items()}


def test_pairs_that_are_too_long_are_left_out_and_counted(vocabulary, tmp_path, caplog):
    long_ones = [("um um um", "um")] * BATCH   # A whole batch of which nothing is left.
    LOGGER.addHandler(caplog.handler)
    try:
        transformed, written = transform_pairs(tmp_path, vocabulary, {
            "train": [*long_ones, ("um dois", "dois"), ("um", "um um um"), ("", "um"), *long_ones],
            "validation": [("um", "dois")],
            "test": [("um um um", "um")],
        }, max_tokens=4, function=f"{__name__}.pair_of_texts")
    finally:
        LOGGER.removeHandler(caplog.handler)
    assert written == {
        "train": [([START, UM, DOIS, END], [START, DOIS, END]), ([START, END], [START, UM, END])],
        "validation": [([START, UM, END], [START, DOIS, END])],
        "test": []}
    assert {split: transformed.get_int_custom_property(f"dropped_{split}") for split in written} == {
        "train": 2 * BATCH + 1, "validation": 0, "test": 1}
    assert [record.message for record in caplog.records] == [
        "rows left out, longer than 4 tokens: train 1,025 of 1,027 (99.8%), validation 0 of 1 (0.0%), "
        "test 1 of 1 (100.0%)"]


def test_a_split_of_which_nothing_is_left(vocabulary, tmp_path):
    with pytest.raises(TextrailError, match="rows of at most 3 tokens in the split validation; received none, all of "
                                            r"its 2 rows are longer\. Raise model\.max_tokens"):
        transform_pairs(tmp_path, vocabulary, {"train": [("um", "um")], "validation": [("um um", "um")] * 2},
                        max_tokens=3, function=f"{__name__}.pair_of_texts")


def test_the_component_takes_an_encoder_or_a_vocabulary():
    inputs = {"examples": channel.Channel(type=standard_artifacts.Examples),
              "schema": channel.Channel(type=standard_artifacts.Schema)}
    settings = {"data": {"text": "pt", "target": "en"}, "max_tokens": 8}
    component = TextTransform(**inputs, vocabulary=channel.Channel(type=Vocabulary), settings=settings,
                              preprocessing_fn="modules.classifier.preprocessing_fn")
    assert sorted(component.inputs) == ["examples", "schema", "vocabulary"]
    with pytest.raises(ValueError, match="either an encoder or a vocabulary"):
        TextTransform(**inputs, settings=settings, preprocessing_fn="modules.classifier.preprocessing_fn")


def test_the_component_tells_the_cache_its_code():
    component = TextTransform(
        examples=channel.Channel(type=standard_artifacts.Examples),
        schema=channel.Channel(type=standard_artifacts.Schema), encoder=channel.Channel(type=Encoder),
        settings={"data": {"text": "t", "text_pair": None, "label": "l"}, "max_length": 8},
        preprocessing_fn="modules.classifier.preprocessing_fn")
    assert component.id == "TextTransform"
    assert component.exec_properties["code"] == code_fingerprint("modules.classifier.preprocessing_fn")
    assert sorted(component.outputs) == ["transform_graph", "transformed_examples"]
