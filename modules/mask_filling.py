"""What a pretrained BERT is exported as: strings with [MASK] in them to the words behind the masks, and its judging."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from modules.pretrainer import Pretrainer, in_float32
from modules.serving import export
from modules.tokenization import SPECIALS, Tokenizer
from modules.weights import write_description

MASK = "[MASK]"
# Masked tokens whose scores over the vocabulary are held at a time.
CHUNK = 256


def tokenize_masked(tokenizer: Tokenizer, texts: tf.Tensor) -> tf.RaggedTensor:
    """Ids of the wordpieces, where `[MASK]` written in a text is the token, and no other special one can be written.

    "The film was [MASK]." has the pieces of "The film was ", [MASK] and those of ".". As in HuggingFace's tokenizers,
    what stands right beside a mask is a word of its own.

    Args:
        tokenizer: of the vocabulary.
        texts: [batch] string.

    Returns:
        [batch, (pieces)] int64, without other special tokens.
    """
    between = tf.strings.split(texts, MASK)  # [batch, (masks + 1)]
    pieces = tokenizer.tokenize(between.values)  # [all of them, (pieces)]
    mask = tf.fill([pieces.nrows(), 1], tf.constant(tokenizer.vocabulary.mask_id, tf.int64))
    followed = between.with_values(tf.concat([pieces, mask], axis=1))  # [batch, (masks + 1), (pieces + 1)]
    return followed.merge_dims(1, 2)[:, :-1]


class ServedPretrainer(tf.Module):
    """What is exported: tokenizer and model behind three signatures.

    Args:
        pretrainer: the model, in float32.
        max_length: most tokens of a text, special tokens included.
        top: words that are told for each mask.
        passes: how often a text is read in judging: each time another one of so many words is masked.
    """

    def __init__(self, pretrainer: Pretrainer, max_length: int, top: int = 5, passes: int = 7):
        super().__init__()
        self.pretrainer, self.max_length, self.passes = pretrainer, max_length, passes
        vocabulary = pretrainer.vocabulary
        self.vocabulary, self.tokenizer = vocabulary, Tokenizer(vocabulary)
        self.top = min(top, len(vocabulary.pieces) - len(SPECIALS))
        self.words = tf.constant(vocabulary.pieces)  # [vocabulary]
        self.specials = tf.constant([vocabulary.ids[special] for special in SPECIALS])  # [5]

    def signatures(self) -> dict[str, Any]:
        """Name → concrete function, for `tf.saved_model.save`."""
        text, serialized = (tf.TensorSpec([None], tf.string, name) for name in ("text", "examples"))
        return {"serving_default": tf.function(self.fill).get_concrete_function(text),
                "examples": tf.function(self.judge_examples).get_concrete_function(serialized),
                "transform_features": tf.function(self.transform_features).get_concrete_function(serialized)}

    def fill(self, texts: tf.Tensor) -> dict[str, tf.Tensor]:
        """Plain strings [batch] to words for their masks.

        Returns:
            `words` [batch, most masks of a text, top] string, likeliest first, where "##" begins what continues the
            word before it, and "" stands behind the last mask of a text; `probabilities` float32 of the same shape, of
            the whole vocabulary; `counts` [batch] int32, masks that were seen; `truncated` [batch] bool, whether the
            end of the text was left out, with whatever masks it had.
        """
        pieces = tokenize_masked(self.tokenizer, texts)
        ids = tf.cast(self.vocabulary.to_dense(self.tokenizer.pack([pieces], self.max_length)), tf.int32)
        is_mask = tf.equal(ids, self.vocabulary.mask_id)  # [batch, length]
        x = tf.boolean_mask(self.pretrainer.encoded(ids)["sequence_output"], is_mask)  # [masks of all, hidden]
        probabilities, best = _in_chunks(self._best, [tf.TensorSpec([None, self.top], dtype)
                                                    for dtype in (tf.float32, tf.int32)], x)  # each [masks of all, top]
        counts = tf.reduce_sum(tf.cast(is_mask, tf.int32), axis=1)  # [batch]
        by_text = functools.partial(tf.RaggedTensor.from_row_lengths, row_lengths=counts)
        return {"words": by_text(tf.gather(self.words, best)).to_tensor(""),
                "probabilities": by_text(probabilities).to_tensor(), "counts": counts,
                "truncated": pieces.row_lengths() > self.max_length - 2}

    def _best(self, x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Probabilities and ids, each [rows, top], of what is likeliest and no special token."""
        probabilities = tf.nn.softmax(self.pretrainer.scores(x))  # [rows, vocabulary]
        never = tf.reduce_any(tf.equal(tf.range(tf.size(self.words))[:, None], self.specials), axis=1)  # [vocabulary]
        found = tf.math.top_k(tf.where(never, -1.0, probabilities), self.top)
        return found.values, found.indices

    def judge_examples(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        """Serialized tf.Examples [batch], see `_parsed`, to what the Evaluator adds up; see `judge`."""
        features = self._parsed(examples)
        return self.judge(features["token_ids"])

    def judge(self, token_ids: tf.RaggedTensor) -> dict[str, tf.Tensor]:
        """Foretells every token of a row once, from the others with one in `passes` of them masked.

        Of 7 passes the first masks the ordinary tokens 1, 8, 15 …, the second 2, 9, 16 …: nothing is drawn, so two
        models are asked the same, and the same model answers the same. [UNK] is no ordinary token.

        Args:
            token_ids: [batch, (tokens)] int64, `[CLS] text [SEP]` or `[CLS] text [SEP] text [SEP]`, unmasked.

        Returns:
            Each [batch] float32: `masked_loss`, the sum of the cross entropies in nats; `masked_correct` and
            `masked_count`, how many were foretold right, and how many there were; with that head `next_score`, the
            probability that the second text follows the first, as it is seen in the first pass.
        """
        ids = tf.cast(self.vocabulary.to_dense(token_ids), tf.int32)  # [batch, length]
        is_word = tf.reduce_all(tf.not_equal(ids[..., None], self.specials), axis=-1)  # [batch, length]
        turn = tf.cumsum(tf.cast(is_word, tf.int32), axis=1, exclusive=True) % self.passes
        number = tf.TensorSpec([None], tf.float32)

        def one(now: tf.Tensor) -> dict[str, tf.Tensor]:
            masked = tf.logical_and(is_word, tf.equal(turn, now))
            outputs = self.pretrainer.encoded(tf.where(masked, self.vocabulary.mask_id, ids))
            loss, correct = _in_chunks(self._judged, [number, number],
                                       tf.boolean_mask(outputs["sequence_output"], masked),
                                       tf.boolean_mask(ids, masked))
            rows = tf.where(masked)[:, 0]
            found = {"masked_loss": loss, "masked_correct": correct, "masked_count": tf.ones_like(loss)}
            found = {name: tf.math.unsorted_segment_sum(values, rows, tf.shape(ids)[0])
                     for name, values in found.items()}
            if self.pretrainer.next_head is not None:
                found["next_score"] = tf.nn.softmax(self.pretrainer.next_logits(outputs))[:, 0]
            return found

        names = ["masked_loss", "masked_correct", "masked_count"]
        names += [] if self.pretrainer.next_head is None else ["next_score"]
        found = tf.map_fn(one, tf.range(self.passes), parallel_iterations=1,
                          fn_output_signature=dict.fromkeys(names, number))
        return {name: values[0] if name == "next_score" else tf.reduce_sum(values, axis=0)
                for name, values in found.items()}

    def _judged(self, x: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Cross entropy and whether the label scores best, each [rows] float32."""
        scores = self.pretrainer.scores(x)  # [rows, vocabulary]
        of_label = tf.gather(scores, labels, batch_dims=1)
        return (tf.nn.sparse_softmax_cross_entropy_with_logits(labels, scores),
                tf.cast(of_label >= tf.reduce_max(scores, axis=1), tf.float32))

    def transform_features(self, examples: tf.Tensor) -> dict[str, tf.Tensor]:
        """Serialized tf.Examples [batch] to what is judged, and how long each is."""
        features = self._parsed(examples)
        return {"token_ids": self.vocabulary.to_dense(features["token_ids"]),
                "next_sentence_label": features["next_sentence_label"],
                "token_count": features["token_ids"].row_lengths()}

    def _parsed(self, examples: tf.Tensor) -> dict[str, Any]:
        """`token_ids` [batch, (tokens)] int64, unmasked; `next_sentence_label` [batch] int64, -1 if there is none."""
        return tf.io.parse_example(examples, {
            "token_ids": tf.io.RaggedFeature(tf.int64, "token_ids$ragged_values", row_splits_dtype=tf.int64),
            "next_sentence_label": tf.io.FixedLenFeature([], tf.int64, default_value=-1)})


def _in_chunks(function: Callable[..., Any], outputs: Sequence[tf.TensorSpec], *rows: tf.Tensor) -> list[tf.Tensor]:
    """A function of rows, `CHUNK` of them at a time, so that no request holds the scores of all of its masks."""
    count = tf.shape(rows[0])[0]
    chunk = tf.clip_by_value(count, 1, CHUNK)   # few masks cost as much as they are
    missing = tf.where(count > 0, -count % chunk, 1)
    chunks = tuple(tf.reshape(tf.pad(one, [[0, missing], *[[0, 0]] * (len(one.shape) - 1)]),
                              tf.concat([[-1, chunk], tf.shape(one)[1:]], axis=0)) for one in rows)
    chunks = tuple(tf.ensure_shape(some, [None, None, *one.shape[1:]]) for some, one in zip(chunks, rows, strict=True))
    found = tf.map_fn(lambda some: function(*some), chunks, fn_output_signature=tuple(outputs), parallel_iterations=1)
    return [tf.reshape(one, tf.concat([[-1], tf.shape(one)[2:]], axis=0))[:count] for one in found]


def export_pretrainer(pretrainer: Pretrainer, folder: str, max_length: int, top: int = 5, passes: int = 7,
                      text: str = "text") -> None:
    """Writes the SavedModel with its three signatures and its manifest.

    Args:
        pretrainer: the model, in any precision; what is served computes in float32 wherever it runs.
        folder: where to.
        max_length: see `ServedPretrainer`.
        top: see `ServedPretrainer`.
        passes: see `ServedPretrainer`.
        text: column that the documents were read from.
    """
    served = ServedPretrainer(in_float32(pretrainer), max_length, top, passes)
    describe = functools.partial(write_description, config=pretrainer.config, vocabulary=pretrainer.vocabulary)
    export(served, served.signatures(), folder, {
        "shape": "pretraining", "text": text, "inputs": ["text"], "max_length": max_length,
        "top": served.top, "passes": passes, "next_sentence": pretrainer.next_head is not None}, describe)
