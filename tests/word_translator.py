"""A real, small SavedModel with the signatures and the manifest of a translator: word by word from a table."""

import json
from collections.abc import Mapping
from pathlib import Path

WORDS = {"o": "the", "a": "the", "gato": "cat", "casa": "house", "dorme": "sleeps", "é": "is", "preto": "black",
         "grande": "big", ".": "."}
MAX_SOURCE_TOKENS = 12


def make_word_translator(folder: Path, words: Mapping[str, str] = WORDS, text: str = "pt", target: str = "en",
                         name: str | None = None, n_best: int = 2, fault: str = "") -> Path:
    """Writes the model into `folder`; a word it does not know stays as it is, and a full stop joins its word.

    The score is minus a hundredth for each word, and the second best translation is in capitals, a tenth below.

    Args:
        folder: a new one.
        words: source → target.
        text: source column.
        target: target column.
        name: of the input of `serving_default`; the source column if None.
        n_best: 1 or 2.
        fault: what is wrong with it: "batch" (a row depends on its neighbours), "blank" (an empty text is answered),
            "attention" (does not sum to 1), "examples" (answers otherwise than `serving_default`), "truncated" (never
            tells).
    """
    import tensorflow as tf
    import tensorflow_text as tf_text

    tokenizer = tf_text.WhitespaceTokenizer()

    class Model(tf.Module):
        def __init__(self):
            super().__init__()
            self.table = tf.lookup.StaticHashTable(
                tf.lookup.KeyValueTensorInitializer(list(words), list(words.values())), "")

        def words(self, texts):
            spaced = tf.strings.regex_replace(texts, r"\.", " . ")
            return tokenizer.tokenize(spaced)  # [batch, (words)]

        def answer(self, texts):
            source = self.words(texts)
            kept = source[:, :MAX_SOURCE_TOKENS - 2]
            known = self.table.lookup(kept.flat_values)
            said = kept.with_flat_values(tf.where(known == "", kept.flat_values, known))
            translation = tf.strings.reduce_join(said, axis=1, separator=" ")
            translation = tf.strings.regex_replace(translation, r" \.", ".")
            count = kept.row_lengths()
            score = 0.01 * tf.cast(-count, tf.float32)
            if fault == "batch":
                neighbours = tf.strings.join([translation, tf.strings.as_string(tf.size(texts))])
                translation = tf.where(count > 0, neighbours, "")
            if fault == "blank":
                translation = tf.where(count > 0, translation, "the")
            second = tf.strings.upper(translation)
            best = tf.stack([translation, second], axis=1)[:, :n_best]
            scores = tf.stack([score, score - 0.1], axis=1)[:, :n_best]
            return {"translation": translation, "score": score,
                    "translations": best, "scores": scores,
                    "truncated": (source.row_lengths() > MAX_SOURCE_TOKENS - 2) & (fault != "truncated")}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name or text)])
        def serve(self, texts):
            return self.answer(texts)

        def parse(self, examples):
            return tf.io.parse_example(examples, {text: tf.io.FixedLenFeature([], tf.string)})[text]

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "examples")])
        def examples(self, examples):
            answer = self.answer(self.parse(examples))
            return answer | ({"score": answer["score"] - 1} if fault == "examples" else {})

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "examples")])
        def transform_features(self, examples):
            counts = self.words(self.parse(examples)).row_lengths() + 2  # [START] and [END]
            return {"source_ids": tf.cast(tf.sequence_mask(counts), tf.int64)}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name or text)])
        def attention(self, texts):
            source = self.words(texts).to_tensor("[PAD]")  # [batch, source]
            rows, length = tf.shape(source)[0], tf.shape(source)[1]
            even = tf.ones([rows, 1, 2, length, length]) / tf.cast(length, tf.float32)
            return {"source_tokens": source, "target_tokens": source,
                    "attention": 2 * even if fault == "attention" else even}

    model = Model()
    tf.saved_model.save(model, str(folder), signatures={
        "serving_default": model.serve, "examples": model.examples, "transform_features": model.transform_features,
        "attention": model.attention})
    extra = folder / "assets.extra"
    extra.mkdir()
    (extra / "textrail.json").write_text(json.dumps({
        "shape": "translation", "text": text, "target": target, "slice": None, "inputs": [name or text],
        "decoding": {"n_best": n_best, "max_source_tokens": MAX_SOURCE_TOKENS}, "max_tokens": 40}))
    return folder
