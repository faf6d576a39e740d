"""Wordpieces learned from counts: worked by hand, exact in size, and split as the graph splits."""

import random

import pytest
import tensorflow as tf

from components.wordpieces import Coverage, add_up, frequent_characters, learn, measure, split
from modules.subwords import JOINER, SPECIALS, Subwords


def test_pieces_worked_by_hand():
    counts = {"low": 5, "lower": 2, "new": 1}
    learned = learn(counts, size=17, reserved=["[UNK]"], max_characters=6)
    # "ow" and "lo" both stand 7 times; "##o" comes before "l". Then l+ow 7, e+r 2, and low+er 2.
    assert learned.pieces == ["[UNK]", *"elnorw", *("##" + c for c in "elnorw"), "##ow", "low", "##er", "lower"]
    assert learned.characters == list("elnorw") and learned.reason == ""
    more = learn(counts, size=100, reserved=["[UNK]"], max_characters=6)
    assert more.pieces == learned.pieces and more.reason == "no other two pieces stand together 2 times"


def test_a_pair_that_overlaps_itself_counts_and_merges_from_the_left():
    assert learn({"aaaaa": 3}, 10, [], 9).pieces == ["a", "##a", "##aa", "##aaaa", "aaaaa"]


def test_the_same_counts_in_any_order_give_the_same_pieces():
    rng = random.Random(3)
    words = ["".join(rng.choice("abcde") for _ in range(rng.randrange(1, 9))) for _ in range(400)]
    items = [(word, rng.randrange(1, 5)) for word in sorted(set(words))]
    learned = learn(dict(items), 150, ["[UNK]"], 9)
    rng.shuffle(items)
    assert learn(dict(items), 150, ["[UNK]"], 9) == learned
    assert len(learned.pieces) == len(set(learned.pieces)) == 150


def test_rare_characters_teach_nothing_and_some_are_always_in():
    assert frequent_characters({"ab": 2, "bc": 1, "dd": 1}, 2) == ["a", "b"]
    learned = learn({"ab": 2, "z": 9, "b": 30}, 100, [], 2, always="￭")
    assert learned.characters == ["b", "z", "￭"] and learned.pieces == ["b", "z", "￭", "##b", "##z", "##￭"]


def test_a_size_without_room_for_the_characters():
    with pytest.raises(ValueError, match=r"1 reserved pieces and 3 characters, .*, which are 7 pieces"):
        learn({"abc": 1}, 6, ["[UNK]"], 9)
    assert len(learn({"abc": 1}, 7, ["[UNK]"], 9).pieces) == 7


def test_words_are_split_as_the_graph_splits_them():
    rng = random.Random(4)
    words = ["".join(rng.choice("abcdx") for _ in range(rng.randrange(1, 9))) for _ in range(500)]
    counts = {word: 1 for word in words if "x" not in word}
    pieces = learn(counts, 60, SPECIALS, 9, JOINER).pieces
    subwords = Subwords(tuple(pieces))
    expected = [["[UNK]"] if parts is None else parts for parts in (split(word, set(pieces), 9) for word in words)]
    tokens = subwords.tokens(subwords.encode(tf.constant(words))).to_list()
    assert [[piece.decode() for piece in row[1:-1]] for row in tokens] == expected
    assert ["[UNK]"] in expected


def test_measure():
    pieces = ["[UNK]", "a", "##a", "b", "##b", "ab"]
    assert measure([("ab", 3), ("aba", 2), ("abz", 1)], pieces) == Coverage(
        words=6, tokens=3 + 2 * 2 + 1, unknown=1, characters=6 + 6 + 3, covered=14)
    parts = [measure([("ab", 3)], pieces), measure([("aba", 2), ("abz", 1)], pieces)]
    assert add_up(parts) == Coverage(6, 8, 1, 15, 14)
    assert add_up([]) == Coverage(0, 0, 0, 0, 0)
