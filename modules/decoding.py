"""From what a model says about the next token to whole sentences: greedy and beam search inside the TensorFlow graph.

Both run over a `step`, which knows nothing of searching:

    step(token_ids [rows, beams] int32, paths [rows, beams, length] int32, cache) → (logits [rows, beams, V], cache)

A row is a sentence to be translated, and its `beams` hypotheses lie beside each other. The cache is a nest of tensors
that all have a row a sentence; an axis that is 0 long before the first step grows. Nothing in it is moved when a
hypothesis is dropped and another one goes on in its place: `paths` says in which place each hypothesis was at each
position, see `modules.transformer.paths_mask`.

What costs is a step, and mostly by its rows: rows that are finished are taken out of the batch as soon as a quarter of
it is. What all rows can need is bounded beforehand: `in_groups` takes as many sentences at a time as a budget of
tokens allows, like ones together.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import tensorflow as tf

from modules.errors import TextrailError

Step = Callable[[tf.Tensor, tf.Tensor, Any], tuple[tf.Tensor, Any]]

NONE = -math.inf   # the log probability of a hypothesis that there is not


@dataclass(frozen=True)
class Tokens:
    """The ids that mean something to a search.

    Attributes:
        start: comes before the first token.
        end: comes after the last.
        never: are not said, whatever their probability. [UNK] is one of them: nobody can read it, and the
            next best piece, a letter if need be, is something.
    """

    start: int
    end: int
    never: tuple[int, ...] = ()


class Found(NamedTuple):
    """What a search found, best first.

    Attributes:
        token_ids: [rows, n_best, longest] int32, without [START], with [END], padded with 0.
        scores: [rows, n_best] float32: log probability (nats) over length penalty; -inf where there are fewer
            hypotheses. A row that may have no tokens has none, with score 0.
    """

    token_ids: tf.Tensor
    scores: tf.Tensor


def length_penalty(length: tf.Tensor, alpha: float) -> tf.Tensor:
    """What log probabilities are divided by, ((5 + n) / 6)^alpha (Wu et al., arXiv:1609.08144, equation 14).

    Longer sentences have lower probabilities; with alpha 0 shorter ones win, with 1 it is about the mean of a token.

    Args:
        length: tokens of a sentence, [END] among them, integers of any shape.
        alpha: at least 0.

    Returns:
        float32 of the same shape.
    """
    return ((5.0 + tf.cast(length, tf.float32)) / 6.0) ** alpha


def greedy(step: Step, cache: Any, limits: tf.Tensor, tokens: Tokens, alpha: float = 0.0) -> Found:
    """Takes the likeliest token each time.

    Args:
        step: see above; `beams` is 1.
        cache: what it begins with, a nest of tensors [rows, …].
        limits: [rows] int32, most tokens of each row, [END] among them. The last one allowed can only be [END].
        tokens: the special ids.
        alpha: of the length penalty that the score is divided by.

    Returns:
        One hypothesis a row.
    """
    return _run(_Greedy(tokens, alpha), step, cache, limits)


def beam_search(step: Step, cache: Any, limits: tf.Tensor, tokens: Tokens, *, beams: int, n_best: int = 1,
                alpha: float = 0.0) -> Found:
    """Follows the `beams` likeliest hypotheses of each row at once.

    Of the likeliest continuations, those among the first `beams` that end are kept, and the first `beams` that do not
    end go on. A row is done when none that goes on can score better than the n-th best that ended, when as many as
    `beams` have ended, or at its limit. One beam finds what `greedy` finds.

    Args:
        step: see above.
        cache: what it begins with, a nest of tensors [rows, …].
        limits: [rows] int32, most tokens of each row, [END] among them. The last one allowed can only be [END].
        tokens: the special ids.
        beams: hypotheses followed.
        n_best: hypotheses returned.
        alpha: of the length penalty.

    Returns:
        The `n_best` with the highest scores of those that ended.

    Raises:
        TextrailError: more are to be returned than are followed, or alpha is below 0.
    """
    if not 1 <= n_best <= beams:
        raise TextrailError(f"decoding.n_best between 1 and decoding.beams, {beams}", str(n_best),
                            f"Set decoding.beams={max(n_best, 1)}, or decoding.n_best=1.")
    if alpha < 0:
        raise TextrailError("decoding.length_penalty of at least 0", str(alpha), "Set it to 0.6, say.")
    return _run(_Beam(tokens, alpha, beams, n_best), step, cache, limits)


def in_groups(search: Callable[[tf.Tensor], Found], sizes: tf.Tensor, budget: int, n_best: int) -> Found:
    """Searches for some rows at a time, so that memory is bounded by `budget`, and like rows meet.

    Args:
        search: [some] int32 indices of rows → what was found for them. At least one row at a time.
        sizes: [rows] int32, tokens that a row needs at most, of the source and of all hypotheses. Rows of size 0 are
            not searched for.
        budget: most tokens at a time, padding included; a row that needs more goes alone.
        n_best: hypotheses that `search` returns.

    Returns:
        What was found, in the order of the rows.
    """
    rows = tf.shape(sizes)[0]
    order = tf.cast(tf.argsort(sizes, direction="DESCENDING", stable=True), tf.int32)
    wanted = tf.math.count_nonzero(sizes, dtype=tf.int32)

    def body(first: tf.Tensor, token_ids: tf.Tensor, scores: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        count = tf.clip_by_value(budget // sizes[order[first]], 1, wanted - first)  # the first is the largest
        group = order[first:first + count]
        found = search(group)
        width = tf.maximum(tf.shape(token_ids)[2], tf.shape(found.token_ids)[2])
        return (first + count, _put(_widened(token_ids, width), group, _widened(found.token_ids, width)),
                _put(scores, group, found.scores))

    state = tf.constant(0), tf.zeros([rows, n_best, 0], tf.int32), tf.zeros([rows, n_best])
    _, token_ids, scores = tf.while_loop(
        lambda first, *_: first < wanted, body, state, parallel_iterations=1,
        shape_invariants=(tf.TensorShape([]), tf.TensorShape([None, n_best, None]), tf.TensorShape([None, n_best])))
    return Found(token_ids, scores)


# --- the loop ----------------------------------------------------------------------------------------------------


def _run(search: _Greedy | _Beam, step: Step, cache: Any, limits: tf.Tensor) -> Found:
    """Takes steps while rows are live, and takes rows out when a quarter of them is done.

    The outer loop is entered anew for each smaller batch; in between the inner one moves nothing in memory.
    """
    batch = tf.shape(limits)[0]
    longest = tf.reduce_max(tf.concat([[1], limits], axis=0))

    def one_step(length: tf.Tensor, limits: tf.Tensor, state: Any, cache: Any) -> tuple[Any, ...]:
        state = search.fed(state)
        logits, cache = step(*search.inputs(state), cache)
        return length + 1, limits, search.chosen(state, logits, length + 1, limits), cache

    def most_are_live(length: tf.Tensor, limits: tf.Tensor, state: Any, cache: Any) -> tf.Tensor:
        return tf.math.count_nonzero(~state.done, dtype=tf.int32) * 4 > tf.shape(limits)[0] * 3

    def smaller(rows: tf.Tensor, found: Found, *live: Any) -> tuple[Any, ...]:
        length, limits, state, cache = tf.while_loop(most_are_live, one_step, live, parallel_iterations=1,
                                                     shape_invariants=_shapes(live))
        done, staying = (tf.where(which)[:, 0] for which in (state.done, ~state.done))
        ids, scores = search.found(tf.nest.map_structure(lambda x: tf.gather(x, done), state))
        gone = tf.gather(rows, done)
        found = Found(_put(found.token_ids, gone, _widened(ids, longest)), _put(found.scores, gone, scores))
        return (tf.gather(rows, staying), found, length,
                *tf.nest.map_structure(lambda x: tf.gather(x, staying), (limits, state, cache)))

    nothing = Found(tf.zeros([batch, search.n_best, longest], tf.int32), tf.zeros([batch, search.n_best]))
    everything = tf.range(batch), nothing, tf.constant(0), limits, search.begin(limits), cache
    _, found, *_ = tf.while_loop(lambda rows, *_: tf.size(rows) > 0, smaller, everything, parallel_iterations=1,
                                 shape_invariants=_shapes(everything))
    used = tf.reduce_any(found.token_ids != 0, axis=[0, 1])  # [longest]
    token_ids = found.token_ids[:, :, :tf.math.count_nonzero(used)]
    return Found(token_ids, tf.where(limits[:, None] > 0, found.scores, 0.0))


def _shapes(nest: Any) -> Any:
    """What stays of the shapes while rows leave and axes grow."""
    def shape(x: tf.Tensor) -> tf.TensorShape:
        kept = [None, *(size or None for size in x.shape[1:])] if x.shape.rank else []
        return tf.TensorShape(kept)

    return tf.nest.map_structure(shape, nest)


def _put(x: tf.Tensor, rows: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    return tf.tensor_scatter_nd_update(x, rows[:, None], values)


def _widened(ids: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    return tf.pad(ids, [[0, 0], [0, 0], [0, width - tf.shape(ids)[2]]])


# --- the two searches --------------------------------------------------------------------------------------------


class _GreedyState(NamedTuple):
    token_ids: tf.Tensor  # [rows, length] int32, chosen so far; 0 after [END]
    last: tf.Tensor  # [rows, 1] int32, to be fed next
    log_prob: tf.Tensor  # [rows] float32
    length: tf.Tensor  # [rows] int32, tokens chosen before the row was done
    done: tf.Tensor  # [rows] bool


class _Greedy:
    """See `greedy`."""

    n_best = 1

    def __init__(self, tokens: Tokens, alpha: float):
        self.tokens, self.alpha = tokens, alpha

    def begin(self, limits: tf.Tensor) -> _GreedyState:
        rows, zeros = tf.shape(limits)[0], tf.zeros_like(limits)
        return _GreedyState(tf.zeros([rows, 0], tf.int32), tf.fill([rows, 1], self.tokens.start),
                            tf.cast(zeros, tf.float32), zeros, limits <= 0)

    def fed(self, state: _GreedyState) -> _GreedyState:
        return state

    def inputs(self, state: _GreedyState) -> tuple[tf.Tensor, tf.Tensor]:
        shape = tf.shape(state.token_ids)
        return state.last, tf.zeros([shape[0], 1, shape[1] + 1], tf.int32)

    def chosen(self, state: _GreedyState, logits: tf.Tensor, length: tf.Tensor, limits: tf.Tensor) -> _GreedyState:
        log_probs, ids = _candidates(logits, 1, self.tokens, length >= limits)  # [rows, 1, few]
        at = tf.argmax(log_probs[:, 0], axis=-1, output_type=tf.int32)  # [rows]
        chosen = tf.gather(ids[:, 0], at, batch_dims=1)
        chosen = tf.where(state.done, 0, chosen)
        gained = tf.gather(log_probs[:, 0], at, batch_dims=1)
        return _GreedyState(tf.concat([state.token_ids, chosen[:, None]], axis=1), chosen[:, None],
                            state.log_prob + tf.where(state.done, 0.0, gained),
                            tf.where(state.done, state.length, length), state.done | (chosen == self.tokens.end))

    def found(self, state: _GreedyState) -> Found:
        scores = state.log_prob / length_penalty(state.length, self.alpha)
        return Found(state.token_ids[:, None], scores[:, None])


class _BeamState(NamedTuple):
    tokens: tf.Tensor  # [rows, length, beams] int32, fed in each place at each position
    paths: tf.Tensor  # [rows, beams, length] int32, see `modules.transformer.paths_mask`
    last: tf.Tensor  # [rows, beams] int32, to be fed next
    log_probs: tf.Tensor  # [rows, beams] float32, descending
    best: tf.Tensor  # [rows, n_best] float32, scores of the best that ended, descending
    best_paths: tf.Tensor  # [rows, n_best, length] int32, their paths up to [END], then -1
    ended: tf.Tensor  # [rows] int32, how many did
    done: tf.Tensor  # [rows] bool


class _Beam:
    """See `beam_search`."""

    def __init__(self, tokens: Tokens, alpha: float, beams: int, n_best: int):
        self.tokens, self.alpha, self.beams, self.n_best = tokens, alpha, beams, n_best

    def begin(self, limits: tf.Tensor) -> _BeamState:
        rows, beams, n_best = tf.shape(limits)[0], self.beams, self.n_best
        # All places begin alike, so that only the first may go on, and none where nothing may be said.
        log_probs = tf.where(limits[:, None] > 0, tf.constant([[0.0] + [NONE] * (beams - 1)]), NONE)
        return _BeamState(tf.zeros([rows, 0, beams], tf.int32), tf.zeros([rows, beams, 0], tf.int32),
                          tf.fill([rows, beams], self.tokens.start), log_probs,
                          tf.fill([rows, n_best], NONE), tf.zeros([rows, n_best, 0], tf.int32),
                          tf.zeros_like(limits), limits <= 0)

    def fed(self, state: _BeamState) -> _BeamState:
        rows = tf.shape(state.last)[0]
        own = tf.tile(tf.range(self.beams)[None, :, None], [rows, 1, 1])
        return state._replace(tokens=tf.concat([state.tokens, state.last[:, None]], axis=1),
                              paths=tf.concat([state.paths, own], axis=2))

    def inputs(self, state: _BeamState) -> tuple[tf.Tensor, tf.Tensor]:
        return state.last, state.paths

    def chosen(self, state: _BeamState, logits: tf.Tensor, length: tf.Tensor, limits: tf.Tensor) -> _BeamState:
        beams = self.beams
        # Of one hypothesis no more than `beams` can go on, and one end.
        log_probs, ids = _candidates(logits, beams + 1, self.tokens, length >= limits)  # [rows, beams, few]
        few = tf.shape(ids)[2]
        log_probs = tf.reshape(log_probs + state.log_probs[..., None], [-1, beams * few])
        log_probs, at = tf.math.top_k(log_probs, tf.minimum(2 * beams, beams * few))  # [rows, 2 * beams]
        ids = tf.gather(tf.reshape(ids, [-1, beams * few]), at, batch_dims=1)
        origin = at // few  # [rows, 2 * beams], the place that each goes on from
        is_end = ids == self.tokens.end

        ending = tf.where(is_end, log_probs, NONE)[:, :beams]
        best, best_paths = self._best(state, ending / length_penalty(length, self.alpha), origin[:, :beams])
        ended = state.ended + tf.math.count_nonzero(ending > NONE, axis=1, dtype=tf.int32)

        log_probs, at = tf.math.top_k(tf.where(is_end, NONE, log_probs), beams)
        # A log probability only falls, and no length divides it by more than the limit does.
        hope = log_probs[:, 0] / length_penalty(limits, self.alpha)
        done = state.done | (ended >= beams) | (best[:, -1] >= hope) | (length >= limits)
        origin = tf.gather(origin, at, batch_dims=1)
        return _BeamState(state.tokens, tf.gather(state.paths, origin, batch_dims=1), tf.gather(ids, at, batch_dims=1),
                          tf.where(done[:, None], NONE, log_probs), best, best_paths, ended, done)

    def _best(self, state: _BeamState, scores: tf.Tensor, origin: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The best of those that ended before and those that do now, [rows, beams]: scores and paths."""
        before = tf.pad(state.best_paths, [[0, 0], [0, 0], [0, 1]], constant_values=-1)  # [rows, n_best, length]
        now = tf.gather(state.paths, origin, batch_dims=1)  # [rows, beams, length]
        best, at = tf.math.top_k(tf.concat([state.best, scores], axis=1), self.n_best)
        return best, tf.gather(tf.concat([before, now], axis=1), at, batch_dims=1)

    def found(self, state: _BeamState) -> Found:
        """Follows the paths: position 0 is [START], and after the last one [END] was chosen."""
        at = tf.transpose(state.best_paths, [0, 2, 1])  # [rows, length, n_best]
        said = tf.where(at >= 0, tf.gather(state.tokens, tf.maximum(at, 0), batch_dims=2), 0)
        said = tf.pad(tf.transpose(said, [0, 2, 1])[:, :, 1:], [[0, 0], [0, 0], [0, 1]])  # [rows, n_best, length]
        lengths = tf.math.count_nonzero(state.best_paths >= 0, axis=2, dtype=tf.int32)[..., None]
        is_end = (tf.range(1, tf.shape(said)[2] + 1) == lengths) & (state.best > NONE)[..., None]
        is_said = (tf.range(1, tf.shape(said)[2] + 1) < lengths) & (state.best > NONE)[..., None]
        return Found(tf.where(is_end, self.tokens.end, tf.where(is_said, said, 0)), state.best)


# --- tokens to choose from ---------------------------------------------------------------------------------------


def _candidates(logits: tf.Tensor, count: int, tokens: Tokens, is_last: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The likeliest tokens that may be said.

    Args:
        logits: [rows, beams, vocabulary] float32.
        count: how many are needed.
        tokens: what must not be said.
        is_last: [rows] bool, whether only [END] may be said.

    Returns:
        Log probabilities and ids, each [rows, beams, few], not in order. The probabilities are the model's own: what
        it gives to tokens that are never said is not shared out among the others.
    """
    beams, size = logits.shape[1:]
    flat = tf.reshape(logits, [-1, size])
    values, ids = top_k(flat, min(count + len(tokens.never), size))  # [rows * beams, few]
    # The log of the sum of all exponentials, from the one fused operation that sums them.
    likeliest = tf.gather(tf.nn.softmax(flat), ids[:, :1], batch_dims=1)
    total = values[:, :1] - tf.math.log(likeliest)  # [rows * beams, 1]
    if tokens.never:
        forbidden = tf.reduce_any(ids[..., None] == tf.constant(tokens.never), axis=-1)
        values = tf.where(forbidden, NONE, values)
    few = ids.shape[1]
    values, ids = (tf.reshape(x, [-1, beams, few]) for x in (values - total, ids))
    end = logits[:, :, tokens.end] - tf.reshape(total, [-1, beams])  # [rows, beams]
    end_alone = tf.where(tf.range(few) == 0, end[..., None], NONE)  # [rows, beams, few]
    return (tf.where(is_last[:, None, None], end_alone, values), tf.where(is_last[:, None, None], tokens.end, ids))


def top_k(values: tf.Tensor, count: int, width: int = 64) -> tuple[tf.Tensor, tf.Tensor]:
    """As `tf.math.top_k`, in half the time where there is much to choose from.

    TensorFlow's looks at one number after the other. This one first finds the highest of each `width` numbers, which
    is a vector operation; the `count` highest numbers are in the groups with the `count` highest maxima.

    Args:
        values: [n, size] float32.
        count: how many.
        width: numbers in a group.

    Returns:
        Values in descending order and indices, [n, count] float32 and int32. Which of equal values come first is open.
    """
    size = values.shape[1]
    groups = -(-size // width)
    if groups < 2 * count:
        return tf.math.top_k(values, count)
    if size % width:
        values = tf.pad(values, [[0, 0], [0, groups * width - size]], constant_values=NONE)
    rows = tf.shape(values)[0]
    grouped = tf.reshape(values, [-1, groups, width])
    group = tf.math.top_k(tf.reduce_max(grouped, axis=-1), count).indices  # [n, count]
    found = tf.gather(tf.reshape(values, [-1, width]), group + groups * tf.range(rows)[:, None])  # [n, count, width]
    found, at = tf.math.top_k(tf.reshape(found, [-1, count * width]), count)
    return found, tf.gather(group, at // width, batch_dims=1) * width + at % width
