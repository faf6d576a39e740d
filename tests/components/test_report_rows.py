import functools
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from components import report_rows
from components.report_rows import Digests, Histogram, Pieces, Task, Words, measure, measure_all, split_files
from modules import subwords


def write(path: Path, texts: list[tuple[str, str]]) -> str:
    with tf.io.TFRecordWriter(str(path), tf.io.TFRecordOptions("GZIP")) as writer:
        for pt, en in texts:
            writer.write(tf.train.Example(features=tf.train.Features(feature={
                name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[text.encode()]))
                for name, text in (("pt", pt), ("en", en))})).SerializeToString())
    return str(path)


def test_lengths_add_up_and_tell_quantiles():
    one, other = Histogram.of(np.array([3, 1, 3])), Histogram.of(np.array([2, 3, 123_456]))
    both = one + other
    assert both.values.tolist() == [1, 2, 3, 123_400] and both.counts.tolist() == [1, 1, 3, 1]   # four digits
    assert (both.rows, both.total, both.longest, both.above(2)) == (6, 123_412, 123_400, 4)
    assert [both.quantile(share) for share in (0.1, 0.5, 5 / 6, 1.0)] == [1, 3, 3, 123_400]
    assert both.cut(2).values.tolist() == [1, 2] and both.cut(2).counts.tolist() == [1, 5]
    assert (Histogram() + one).values.tolist() == [1, 3] and Histogram().longest == 0


def test_texts_of_two_splits_are_counted():
    train, test = Digests.of(np.array([5, 5, 7])), Digests.of(np.array([5, 9, 9, 5]))
    assert test.shared(train) == 2 and train.shared(test) == 2 and (train.repeated, test.repeated) == (1, 2)
    assert (train + test).repeated == 4


def test_digests_that_are_too_many_are_sampled_alike(monkeypatch):
    """Twenty thousand texts in two thousand places: estimates are within a few percent."""
    monkeypatch.setattr(report_rows, "HELD", 2000)
    random = np.random.default_rng(5)
    texts = random.integers(0, 2**62, 20_000)
    train = functools.reduce(lambda one, other: one + other, map(Digests.of, np.array_split(texts, 7)))
    test = Digests.of(np.concatenate([texts[:1000], texts[:1000], random.integers(0, 2**62, 3000)]))
    assert len(train.values) <= 2000 and train.level == 4 and len(test.values) <= 2000
    assert test.shared(train) == pytest.approx(2000, rel=0.25) and test.repeated == pytest.approx(1000, rel=0.25)


def test_a_vocabulary_is_told_by_its_pieces():
    found = Pieces.of(np.array([0, 2, 9, 9, 3, 4, 0]), ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "film", "##s", "rare"])
    assert (found.tokens, found.words, found.unknown, found.used) == (9, 5, 2, 3)


def test_pairs_of_files_are_measured_and_long_ones_left_out_of_training(tmp_path):
    for side in ("source", "target"):
        (tmp_path / side).mkdir()
        subwords.Subwords((*subwords.SPECIALS, subwords.JOINER, "a", "b")).write(str(tmp_path / side))
    words = {"pt": Words("subwords", str(tmp_path / "source"), ("pt",)),
             "en": Words("subwords", str(tmp_path / "target"), ("en",))}
    (tmp_path / "Split-train").mkdir()
    (tmp_path / "Split-test").mkdir()
    write(tmp_path / "Split-train" / "a", [("a b", "a"), ("a", "b b b b")])
    write(tmp_path / "Split-train" / "b", [("b ü", "a b")])
    write(tmp_path / "Split-test" / "a", [("a b", "another translation")])
    files = split_files(str(tmp_path))
    assert {split: [Path(path).name for path in paths] for split, paths in files.items()} == {
        "test": ["a"], "train": ["a", "b"]}
    tasks = [Task(path, split, ("pt", "en"), ("pt",), words, limit=5, cuts=False)
             for split, paths in files.items() for path in paths]
    found = measure_all(tasks)
    assert found.characters["pt"].values.tolist() == [1, 3] and found.tokens["en"].values.tolist() == [3, 4, 6]
    # Of the pairs one is longer than 5 tokens; the others are 4 tokens long, and have 4 + 3 and 4 + 4.
    assert (found.trained.values.tolist(), found.trained.rows, found.trained_tokens) == ([4], 2, 15)
    assert found.left_out == ((6, ("a", "b b b b")),)
    assert found.pieces["pt"].unknown == 1 and found.pieces["en"].unknown == 0
    # The same text, whatever its translation; the order of splits is the reader's.
    assert found.shared(["train", "validation", "test"]) == {("test", "train"): 1} and not found.estimated
    assert measure(Task(files["test"][0], "test", ("pt", "en"), ("pt",))).tokens == {}
