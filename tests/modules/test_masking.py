"""Masked tokens: rates measured on 100,000 tokens, and exact cases with a vocabulary of a dozen pieces."""

import numpy as np
import pytest
import tensorflow as tf

from modules.errors import TextrailError
from modules.masking import Masker, Masking, _fill, masked
from modules.tokenization import SPECIALS, Vocabulary

PAD, UNK, CLS, SEP, MASK, UNUSED = range(6)
PIECES = (*SPECIALS, "[unused0]", "the", "film", "##s", "##ing", "good", "##")
THE, FILM, S, ING, GOOD, SHARPS = range(6, 12)
SMALL = Vocabulary(PIECES)
LARGE = Vocabulary((*SPECIALS, *(f"[unused{i}]" for i in range(5)), *(f"w{i}" for i in range(700)),
                    *(f"##p{i}" for i in range(300))))


def seed_of(*numbers: int) -> tf.Tensor:
    return tf.constant(numbers, tf.int64)


def rows(count: int, seed: int = 3, lengths=(5, 128)) -> tf.Tensor:
    """Pairs of segments of words and pieces, padded, with an [UNK] here and there."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        length = int(random.integers(*lengths, endpoint=True))
        row = random.integers(10, len(LARGE.pieces), length)
        row[random.random(length) < 0.02] = UNK
        row[0], row[length // 2], row[-1] = CLS, SEP, SEP
        made.append(row.tolist())
    return tf.ragged.constant(made, dtype=tf.int32).to_tensor()


def unmasked(out: dict[str, tf.Tensor]) -> np.ndarray:
    """The ids as they were."""
    ids = out["token_ids"].numpy().copy()
    row, column = np.nonzero(out["masked_weights"].numpy())
    ids[row, out["masked_positions"].numpy()[row, column]] = out["masked_ids"].numpy()[row, column]
    return ids


@pytest.fixture(scope="module")
def sample():
    """More than 100,000 tokens in batches, one masker, and what it made of them."""
    masker = Masker(LARGE, Masking())
    batches = [rows(128, seed) for seed in range(14)]
    return batches, [masker(batch, seed_of(1, i)) for i, batch in enumerate(batches)]


def chosen_of(batches, outs):
    """Of all chosen tokens: the id before and the id behind."""
    before, behind = [], []
    for batch, out in zip(batches, outs, strict=True):
        row, column = np.nonzero(out["masked_weights"].numpy())
        places = row, out["masked_positions"].numpy()[row, column]
        before.append(batch.numpy()[places])
        behind.append(out["token_ids"].numpy()[places])
    return np.concatenate(before), np.concatenate(behind)


def test_rates_on_100_000_tokens(sample):
    batches, outs = sample
    tokens = sum(int(np.sum(batch.numpy() > MASK)) for batch in batches)
    before, behind = chosen_of(batches, outs)
    assert tokens > 100_000
    assert len(before) / tokens == pytest.approx(0.15, abs=0.002)
    assert np.mean(behind == MASK) == pytest.approx(0.8, abs=0.01)
    assert np.mean(behind == before) == pytest.approx(0.1, abs=0.008)
    others = behind[(behind != MASK) & (behind != before)]
    assert len(others) / len(before) == pytest.approx(0.1, abs=0.008)
    assert others.min() > UNUSED and len(set(others.tolist())) > 700   # Neither special nor reserved, and any other.


def test_special_tokens_and_padding_are_never_chosen(sample):
    before, _ = chosen_of(*sample)
    assert before.min() > MASK
    for batch, out in zip(*sample, strict=True):
        special = batch.numpy() <= MASK
        assert np.array_equal(out["token_ids"].numpy()[special], batch.numpy()[special])


def test_what_was_chosen_is_told(sample):
    for batch, out in zip(*sample, strict=True):
        assert np.array_equal(unmasked(out), batch.numpy())
        weights, positions = out["masked_weights"].numpy(), out["masked_positions"].numpy()
        assert out["masked_ids"].shape == weights.shape == positions.shape == (128, np.ceil(0.15 * batch.shape[1]))
        assert np.array_equal(np.sort(weights, axis=1)[:, ::-1], weights)   # Padding stands behind.
        assert positions[weights == 0].max() == 0 and out["masked_ids"].numpy()[weights == 0].max() == 0
        ends = [row[row > 0] for row in positions]
        assert all(np.array_equal(np.unique(row), row) for row in ends)


@pytest.mark.parametrize("length", [7, 13, 30])
def test_short_rows_are_masked_at_the_same_rate(length):
    batch = rows(4000, lengths=(length, length))
    out = Masker(LARGE, Masking())(batch, seed_of(1, 2))
    tokens = np.sum(batch.numpy() > MASK, axis=1)
    counts = out["masked_weights"].numpy().sum(axis=1)
    assert counts.min() >= 1 and np.all(counts <= np.ceil(0.15 * tokens))
    at_least = np.maximum(0.15 * tokens, 1).mean()   # No row goes without.
    assert counts.mean() == pytest.approx(at_least, rel=0.03)


@pytest.mark.parametrize("masking, becomes", [
    (Masking(0.4, 1, 0), {MASK}), (Masking(0.4, 0, 0), {FILM}), (Masking(0.4, 0, 1), {THE, FILM, S, ING, GOOD, SHARPS}),
    (Masking(0.4, 0.5, 0), {MASK, FILM})])
def test_what_chosen_tokens_become(masking, becomes):
    batch = tf.constant([[CLS] + [FILM] * 20 + [SEP] + [PAD] * 3] * 100, tf.int32)
    out = Masker(SMALL, masking)(batch, seed_of(1, 2))
    assert out["masked_weights"].numpy().sum(axis=1).tolist() == [8] * 100
    assert set(chosen_of([batch], [out])[1].tolist()) == becomes


def test_a_row_exactly():
    batch = tf.constant([[CLS, THE, GOOD, FILM, S, SEP, THE, FILM, SEP, PAD]], tf.int32)
    out = Masker(SMALL, Masking(0.5, 1, 0))(batch, seed_of(0, 0))
    assert {name: value.numpy().tolist() for name, value in out.items()} == {
        "token_ids": [[CLS, MASK, MASK, FILM, MASK, SEP, THE, FILM, SEP, PAD]], "masked_positions": [[1, 2, 4, 0, 0]],
        "masked_ids": [[THE, GOOD, S, 0, 0]], "masked_weights": [[1, 1, 1, 0, 0]]}


def test_every_epoch_masks_afresh_and_a_seed_repeats(sample):
    batches, outs = sample
    masker = Masker(LARGE, Masking())
    again, other = masker(batches[0], seed_of(1, 0)), masker(batches[0], seed_of(2, 0))
    assert all(np.array_equal(again[name], outs[0][name]) for name in again)
    here, there = (out["token_ids"].numpy() != batches[0].numpy() for out in (again, other))
    both = np.sum(here & there) / np.sum(here)   # As often as chance has it.
    assert both == pytest.approx(0.135, abs=0.03)


def words_of(row: list[int], goes_on: set[int]) -> list[list[int]]:
    """Positions of each word of a row."""
    words: list[list[int]] = []
    for position, token in enumerate(row):
        if token > MASK:
            if token in goes_on and position and row[position - 1] > MASK:
                words[-1].append(position)
            else:
                words.append([position])
    return words


def test_whole_words():
    masker = Masker(LARGE, Masking(whole_words=True))
    goes_on = {i for i, piece in enumerate(LARGE.pieces) if piece.startswith("##")}
    tokens = chosen = pairs = 0
    for number in range(14):
        batch = rows(128, number)
        out = masker(batch, seed_of(5, number))
        assert np.array_equal(unmasked(out), batch.numpy())
        for row, positions, weights in zip(batch.numpy().tolist(), out["masked_positions"].numpy(),
                                           out["masked_weights"].numpy(), strict=True):
            picked = set(positions[weights > 0].tolist())
            words = words_of(row, goes_on)
            assert picked == {place for word in words if word[0] in picked for place in word}
            tokens, chosen = tokens + sum(map(len, words)), chosen + len(picked)
            pairs += sum(len(word) > 1 and word[0] in picked for word in words)
    assert tokens > 100_000 and pairs > 2000
    assert chosen / tokens == pytest.approx(0.15, abs=0.002)


@pytest.mark.parametrize("row, items", [
    ([CLS, FILM, S, GOOD, SEP], [{1, 2}, {3}]),
    ([CLS, S, ING, THE, SEP, ING, SEP, PAD], [{1, 2}, {3}, {5}]),        # Behind a cut the rest is a word.
    ([CLS, UNK, S, FILM, ING, S, SEP], [{2}, {3, 4, 5}]),
    ([CLS, SHARPS, S, SEP], [{1, 2}]),                                   # "##" alone is a word.
])
def test_whole_words_exactly(row, items):
    seen = set()
    for chosen in Masker(SMALL, Masking(0.75, whole_words=True)).choose(
            tf.constant([row] * 200, tf.int32), seed_of(1, 1)).numpy():
        picked = set(np.flatnonzero(chosen).tolist())
        assert picked == set().union(*(item for item in items if item <= picked))
        seen |= {tuple(sorted(item)) for item in items if item <= picked}
    assert seen == {tuple(sorted(item)) for item in items}


def test_a_word_longer_than_the_budget_makes_room_for_others():
    row = tf.constant([[CLS, FILM, *[S] * 9, GOOD, THE, SEP]] * 50, tf.int32)   # 12 tokens, budget 1 or 2
    chosen = Masker(SMALL, Masking(whole_words=True)).choose(row, seed_of(1, 1)).numpy()
    assert np.all(chosen.sum(axis=1) >= 1) and np.flatnonzero(chosen.any(axis=0)).tolist() == [11, 12]


def test_what_is_left_is_filled():
    sizes = tf.constant([[2, 1, 3, 1], [5, 1, 1, 1], [1, 1, 1, 1]], tf.float32)
    is_there = tf.constant([[True] * 4, [True] * 4, [False, True, True, False]])
    budget = tf.constant([4.0, 2, 4])
    assert _fill(sizes, is_there, budget, 1).numpy().astype(int).tolist() == [[1, 1, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0]]
    assert _fill(sizes, is_there, budget, 2).numpy().astype(int).tolist() == [[1, 1, 0, 1], [0, 1, 1, 0], [0, 1, 1, 0]]


def test_nothing_to_mask():
    out = Masker(SMALL, Masking())(tf.constant([[CLS, UNK, SEP, PAD], [CLS, SEP, SEP, PAD]], tf.int32), seed_of(1, 1))
    assert out["token_ids"].numpy().tolist() == [[CLS, UNK, SEP, PAD], [CLS, SEP, SEP, PAD]]
    assert out["masked_weights"].numpy().tolist() == [[0], [0]]


def test_a_stage_of_the_input_pipeline():
    batches = tf.data.Dataset.from_tensor_slices(tf.stack([rows(8, lengths=(32, 32))] * 6)).map(
        lambda ids: {"token_ids": ids, "label": tf.range(8)})
    masker = Masker(LARGE, Masking())

    def epoch(seed):
        return [{name: value.numpy().tolist() for name, value in batch.items()}
                for batch in masked(batches, masker, seed)]

    first = epoch(1)
    assert set(first[0]) == {"token_ids", "label", "masked_positions", "masked_ids", "masked_weights"}
    assert first == epoch(1) and first != epoch(2)
    assert len({str(batch["masked_positions"]) for batch in first}) == 6   # The same rows, masked anew in each batch.


@pytest.mark.parametrize("rates, message", [
    ({"mask_rate": 0}, "mask_rate above 0"), ({"mask_rate": 1}, "mask_rate above 0"),
    ({"mask_token_rate": 0.9, "random_token_rate": 0.2}, "at most 1; received 0.9 and 0.2"),
    ({"random_token_rate": -0.1}, "at least 0")])
def test_rates_that_make_no_sense(rates, message):
    with pytest.raises(TextrailError, match=message):
        Masking(**rates)
