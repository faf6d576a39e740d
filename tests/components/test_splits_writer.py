"""Which split and shard a row goes to, and how it is serialized."""

import pytest
import tensorflow as tf

from components.rows import Piece, wanted
from components.splits_writer import ExampleEncoder, Plan, row_digest

SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}


def test_shards_follow_the_bytes_of_a_split():
    pieces = [Piece(None, 600, ("a",)), Piece(None, 400, ("b",))]
    assert Plan(pieces, SHARES, shard_bytes=100).shards == {"train": 8, "validation": 1, "test": 1}
    halves = {"train": 0.5, "validation": 0.5, "test": 0}
    assert Plan(pieces, halves, shard_bytes=1000).shards == {"train": 1, "validation": 1}
    given = [Piece("validation", 150, ("v",)), Piece("train", 301, ("t",))]
    assert Plan(given, SHARES, shard_bytes=100).shards == {"train": 4, "validation": 2}
    assert Plan([Piece("train", 10**12, ()), Piece("test", 1, ())], SHARES, 64 << 20).shards == {
        "train": 2048, "test": 1}


def test_shares_are_kept_and_do_not_move():
    plan = Plan([Piece(None, 1, ("a",))], SHARES, shard_bytes=100)
    rows = [(f"text {i}".encode(), b"pos") for i in range(2000)]
    splits = [plan.shard_of(row_digest(row[:1]), None)[0] for row in rows]
    # As in every run from now on: rows must not change their split between versions.
    assert [splits.count(split) for split in SHARES] == [1593, 214, 193]
    assert splits[:4] == ["train", "validation", "validation", "train"]


@pytest.mark.parametrize("data, read", [
    ({"text": "a", "label": "c"}, 1), ({"text": "a", "text_pair": "b", "label": "c", "slice": "d"}, 2),
    ({"text": "a", "target": "b", "slice": "d"}, 1)])
def test_what_a_model_reads_decides_the_split_and_nothing_else(data, read):
    assert wanted(data).read == read


def test_the_texts_of_a_pair_are_told_apart():
    assert row_digest((b"ab", b"c")) != row_digest((b"a", b"bc"))


def test_given_split_is_kept():
    plan = Plan([Piece("train", 1, ()), Piece("test", 1, ())], SHARES, shard_bytes=100)
    for i in range(20):
        assert plan.shard_of(row_digest((b"%d" % i,)), "test") == ("test", 0)


@pytest.mark.parametrize("row", [(b"a \xc3\xa9", b"pos"), (b"", b"neg")])
def test_encoder_reuses_its_message(row):
    encode = ExampleEncoder(["text", "label"])
    encode((b"a longer row before", b"x"))
    features = tf.train.Example.FromString(encode(row)).features.feature
    assert {name: list(feature.bytes_list.value) for name, feature in features.items()} == {
        "text": [row[0]], "label": [row[1]]}


def test_a_seed_orders_anew_and_moves_no_row_to_another_split():
    pieces, digests = [Piece(None, 1000, ("a",))], [row_digest((b"%d" % i,)) for i in range(200)]
    plain, first, second = (Plan(pieces, SHARES, 100, seed) for seed in (None, 1, 2))
    assert [plain.order_of(digest) for digest in digests] == digests
    assert sorted(digests, key=first.order_of) != sorted(digests, key=second.order_of)
    for digest in digests:
        assert plain.shard_of(digest, None)[0] == first.shard_of(digest, None)[0] == second.shard_of(digest, None)[0]
    assert len({first.shard_of(digest, "train")[1] for digest in digests}) == 8
