import numpy as np
import pytest
import tensorflow as tf

from modules.batching import Buckets, bucketed, count_by_bucket, read_examples
from modules.errors import TextrailError

FEATURES = {"token_ids$ragged_values": tf.int64, "label_id": tf.int64}


def write(path, rows: list[tuple[list[int], int]]) -> str:
    with tf.io.TFRecordWriter(str(path), options="GZIP") as writer:
        for ids, label in rows:
            writer.write(tf.train.Example(features=tf.train.Features(feature={
                "token_ids$ragged_values": tf.train.Feature(int64_list=tf.train.Int64List(value=ids)),
                "label_id": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
            })).SerializeToString())
    return str(path)


def rows_of(lengths: list[int]) -> list[tuple[list[int], int]]:
    """Row i has its length in tokens i + 1 and the label i."""
    return [([i + 1] * length, i) for i, length in enumerate(lengths)]


def test_bucket_ends_and_sizes():
    assert Buckets.of(12, 4, 24, 64) == Buckets((4, 8, 12), (6, 3, 2))
    assert Buckets.of(10, 4, 24, 5) == Buckets((4, 8, 10), (5, 3, 2))
    assert Buckets.of(12, 4, 8, 64, multiple_of=2) == Buckets((4, 8, 12), (2, 2, 2))


def test_a_length_equal_to_the_end_belongs_to_the_bucket():
    assert Buckets.of(12, 4, 24, 64).index(tf.constant([1, 4, 5, 8, 9, 12, 13])).numpy().tolist() == [
        0, 0, 1, 1, 2, 2, 3]


def test_batches_of_the_docstrings_example(tmp_path):
    file = write(tmp_path / "a.gz", rows_of([3, 4, 10, 2, 11]))
    buckets = Buckets.of(12, 4, 24, 64)
    batches = list(bucketed(read_examples([file], FEATURES), buckets, "token_ids", pad_id=0))
    assert [batch["token_ids"].shape for batch in batches] == [[2, 12], [3, 4]]
    assert batches[1]["token_ids"].numpy().tolist() == [[1, 1, 1, 0], [2, 2, 2, 2], [4, 4, 0, 0]]
    assert batches[1]["label_id"].numpy().tolist() == [0, 1, 3]
    assert batches[0]["token_ids"].dtype == tf.int32


def test_no_batch_exceeds_the_budget_and_none_is_lost(tmp_path):
    lengths = np.random.default_rng(1).integers(2, 41, 500).tolist()
    files = [write(tmp_path / f"{i}.gz", rows_of(lengths)[i::3]) for i in range(3)]
    buckets = Buckets.of(40, 8, 160, 16)
    examples = read_examples(files, FEATURES)
    counts, tokens = count_by_bucket(examples, buckets, "token_ids")
    batches = list(bucketed(examples, buckets, "token_ids", pad_id=0, shuffle_buffer=100, seed=3))
    assert sum(counts) == 500
    assert tokens == sum(lengths)
    assert len(batches) == buckets.batches(counts)
    assert max(batch["token_ids"].shape[0] * batch["token_ids"].shape[1] for batch in batches) <= 160
    assert sorted(label for batch in batches for label in batch["label_id"].numpy()) == list(range(500))
    for batch in batches:
        for ids, label in zip(batch["token_ids"].numpy(), batch["label_id"].numpy(), strict=True):
            assert ids.tolist() == [label + 1] * lengths[label] + [0] * (len(ids) - lengths[label])


def test_the_same_seed_repeats_an_epoch_and_another_shuffles_it_anew(tmp_path):
    examples = read_examples([write(tmp_path / "a.gz", rows_of([4] * 60))], FEATURES)

    def labels(seed: int) -> list[int]:
        dataset = bucketed(examples, Buckets.of(8, 4, 16, 64), "token_ids", 0, shuffle_buffer=60, seed=seed)
        return [label for batch in dataset for label in batch["label_id"].numpy().tolist()]

    assert labels(1) == labels(1)
    assert labels(1) != labels(2)
    assert sorted(labels(2)) == list(range(60))


def test_too_long_an_example_is_an_error_and_not_cut(tmp_path):
    examples = read_examples([write(tmp_path / "a.gz", rows_of([3, 9]))], FEATURES)
    with pytest.raises(TextrailError, match="at most 8 tokens"):
        count_by_bucket(examples, Buckets.of(8, 4, 16, 64), "token_ids")


def test_no_files_is_an_error():
    with pytest.raises(TextrailError, match="transformed records"):
        read_examples([], FEATURES)
