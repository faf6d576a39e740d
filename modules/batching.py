"""From transformed records to batches: short texts with short texts, padded no further than their bucket.

The records hold token ids without padding. A batch holds examples of one length bucket, as many as fit the token
budget, so that arithmetic is spent on tokens and not on padding.

Worked example: with buckets of 4 tokens up to 12 and a budget of 24 tokens, texts of 3, 4, 10, 2 and 11 tokens
become one batch [3, 4] of the texts with 3, 4 and 2 tokens and one batch [2, 12] of those with 10 and 11.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf

from modules.errors import TextrailError

Example = dict[str, tf.Tensor]


@dataclass(frozen=True)
class Buckets:
    """How examples are grouped.

    Attributes:
        lengths: upper ends of the buckets in tokens, ascending; the last is the longest example allowed.
        sizes: examples in a batch of each bucket.
    """

    lengths: tuple[int, ...]
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, max_length: int, step: int, batch_tokens: int, max_batch: int, multiple_of: int = 1) -> Buckets:
        """Buckets every `step` tokens up to `max_length`, each with as many examples as `batch_tokens` allows.

        Args:
            max_length: longest example in tokens.
            step: width of a bucket in tokens.
            batch_tokens: tokens in a batch, padding included.
            max_batch: most examples in a batch.
            multiple_of: batch sizes are multiples of this (the number of replicas).
        """
        lengths = (*range(step, max_length, step), max_length)
        sizes = (min(max_batch, batch_tokens // length) // multiple_of * multiple_of for length in lengths)
        return cls(lengths, tuple(max(size, multiple_of) for size in sizes))

    def index(self, length: tf.Tensor) -> tf.Tensor:
        """[...] int64 bucket of each length."""
        return tf.searchsorted(tf.constant(self.lengths, tf.int64), tf.cast(length, tf.int64), side="left",
                               out_type=tf.int64)

    def batches(self, counts: Sequence[int]) -> int:
        """Batches of an epoch, given the examples in each bucket; the last of a bucket may be smaller."""
        return sum(-(-count // size) for count, size in zip(counts, self.sizes, strict=True))


def read_examples(files: Sequence[str], features: dict[str, tf.DType], *, parse_batch: int = 512) -> tf.data.Dataset:
    """Reads transformed records, in an order that repeats.

    Args:
        files: gzip TFRecord files of tf.Examples.
        features: name → dtype; a name ending in `$ragged_values` gives a vector under the name before the `$`,
            any other a scalar.
        parse_batch: records parsed by one call, which costs far less than one call a record.

    Returns:
        A dataset of dicts: ragged features [length], others [].

    Raises:
        TextrailError: no files.
    """
    if not files:
        raise TextrailError("transformed records", "an empty list of files",
                            "Look at the Transform step: the split it should have written has no rows.")
    spec: dict[str, tf.io.RaggedFeature | tf.io.FixedLenFeature] = {}
    for name, dtype in features.items():
        spec[name.split("$")[0]] = (
            tf.io.RaggedFeature(dtype, value_key=name, row_splits_dtype=tf.int64) if "$" in name
            else tf.io.FixedLenFeature([], dtype))
    records = tf.data.Dataset.from_tensor_slices(sorted(files)).interleave(
        lambda file: tf.data.TFRecordDataset(file, compression_type="GZIP"),
        cycle_length=16, block_length=16, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return records.batch(parse_batch).map(
        lambda serialized: tf.io.parse_example(serialized, spec), num_parallel_calls=tf.data.AUTOTUNE).unbatch()


def count_by_bucket(examples: tf.data.Dataset, buckets: Buckets, ragged: str) -> tuple[list[int], int]:
    """Counts examples of each bucket and all tokens in one pass.

    Args:
        examples: what `read_examples` gives.
        buckets: the grouping.
        ragged: name of the feature whose length decides.

    Returns:
        Examples in each bucket, and tokens without padding.

    Raises:
        TextrailError: an example longer than the last bucket.
    """
    lengths = examples.map(lambda example: tf.size(example[ragged], out_type=tf.int64)).batch(4096)
    counts = tf.zeros([len(buckets.lengths) + 1], tf.int64)
    counts, tokens = lengths.reduce(
        (counts, tf.constant(0, tf.int64)),
        lambda state, batch: (
            state[0] + tf.math.bincount(tf.cast(buckets.index(batch), tf.int32), minlength=len(buckets.lengths) + 1,
                                        maxlength=len(buckets.lengths) + 1, dtype=tf.int64),
            state[1] + tf.reduce_sum(batch)))
    counts = counts.numpy().tolist()
    if counts.pop():
        raise TextrailError(f"examples of at most {buckets.lengths[-1]} tokens", "longer ones in the records",
                            "Set model.max_length to the length that the Transform step cut to.")
    return counts, int(tokens)


def bucketed(examples: tf.data.Dataset, buckets: Buckets, ragged: str, pad_id: int, *, shuffle_buffer: int = 0,
             seed: int = 0) -> tf.data.Dataset:
    """Groups examples by length and pads each batch to its bucket.

    Args:
        examples: what `read_examples` gives.
        buckets: the grouping.
        ragged: name of the feature that is padded and whose length decides.
        pad_id: what it is padded with.
        shuffle_buffer: examples held for shuffling, 0 keeps the order.
        seed: of the shuffling; another for every epoch.

    Returns:
        A dataset of dicts: `ragged` [batch, bucket length] int32, others [batch].
    """
    if shuffle_buffer:
        examples = examples.shuffle(shuffle_buffer, seed=seed, reshuffle_each_iteration=False)
    examples = examples.map(lambda example: {**example, ragged: tf.cast(example[ragged], tf.int32)})
    shapes = {name: [None] if name == ragged else spec.shape for name, spec in examples.element_spec.items()}
    padding = {name: tf.constant(pad_id if name == ragged else 0, spec.dtype)
               for name, spec in examples.element_spec.items()}
    return examples.bucket_by_sequence_length(
        lambda example: tf.size(example[ragged]),
        # TensorFlow's boundaries are exclusive upper ends, and what is padded to a boundary ends one before it.
        bucket_boundaries=[length + 1 for length in buckets.lengths], bucket_batch_sizes=[*buckets.sizes, 1],
        padded_shapes=shapes, padding_values=padding, pad_to_bucket_boundary=True).prefetch(tf.data.AUTOTUNE)
