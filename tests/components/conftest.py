"""A real, small SavedModel with the three signatures, and examples for it."""

import json
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def keyword_model():
    """A maker of SavedModels that score a text by counting one keyword for each class.

    The logit of class c is `sharpness` times the count of keyword c among the whitespace-separated words, so that
    scores can be worked out by hand. The tokenizer is an op of tensorflow_text.
    """
    return make_keyword_model


def make_keyword_model(folder: Path, classes=("negative", "positive"), keywords=("bad", "good"), sharpness=1.0,
                       broken_word: str | None = None, output_name: str = "label") -> Path:
    """Writes the model into `folder`; texts with `broken_word` get NaN scores."""
    import tensorflow as tf
    import tensorflow_text as tf_text

    tokenizer = tf_text.WhitespaceTokenizer()

    class Model(tf.Module):
        def __init__(self):
            super().__init__()
            self.sharpness = tf.Variable(sharpness, dtype=tf.float32)

        def count(self, text):
            return tokenizer.tokenize(text).row_lengths()  # [batch]

        def score(self, text):
            words = tokenizer.tokenize(text)
            counts = [tf.reduce_sum(tf.cast(words == word, tf.float32), axis=1) for word in keywords]
            logits = self.sharpness * tf.stack(counts, axis=1)  # [batch, classes]
            if broken_word is not None:
                broken = tf.reduce_any(words == broken_word, axis=1)
                logits = tf.where(broken[:, None], float("nan"), logits)
            return tf.nn.softmax(logits)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "text")])
        def serve(self, text):
            scores = self.score(text)
            names = tf.constant(classes)
            best = tf.argmax(scores, axis=1)
            return {output_name: tf.gather(names, best), "score": tf.reduce_max(scores, axis=1), "scores": scores,
                    "classes": tf.tile(names[None, :], [tf.shape(scores)[0], 1])}

        def parse(self, examples):
            return tf.io.parse_example(examples, {"text": tf.io.FixedLenFeature([], tf.string),
                                                  "label": tf.io.FixedLenFeature([], tf.string, "")})

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "examples")])
        def examples(self, examples):
            return {"scores": self.score(self.parse(examples)["text"])}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "examples")])
        def transform_features(self, examples):
            features = self.parse(examples)
            counts = self.count(features["text"])
            matches = tf.cast(features["label"][:, None] == tf.constant(classes)[None, :], tf.int64)
            return {"label_id": tf.argmax(matches, axis=1), "token_count": counts,
                    "token_ids": tf.zeros([tf.shape(counts)[0], tf.cast(tf.reduce_max(counts), tf.int32)], tf.int64)}

    model = Model()
    tf.saved_model.save(model, str(folder), signatures={
        "serving_default": model.serve, "examples": model.examples, "transform_features": model.transform_features})
    manifest = {"shape": "classification", "text": "text", "text_pair": None, "label": "label",
                "classes": list(classes), "max_length": 128}
    extra = folder / "assets.extra"
    extra.mkdir()
    (extra / "textrail.json").write_text(json.dumps(manifest))
    return folder


def serialized(row: dict[str, str]) -> bytes:
    """column → value as a serialized tf.Example."""
    import tensorflow as tf
    features = {name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value.encode()]))
                for name, value in row.items()}
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


@pytest.fixture(scope="session")
def example_bytes():
    """text, label and, of pairs, another text → a serialized tf.Example."""
    def make(text: str, label: str, other: str | None = None) -> bytes:
        return serialized({"text": text, "label": label} | ({"other": other} if other is not None else {}))
    return make


@pytest.fixture(scope="session")
def examples_artifact():
    """folder, split → rows (text, label), (text, label, other) or column → value: an artifact of gzip TFRecords."""
    def make(folder: Path, splits: dict[str, list[tuple[str, ...] | dict[str, str]]]):
        import tensorflow as tf
        from tfx.types import artifact_utils, standard_artifacts
        artifact = standard_artifacts.Examples()
        artifact.uri = str(folder)
        artifact.split_names = artifact_utils.encode_split_names(list(splits))
        for split, rows in splits.items():
            (folder / f"Split-{split}").mkdir(parents=True)
            path = folder / f"Split-{split}" / "data_tfrecord-00000-of-00001.gz"
            with tf.io.TFRecordWriter(str(path), tf.io.TFRecordOptions("GZIP")) as writer:
                for row in rows:
                    named = row if isinstance(row, dict) else dict(zip(("text", "label", "other"), row, strict=False))
                    writer.write(serialized(named))
        return artifact
    return make


@pytest.fixture(scope="session")
def pushed_pretrainer(tmp_path_factory, tiny_pretrainer) -> Path:
    """A push destination with one version, a pretrained encoder."""
    from components.pusher import push

    destination = tmp_path_factory.mktemp("destination") / "pushed"
    push(str(tiny_pretrainer[1]), str(destination), {"recipe": "r1"})
    return destination
