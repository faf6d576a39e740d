"""Searches on models small enough to work out by hand or to search exhaustively."""

import itertools
import math

import numpy as np
import pytest
import tensorflow as tf

from modules.decoding import Found, Tokens, beam_search, greedy, in_groups, length_penalty, top_k
from modules.errors import TextrailError

END, A, B = 3, 4, 5
TOKENS = Tokens(start=2, end=END, never=(0, 1, 2))

# What follows what, as probabilities: [START] → a .6 or b .4, a → [END] .4, b .3 or a .3, b → [END] .9 or b .1.
NEXT = {2: {A: 0.6, B: 0.4}, A: {END: 0.4, A: 0.3, B: 0.3}, B: {END: 0.9, B: 0.1}}


def chain(probabilities: dict[int, dict[int, float]], size: int = 6):
    """A step whose next token depends on the last one alone, and the cache it begins with."""
    table = np.full((size, size), 1e-30, "float32")
    for last, after in probabilities.items():
        for token, probability in after.items():
            table[last, token] = probability
    logits = tf.constant(np.log(table) + 1.5)  # shifted: what counts is the softmax
    return lambda token_ids, paths, cache: (tf.gather(logits, token_ids), cache)


def found(search, *args, **options) -> tuple[list, list]:
    """Token ids without padding and scores, of a search in a graph."""
    result = tf.function(lambda: search(*args, **options))()
    return ([[[token for token in ids if token] for ids in row] for row in result.token_ids.numpy().tolist()],
            result.scores.numpy())


def test_length_penalty_is_that_of_wu():
    assert length_penalty(tf.constant([1, 7, 13]), 1.0).numpy() == pytest.approx([1, 2, 3])
    assert length_penalty(tf.constant([1, 7, 19]), 0.5).numpy() == pytest.approx([1, math.sqrt(2), 2])
    assert length_penalty(tf.constant([5]), 0.0).numpy() == [1]


def test_greedy_takes_the_likeliest_token_each_time():
    ids, scores = found(greedy, chain(NEXT), (), tf.constant([9]), TOKENS)
    assert ids == [[[A, END]]]
    assert scores[0, 0] == pytest.approx(math.log(0.6 * 0.4), abs=1e-6)


def test_two_beams_find_what_greedy_misses_best_first():
    ids, scores = found(beam_search, chain(NEXT), (), tf.constant([9]), TOKENS, beams=2, n_best=2)
    assert ids == [[[B, END], [A, END]]]
    np.testing.assert_allclose(scores, [[math.log(0.4 * 0.9), math.log(0.6 * 0.4)]], atol=1e-6)


def test_the_length_penalty_changes_the_winner():
    # At once: .4. After one a: .6 × .55 = .33, log -1.109, but over ((5 + 2) / 6)^2 -.815, above log .4 = -.916.
    step = chain({2: {END: 0.4, A: 0.6}, A: {END: 0.55, A: 0.45}})
    short, long = math.log(0.4), math.log(0.33)
    ids, scores = found(beam_search, step, (), tf.constant([9]), TOKENS, beams=2, n_best=2)
    assert ids == [[[END], [A, END]]]
    np.testing.assert_allclose(scores, [[short, long]], atol=1e-6)
    ids, scores = found(beam_search, step, (), tf.constant([9]), TOKENS, beams=2, n_best=2, alpha=2.0)
    assert ids == [[[A, END], [END]]]
    np.testing.assert_allclose(scores, [[long / (7 / 6) ** 2, short]], atol=1e-6)


def test_forbidden_tokens_are_never_said_and_their_probability_is_not_shared_out():
    step = chain({2: {1: 0.7, 0: 0.2, A: 0.1}, A: {2: 0.5, END: 0.5}})
    for search, options in ((greedy, {}), (beam_search, {"beams": 3})):
        ids, scores = found(search, step, (), tf.constant([5]), TOKENS, **options)
        assert ids == [[[A, END]]]
        assert scores[0, 0] == pytest.approx(math.log(0.1 * 0.5), abs=1e-6)


@pytest.mark.parametrize("search, options", [(greedy, {}), (beam_search, {"beams": 1})])
def test_limits_are_each_rows_own_and_the_last_token_is_the_end(search, options):
    endless = chain({2: {A: 1.0}, A: {A: 0.9, B: 0.1}, B: {A: 1.0}})
    ids, scores = found(search, endless, (), tf.constant([3, 0, 1, 5]), TOKENS, **options)
    assert [row[0] for row in ids] == [[A, A, END], [], [END], [A, A, A, A, END]]
    assert scores[1, 0] == 0
    assert np.isfinite(scores).all()


def test_no_rows_at_all():
    for search, options in ((greedy, {}), (beam_search, {"beams": 2, "n_best": 2})):
        result = search(chain(NEXT), (), tf.zeros([0], tf.int32), TOKENS, **options)
        assert result.token_ids.shape == (0, options.get("n_best", 1), 0)
        assert result.scores.shape == (0, options.get("n_best", 1))


def test_more_returned_than_followed_is_refused():
    with pytest.raises(TextrailError, match=r"decoding\.n_best between 1 and decoding\.beams, 2"):
        beam_search(chain(NEXT), (), tf.constant([3]), TOKENS, beams=2, n_best=3)
    with pytest.raises(TextrailError, match=r"decoding\.length_penalty of at least 0"):
        beam_search(chain(NEXT), (), tf.constant([3]), TOKENS, beams=2, alpha=-1.0)


class Remembering:
    """A model whose logits depend on every token of the hypothesis so far and on the row, through cache and paths.

    Logits are the sum over positions p of weights[row, p, token at p].
    """

    def __init__(self, rows: int, longest: int, size: int, seed: int = 0, ends: float = 0.0):
        random = np.random.default_rng(seed)
        self.weights = random.normal(0, 1.5, (rows, longest + 1, size, size)).astype("float32")
        self.weights[:, :, :, END] += ends
        self.rows_stepped = tf.Variable(0)

    def cache(self, rows) -> dict:
        rows = tf.convert_to_tensor(rows)
        return {"weights": tf.gather(self.weights, rows), "said": tf.zeros([tf.size(rows), 0], tf.int32)}

    def step(self, token_ids, paths, cache):
        self.rows_stepped.assign_add(tf.shape(token_ids)[0])
        said = tf.concat([cache["said"], token_ids], axis=1)  # [rows, length * beams]
        rows, beams, length = tf.unstack(tf.shape(paths))
        by_place = tf.reshape(said, [rows, length, beams])
        own = tf.gather(by_place, tf.transpose(paths, [0, 2, 1]), batch_dims=2)  # [rows, length, beams]
        logits = tf.reduce_sum(tf.gather(cache["weights"][:, :length], own, batch_dims=2), axis=1)
        return tf.ensure_shape(logits, [None, token_ids.shape[1], self.weights.shape[-1]]), cache | {"said": said}

    def log_prob(self, row: int, sentence: tuple[int, ...]) -> float:
        before, total = [TOKENS.start], 0.0
        for token in sentence:
            logits = sum(self.weights[row, p, one] for p, one in enumerate(before)).astype("float64")
            total += logits[token] - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
            before.append(token)
        return total

    def all_sentences(self, row: int, limit: int, alpha: float) -> list[tuple[float, tuple[int, ...]]]:
        """Every sentence there can be with its score, best first."""
        words = [token for token in range(self.weights.shape[-1]) if token not in (*TOKENS.never, END)]
        sentences = [(*some, END) for n in range(limit) for some in itertools.product(words, repeat=n)]
        return sorted(((self.log_prob(row, one) / ((5 + len(one)) / 6) ** alpha, one) for one in sentences),
                      reverse=True)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.5])
def test_a_wide_beam_is_an_exhaustive_search(alpha):
    model = Remembering(rows=6, longest=4, size=7)  # three words: 1 + 3 + 9 + 27 sentences of up to 4 tokens
    ids, scores = found(beam_search, model.step, model.cache(range(6)), tf.fill([6], 4), TOKENS, beams=40, n_best=5,
                        alpha=alpha)
    for row in range(6):
        expected = model.all_sentences(row, 4, alpha)[:5]
        assert [tuple(one) for one in ids[row]] == [sentence for _, sentence in expected]
        np.testing.assert_allclose(scores[row], [score for score, _ in expected], atol=1e-4)


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_one_beam_is_greedy(alpha):
    model = Remembering(rows=50, longest=9, size=30, ends=1.0)
    limits = tf.constant(np.random.default_rng(1).integers(0, 10, 50), tf.int32)
    expected = found(greedy, model.step, model.cache(range(50)), limits, TOKENS, alpha)
    actual = found(beam_search, model.step, model.cache(range(50)), limits, TOKENS, beams=1, alpha=alpha)
    assert actual[0] == expected[0]
    np.testing.assert_allclose(actual[1], expected[1], atol=1e-5)
    assert len({len(row[0]) for row in expected[0]}) > 5  # and rows of all lengths left at different times


def plain_beam_search(model, row: int, limit: int, beams: int, n_best: int, alpha: float):
    """The same search in Python on whole sentences, without caches, paths or batches."""
    live, ended = [(0.0, ())], []
    for n in range(1, limit + 1):
        words = [END] if n == limit else [t for t in range(model.weights.shape[-1]) if t not in TOKENS.never]
        candidates = sorted(((model.log_prob(row, (*said, token)), (*said, token)) for _, said in live
                             for token in words), reverse=True)
        ended += [(score / ((5 + n) / 6) ** alpha, said) for score, said in candidates[:beams] if said[-1] == END]
        live = [one for one in candidates if one[1][-1] != END][:beams]
        best = sorted(ended, reverse=True)[:n_best]
        if not live or len(ended) >= beams or (
                len(best) == n_best and best[-1][0] >= live[0][0] / ((5 + limit) / 6) ** alpha):
            break
    return sorted(ended, reverse=True)[:n_best]


@pytest.mark.parametrize("beams, n_best, alpha", [(2, 1, 0.0), (4, 3, 0.6), (5, 5, 1.0)])
def test_beams_find_what_the_search_written_plainly_finds(beams, n_best, alpha):
    model = Remembering(rows=12, longest=8, size=9, seed=3)
    limits = [8, 1, 5, 8, 2, 8, 3, 8, 8, 4, 7, 6]
    ids, scores = found(beam_search, model.step, model.cache(range(12)), tf.constant(limits), TOKENS, beams=beams,
                        n_best=n_best, alpha=alpha)
    for row, limit in enumerate(limits):
        expected = plain_beam_search(model, row, limit, beams, n_best, alpha)
        missing = n_best - len(expected)
        assert [tuple(one) for one in ids[row]] == [said for _, said in expected] + [()] * missing
        np.testing.assert_allclose(scores[row], [score for score, _ in expected] + [-np.inf] * missing, atol=1e-4)


@pytest.mark.parametrize("options", [None, {"beams": 3, "n_best": 2, "alpha": 0.6}])
def test_a_batch_gives_what_its_rows_give_alone(options):
    model = Remembering(rows=20, longest=9, size=20, seed=5, ends=0.5)
    limits = np.random.default_rng(2).integers(0, 10, 20).astype("int32")

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32)] * 2)
    def search(rows, limits):
        if options is None:
            return greedy(model.step, model.cache(rows), limits, TOKENS)
        return beam_search(model.step, model.cache(rows), limits, TOKENS, **options)

    together = search(np.arange(20, dtype="int32"), limits)
    for row, limit in enumerate(limits):
        alone = search([row], [limit])
        longest = alone.token_ids.shape[2]
        np.testing.assert_array_equal(together.token_ids[row, :, :longest], alone.token_ids[0])
        assert not together.token_ids[row, :, longest:].numpy().any()
        np.testing.assert_allclose(together.scores[row], alone.scores[0], atol=1e-5)


def test_finished_rows_stop_costing():
    # One row of 40 tokens among 31 that end after 2: 64 steps of rows, and 38 of the one that is left.
    model = Remembering(rows=32, longest=40, size=6)
    limits = tf.constant([40] + [2] * 31)
    model.weights[...] = 0
    model.weights[:, :, :, [A, END]] = 1, -20  # the likeliest word, until [END] must come
    for search, options in ((greedy, {}), (beam_search, {"beams": 2})):
        model.rows_stepped.assign(0)
        ids, _ = found(search, model.step, model.cache(range(32)), limits, TOKENS, **options)
        assert len(ids[0][0]) == 40
        assert int(model.rows_stepped) == 32 * 2 + 38
    # Few that are finished stay, for taking them out costs as well: 8 of 32 at a time go.
    model.rows_stepped.assign(0)
    found(greedy, model.step, model.cache(range(32)), tf.constant([10] * 25 + [4] * 7), TOKENS)
    assert int(model.rows_stepped) == 32 * 10
    model.rows_stepped.assign(0)
    found(greedy, model.step, model.cache(range(32)), tf.constant([10] * 24 + [4] * 8), TOKENS)
    assert int(model.rows_stepped) == 32 * 4 + 24 * 6
    # Rows without tokens never cost anything.
    model.rows_stepped.assign(0)
    found(greedy, model.step, model.cache(range(32)), tf.constant([3] * 2 + [0] * 30), TOKENS)
    assert int(model.rows_stepped) == 2 * 3


def test_groups_keep_the_order_the_budget_and_leave_out_what_is_empty():
    groups = []

    def search(rows: tf.Tensor) -> Found:
        groups.append(rows.numpy().tolist())
        ids = tf.repeat((rows + 10)[:, None, None], 1 + tf.reduce_max(rows), axis=2)
        return Found(ids, -tf.cast(rows, tf.float32)[:, None])

    result = in_groups(search, tf.constant([3, 0, 9, 4, 40, 1]), budget=20, n_best=1)
    assert groups == [[4], [2, 3], [0, 5]]  # 40 alone; two of up to 9; two of up to 3 that are left
    assert result.scores[:, 0].numpy().tolist() == [0, 0, -2, -3, -4, -5]
    assert result.token_ids.shape == (6, 1, 6)
    assert result.token_ids[:, 0, 0].numpy().tolist() == [10, 0, 12, 13, 14, 15]
    assert in_groups(search, tf.zeros([0], tf.int32), 20, 2).scores.shape == (0, 2)


@pytest.mark.parametrize("size", [5, 640, 1000, 8000])
def test_top_k_is_that_of_tensorflow(size):
    values = tf.constant(np.random.default_rng(size).normal(size=(17, size)).astype("float32"))
    expected, actual = tf.math.top_k(values, 5), top_k(values, 5)
    np.testing.assert_array_equal(actual[0], expected.values)
    np.testing.assert_array_equal(actual[1], expected.indices)
