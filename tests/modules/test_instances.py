"""Examples for pretraining: exact ones of few sentences, BERT's rules against a plain loop, and measured shares."""

from collections import Counter
from random import Random

import numpy as np
import pytest

from modules.instances import IS_NEXT, IS_RANDOM, Documents, Packing, _cut, make_instances, token_ids_of


def documents_of(*documents: list[list[int]], room: int = 1000) -> Documents:
    """Documents as lists of sentences as lists of token ids."""
    sentences = [sentence for document in documents for sentence in document]
    return Documents.of(np.array([i for sentence in sentences for i in sentence], np.int32),
                        np.array([len(sentence) for sentence in sentences]), list(map(len, documents)), room)


def examples_of(documents: Documents, packing: Packing, seed: int = 1) -> list[tuple[list[int], int]]:
    """Token ids and labels of all documents, in their order."""
    return [(token_ids_of(instance, documents, 2, 3), instance.label) for number in range(documents.count)
            for instance in make_instances(documents, number, packing, Random(seed * 1000 + number))]


def corpus(documents: int, seed: int = 5, longest: int = 40) -> Documents:
    """Documents of 1 to 40 sentences. A token tells its document, its sentence and its place: ddssspp."""
    random = Random(seed)
    return documents_of(*(
        [[100_000 * (d + 1) + 100 * s + t for t in range(random.randint(1, longest))]
         for s in range(random.randint(1, 40))] for d in range(documents)))


def test_documents():
    documents = documents_of([[5, 6], [], [7]], [[], []], [[8, 9, 10]])
    assert documents.token_ids.tolist() == [5, 6, 7, 8, 9, 10]
    assert documents.sentences == [0, 2, 3, 6] and documents.starts == [0, 2, 3] and documents.count == 2


def test_nothing_but_empty_documents():
    documents = documents_of([[]], [])
    assert documents.sentences == [0] and documents.starts == [0] and documents.count == 0


def test_long_sentences_are_cut():
    documents = documents_of([[1] * 4, [2] * 11], [[3] * 5], room=4)
    assert documents.sentences == [0, 4, 6, 8, 10, 12, 14, 15, 17, 19, 20] and documents.starts == [0, 7, 10]


def test_strangers_stand_behind():
    documents = documents_of([[5, 6], [7]], [[8, 9], [10]])
    joined = documents_of([[11]]).join(documents.last(), strangers=1)
    assert joined.token_ids.tolist() == [11, 8, 9, 10] and joined.count == 1
    assert joined.sentences == [0, 1, 3, 4] and joined.starts == [0, 1, 3]
    assert joined.last().token_ids.tolist() == [11]


def test_the_worked_example():
    documents = documents_of([[5, 6, 7], [8, 9], [10, 11, 12, 13]])
    found = examples_of(documents, Packing(max_length=10, short_rate=0))
    assert found == [([2, 5, 6, 7, 3, 9, 10, 11, 12, 3], IS_NEXT)]


def test_what_fits_is_not_cut():
    documents = documents_of([[5, 6], [7], [8, 9], [10]])
    assert {tuple(ids) for seed in range(50) for ids, _ in examples_of(
        documents, Packing(max_length=9, short_rate=0, swap_rate=0), seed)} == {
        (2, 5, 6, 3, 7, 8, 9, 10, 3), (2, 5, 6, 7, 3, 8, 9, 10, 3), (2, 5, 6, 7, 8, 9, 3, 10, 3)}


def test_what_a_swap_stands_in_for_comes_next():
    documents = documents_of([[token] for token in range(10, 40)], [[token] for token in range(50, 80)])
    for seed in range(20):
        found = examples_of(documents, Packing(9, short_rate=0, swap_rate=1), seed)
        firsts = [token for ids, _ in found for token in ids[1:ids.index(3)]]
        assert firsts == [*range(10, 40), *range(50, 80)]
        assert {label for _, label in found} == {IS_RANDOM} and len(found) > 2 * 30 / 5


def test_one_segment():
    documents = documents_of([[5, 6], [7], [8, 9], [10, 11, 12, 13]], [[14]])
    assert examples_of(documents, Packing(max_length=6, short_rate=0, next_sentence=False)) == [
        ([2, 5, 6, 7, 3], IS_NEXT), ([2, 8, 9, 3], IS_NEXT), ([2, 10, 11, 12, 13, 3], IS_NEXT), ([2, 14, 3], IS_NEXT)]


@pytest.mark.parametrize("max_length", [8, 32, 128])
def test_a_pair_never_mixes_documents(max_length):
    documents = corpus(60)
    found = examples_of(documents, Packing(max_length))
    assert len(found) > 300
    for ids, label in found:
        middle = ids.index(3)
        first, second = ids[1:middle], ids[middle + 1:-1]
        assert ids[0] == 2 and ids[-1] == 3 and len(ids) <= max_length and first and second
        owners = [{token // 100_000 for token in segment} for segment in (first, second)]
        assert [len(owner) for owner in owners] == [1, 1]
        assert (owners[0] == owners[1]) == (label == IS_NEXT)
        assert first == sorted(first) and second == sorted(second) and (label == IS_RANDOM or first[-1] < second[0])


def test_b_begins_with_the_sentence_behind_a():
    documents = corpus(60, longest=5)   # Short sentences, so that a cut of five tokens hardly ever takes a whole one.
    apart = Counter(ids[ids.index(3) + 1] // 100 - ids[ids.index(3) - 1] // 100
                    for ids, label in examples_of(documents, Packing(64, short_rate=0)) if label == IS_NEXT)
    assert min(apart) == 1 and apart[1] > 0.8 * apart.total()


def test_every_token_that_is_not_cut_away_is_in_an_a_or_a_next_b():
    documents = documents_of(*([[100 * d + s] for s in range(1, 20)] for d in range(1, 9)))
    seen = Counter()
    for ids, label in examples_of(documents, Packing(12, short_rate=0)):
        middle = ids.index(3)
        seen.update(ids[1:-1] if label == IS_NEXT else ids[1:middle])
    # The last sentence of a document may make a pair with the one before.
    tokens = set(documents.token_ids.tolist())
    assert set(seen) - {3} == tokens
    assert all(seen[token] == 1 for token in tokens if token % 100 != 18)


@pytest.mark.parametrize("short_rate, swap_rate", [(0.1, 0.5), (0.3, 0.2), (0, 1), (1, 0)])
def test_shares_are_those_asked_for(short_rate, swap_rate):
    documents, packing = corpus(1000), Packing(64, short_rate, swap_rate)
    found = [instance for number in range(documents.count)
             for instance in make_instances(documents, number, packing, Random(number))]
    many = [instance for number in range(documents.count)
            if documents.starts[number + 1] - documents.starts[number] > 1
            for instance in make_instances(documents, number, packing, Random(number))]
    assert len(many) > 7_000
    assert sum(i.is_short for i in found) / len(found) == pytest.approx(short_rate, abs=0.01)
    assert sum(i.label for i in many) / len(many) == pytest.approx(swap_rate, abs=0.01)
    sizes = [i.first[1] - i.first[0] + i.second[1] - i.second[0] for i in found if not i.is_short]
    if sizes:   # Full ones are full, but for the ends of documents.
        assert np.median(sizes) == packing.room and np.mean([size == packing.room for size in sizes]) > 0.8


def test_other_documents_are_drawn_evenly():
    documents = documents_of(*([[10 * d + s] for s in range(4)] for d in range(1, 6)))
    owners = Counter(ids[-2] // 10 for seed in range(2000)
                     for ids, label in examples_of(documents, Packing(5, 0, 1), seed) if ids[1] // 10 == 3)
    assert set(owners) == {1, 2, 4, 5} and max(owners.values()) < 1.1 * min(owners.values())


def test_the_seed_decides():
    documents, packing = corpus(20), Packing(32)
    assert examples_of(documents, packing, 1) == examples_of(documents, packing, 1)
    assert examples_of(documents, packing, 1) != examples_of(documents, packing, 2)


def test_a_document_alone_has_next_sentences_only():
    documents = documents_of([[5], [6], [7]])
    assert {label for seed in range(20) for _, label in examples_of(documents, Packing(5, 0), seed)} == {IS_NEXT}
    assert examples_of(documents_of([[5, 6]]), Packing(8)) == []


def test_a_document_of_one_sentence():
    documents = documents_of([[5]], [[6]])
    assert examples_of(documents, Packing(8)) == [([2, 5, 3, 6, 3], IS_RANDOM), ([2, 6, 3, 5, 3], IS_RANDOM)]
    assert examples_of(documents, Packing(8, swap_rate=0)) == []


@pytest.mark.parametrize("sizes", [(6, 2), (6, 6), (1, 9), (9, 1), (2, 3), (30, 30), (7, 12), (12, 7)])
def test_cutting_is_berts_loop(sizes):
    """BERT takes one token at a time from the longer segment, from B if both are as long; front or back by a coin."""
    room, fronts = 5, Counter()
    for seed in range(400):
        first, second = _cut((100, 100 + sizes[0]), (500, 500 + sizes[1]), room, Random(seed))
        longest = list(sizes)
        while sum(longest) > room:
            longest[longest[0] <= longest[1]] -= 1
        assert [first[1] - first[0], second[1] - second[0]] == longest
        assert min(first[0] - 100, second[0] - 500, 100 + sizes[0] - first[1], 500 + sizes[1] - second[1]) >= 0
        fronts.update(first=first[0] - 100, second=second[0] - 500)
    for name, size, kept in (("first", sizes[0], longest[0]), ("second", sizes[1], longest[1])):
        assert fronts[name] / 400 == pytest.approx((size - kept) / 2, abs=0.4)
