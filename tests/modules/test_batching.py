import dataclasses
import itertools
import os

import numpy as np
import pytest
import tensorflow as tf

from modules.batching import (
    Buckets,
    Loading,
    _full_batches,
    bucketed,
    cached,
    count_by_bucket,
    make_batches,
    parsed,
    prefetched,
    read,
)
from modules.errors import TextrailError
from pipelines import sections

FEATURES = {"token_ids$ragged_values": tf.int64, "label_id": tf.int64}
LENGTHS = np.random.default_rng(1).integers(2, 41, 500).tolist()
BUCKETS = Buckets.of(40, 8, 160, 16)
USUAL = Loading()


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


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[str]:
    """500 rows in three files."""
    folder = tmp_path_factory.mktemp("records")
    return [write(folder / f"{i}.gz", rows_of(LENGTHS)[i::3]) for i in range(3)]


def listed(batches: tf.data.Dataset) -> list[tuple[list, list]]:
    return [(one["token_ids"].numpy().tolist(), one["label_id"].numpy().tolist()) for one in batches]


def labels(records: tf.data.Dataset, loading: Loading = USUAL) -> list[int]:
    return [label for some in parsed(records, FEATURES, loading) for label in some["label_id"].numpy().tolist()]


def batches(records: tf.data.Dataset, loading: Loading = USUAL, buckets: Buckets = BUCKETS,
            **shuffling: int) -> tf.data.Dataset:
    return make_batches(records, FEATURES, buckets, 0, loading, **shuffling)


def test_the_settings_are_those_of_the_stages_with_the_same_defaults():
    assert sections.Loading().model_dump() == dataclasses.asdict(Loading())


def test_bucket_ends_and_sizes():
    assert Buckets.of(12, 4, 24, 64) == Buckets((4, 8, 12), (6, 3, 2))
    assert Buckets.of(10, 4, 24, 5) == Buckets((4, 8, 10), (5, 3, 2))
    assert Buckets.of(12, 4, 8, 64, multiple_of=2) == Buckets((4, 8, 12), (2, 2, 2))


def test_a_length_equal_to_the_end_belongs_to_the_bucket():
    assert Buckets.of(12, 4, 24, 64).index(tf.constant([1, 4, 5, 8, 9, 12, 13])).numpy().tolist() == [
        0, 0, 1, 1, 2, 2, 3]


def test_batches_of_the_docstrings_example(tmp_path):
    file = write(tmp_path / "a.gz", rows_of([3, 4, 10, 2, 11]))
    found = list(batches(read([file], USUAL), buckets=Buckets.of(12, 4, 24, 64)))
    assert [batch["token_ids"].shape for batch in found] == [[2, 12], [3, 4]]
    assert found[1]["token_ids"].numpy().tolist() == [[1, 1, 1, 0], [2, 2, 2, 2], [4, 4, 0, 0]]
    assert found[1]["label_id"].numpy().tolist() == [0, 1, 3]
    assert found[0]["token_ids"].dtype == tf.int32


def test_files_take_turns(tmp_path):
    a = write(tmp_path / "a.gz", [([1], 1), ([1], 2), ([1], 3)])
    b = write(tmp_path / "b.gz", [([1], 11), ([1], 12)])
    assert labels(read([b, a], Loading(interleave_records=2))) == [1, 2, 11, 12, 3]
    assert labels(read([b, a], Loading(interleave_files=1, interleave_records=2))) == [1, 2, 3, 11, 12]


@pytest.mark.parametrize("buckets, is_end, batches, waiting", [
    ([0, 1, 0, 1, 0], False, [[0, 2]], [4, 1, 3]),
    ([0, 1, 0, 1, 0], True, [[0, 2], [1, 3], [4]], []),
    ([1, 0, 1, 1, 0], False, [[0, 2, 3], [1, 4]], []),   # in the order in which their last example came
    ([0, 1], False, [], [0, 1]), ([], True, [], [])])
def test_full_batches(buckets, is_end, batches, waiting):
    leaving, starts, stops, staying = _full_batches(
        tf.constant(buckets, tf.int64), tf.constant([2, 3], tf.int64), tf.constant(is_end))
    leaving = leaving.numpy().tolist()
    assert [leaving[start:stop] for start, stop in zip(starts.numpy(), stops.numpy(), strict=True)] == batches
    assert staying.numpy().tolist() == waiting


@pytest.mark.parametrize("parse_batch", [1, 7, 512])
def test_batches_and_their_order_are_those_of_tensorflows_own_bucketing(files, parse_batch):
    loading = Loading(parse_batch=parse_batch)
    one_by_one = read(files, loading).map(lambda record: {
        name.split("$")[0]: value for name, value in tf.io.parse_single_example(record, {
            "token_ids$ragged_values": tf.io.FixedLenSequenceFeature([], tf.int64, allow_missing=True),
            "label_id": tf.io.FixedLenFeature([], tf.int64)}).items()})
    theirs = one_by_one.bucket_by_sequence_length(
        lambda example: tf.size(example["token_ids"]), [length + 1 for length in BUCKETS.lengths],
        [*BUCKETS.sizes, 1], pad_to_bucket_boundary=True)
    assert listed(bucketed(parsed(read(files, loading), FEATURES, loading), BUCKETS, 0)) == listed(theirs)


def test_no_batch_exceeds_the_budget_and_none_is_lost(files):
    records = read(files, USUAL)
    counts, tokens = count_by_bucket(parsed(records, FEATURES, USUAL), BUCKETS)
    found = listed(batches(records, shuffle_buffer=100, seed=3))
    assert sum(counts) == 500
    assert tokens == sum(LENGTHS)
    assert len(found) == BUCKETS.batches(counts)
    assert max(len(ids) * len(ids[0]) for ids, _ in found) <= 160
    assert sorted(label for _, of_batch in found for label in of_batch) == list(range(500))
    for ids, label in ((row, label) for batch in found for row, label in zip(*batch, strict=True)):
        assert ids == [label + 1] * LENGTHS[label] + [0] * (len(ids) - LENGTHS[label])


def test_the_same_seed_repeats_an_epoch_and_another_shuffles_it_anew(files):
    records = read(files, USUAL)
    first, again, other = (listed(batches(records, shuffle_buffer=500, seed=seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert first == listed(batches(read(files, USUAL), shuffle_buffer=500, seed=1))


def test_skipping_batches_goes_on_where_an_unbroken_epoch_would(files):
    epoch = batches(read(files, USUAL), shuffle_buffer=100, seed=5)
    assert listed(epoch.skip(7)) == listed(epoch)[7:]


@pytest.mark.parametrize("change", [{"prefetch": 0}, {"prefetch": 3}, {"parse_calls": 1}, {"parse_calls": 3},
                                    {"parse_batch": 3}, {"cache": "memory"}, {"cache": "disk"}])
def test_how_batches_are_made_ready_changes_none_of_them(files, tmp_path, change):
    loading = dataclasses.replace(USUAL, **change)
    records = cached(read(files, loading), loading, str(tmp_path / "cache"))
    expected = listed(batches(read(files, USUAL), shuffle_buffer=100, seed=5))
    for _ in range(2):   # the second pass reads the cache
        assert listed(batches(records, loading, shuffle_buffer=100, seed=5)) == expected


def test_without_determinism_nothing_is_lost(files):
    loading = Loading(deterministic=False)
    found = labels(read(files, loading), loading)
    assert not batches(read(files, loading), loading).options().deterministic
    assert sorted(found) == list(range(500))


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_one_pass_fills_the_cache_for_all_that_follow(tmp_path, cache):
    file, loading = write(tmp_path / "a.gz", rows_of(LENGTHS)), Loading(cache=cache)
    records = cached(read([file], loading), loading, str(tmp_path / "cache"))
    expected = listed(batches(read([file], loading), shuffle_buffer=100, seed=5))
    count_by_bucket(parsed(records, FEATURES, loading), BUCKETS)
    os.remove(file)
    assert listed(batches(records, loading, shuffle_buffer=100, seed=5)) == expected
    if cache == "disk":   # a training that resumes finds it as well
        again = cached(read([file], loading), loading, str(tmp_path / "cache"))
        assert listed(batches(again, loading, shuffle_buffer=100, seed=5)) == expected


def test_a_cache_on_disk_that_was_cut_off_is_written_anew(files, tmp_path):
    loading, folder = Loading(cache="disk"), tmp_path / "cache"
    begun = iter(cached(read(files, loading), loading, str(folder)))
    for _ in itertools.islice(begun, 5):
        pass
    assert [path.name for path in folder.iterdir() if path.name.endswith(".lockfile")]
    records = cached(read(files, loading), loading, str(folder))
    assert sorted(labels(records)) == list(range(500))
    assert (folder / "records.index").is_file()
    del begun


def test_prefetching_is_a_number_of_batches(files):
    records = read(files, USUAL)
    assert prefetched(records, Loading(prefetch=0)) is records
    assert prefetched(records, Loading(prefetch=2))._buffer_size.numpy() == 2


PAIR_FEATURES = {"source_ids$ragged_values": tf.int64, "target_ids$ragged_values": tf.int64}


def write_pairs(path, lengths: list[tuple[int, int]], sign: int = -1) -> str:
    """Pair i, from 1, has its lengths in tokens i and i with a sign."""
    with tf.io.TFRecordWriter(str(path), options="GZIP") as writer:
        for i, (source, target) in enumerate(lengths, start=1):
            values = {"source_ids$ragged_values": [i] * source, "target_ids$ragged_values": [sign * i] * target}
            writer.write(tf.train.Example(features=tf.train.Features(feature={
                name: tf.train.Feature(int64_list=tf.train.Int64List(value=ids)) for name, ids in values.items()
            })).SerializeToString())
    return str(path)


def test_the_longer_text_of_a_pair_decides_and_both_are_padded_alike(tmp_path):
    # 32 tokens a batch: 4 pairs of 4 + 4, or 2 of 8 + 8.
    buckets = Buckets.of(8, 4, 32, 64, texts=2)
    assert buckets == Buckets((4, 8), (4, 2), 2)
    records = read([write_pairs(tmp_path / "a.gz", [(3, 2), (5, 1), (2, 4), (2, 8), (1, 1)])], USUAL)
    counts, tokens = count_by_bucket(parsed(records, PAIR_FEATURES, USUAL), buckets)
    assert (counts, tokens) == ([3, 2], 29)
    assert buckets.padded(counts) == 2 * (3 * 4 + 2 * 8)
    found = [{name: ids.numpy().tolist() for name, ids in one.items()}
             for one in make_batches(records, PAIR_FEATURES, buckets, 0, USUAL)]
    assert found == [
        {"source_ids": [[2, 2, 2, 2, 2, 0, 0, 0], [4, 4, 0, 0, 0, 0, 0, 0]],
         "target_ids": [[-2, 0, 0, 0, 0, 0, 0, 0], [-4] * 8]},
        {"source_ids": [[1, 1, 1, 0], [3, 3, 0, 0], [5, 0, 0, 0]],
         "target_ids": [[-1, -1, 0, 0], [-3, -3, -3, -3], [-5, 0, 0, 0]]}]


def test_no_batch_of_pairs_has_more_tokens_than_the_budget(tmp_path):
    random = np.random.default_rng(2)
    lengths = [tuple(pair) for pair in random.integers(2, 41, (300, 2)).tolist()]
    records, buckets = read([write_pairs(tmp_path / "a.gz", lengths)], USUAL), Buckets.of(40, 4, 400, 64, texts=2)
    found = list(make_batches(records, PAIR_FEATURES, buckets, 0, USUAL, shuffle_buffer=100, seed=1))
    assert max(sum(tf.size(ids).numpy() for ids in one.values()) for one in found) <= 400
    assert sorted(int(row) for one in found for row in one["source_ids"][:, 0]) == list(range(1, 301))


def test_too_long_an_example_is_an_error_and_not_cut(tmp_path):
    records = read([write(tmp_path / "a.gz", rows_of([3, 9]))], USUAL)
    with pytest.raises(TextrailError, match="at most 8 tokens"):
        count_by_bucket(parsed(records, FEATURES, USUAL), Buckets.of(8, 4, 16, 64))


def test_no_files_is_an_error():
    with pytest.raises(TextrailError, match="transformed records"):
        read([], USUAL)
