import pytest

from components.slices import bands, reading_order, word_overlap


def test_bands_include_their_upper_ends():
    assert bands([1, 16, 17, 32, 33, 500], [16, 32], least=1) == ["1-16", "1-16", "17-32", "17-32", ">32", ">32"]
    assert bands([3, 2], [2], least=1) == [">2", "1-2"]
    assert bands([0, 25, 26, 100], [25, 75], least=0) == ["0-25", "0-25", "26-75", ">75"]


@pytest.mark.parametrize("first, second, percent", [
    ("The cat saw the dog", "The dog slept", 40),
    ("Rain today.", "today: RAIN!", 100),
    ("Tom paid Ann.", "Ann paid Tom.", 100),
    ("one two three", "one", 34),          # a third, rounded up
    ("yes", "no", 0),
    ("...", "?!", 0)])
def test_overlap_counts_distinct_words(first, second, percent):
    assert word_overlap(first, second) == percent


def test_bands_are_read_by_their_numbers_and_crossed_slices_last():
    names = ["word_overlap=>50", "word_overlap=26-50, label=no", "label=yes", "length_band=9-16", "label=no",
             "length_band=17-128", "word_overlap=0-25", "length_band=>128"]
    assert sorted(names, key=reading_order) == [
        "label=no", "label=yes", "length_band=9-16", "length_band=17-128", "length_band=>128", "word_overlap=0-25",
        "word_overlap=>50", "word_overlap=26-50, label=no"]
