"""How a new BERT begins, so that an hour on two cores teaches it something.

From noise alone a masked language model learns how frequent words are and then stands still for thousands of steps.
Two things can be given to it, as weights that are trained like all others.

Which positions are neighbours: of a masked word the model knows nothing but its place. Positions begin as the sinusoids
of "Attention Is All You Need", for which a step to the side is a rotation, and queries and keys of the first block as
that rotation. The idea of giving attention the shape that training finds anyway is "Mimetic Initialization of
Self-Attention Layers" (Trockman & Kolter, arXiv:2305.09828).

And which words stand in the same texts. That can be counted in seconds, and the counts' leading singular vectors are
word embeddings, since what is learned from pairs of words factorises just such counts (Levy & Goldberg, "Neural Word
Embedding as Implicit Matrix Factorization", 2014). docs/pretraining.md has what both bring.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import svds

from modules.bert import Bert
from modules.tokenization import SPECIALS, Vocabulary

FASTEST, SLOWEST = 2.0, 0.01   # Radians from a position to the next: single steps differ, and places far apart too.
SHARPNESS = 4.0                # Of queries times keys: large enough that neighbours win over what words they are.

CONTEXTS = 4096     # Most frequent pieces that others are counted with: they bound the memory of large vocabularies.


def deviation(width: int) -> float:
    """Standard deviation of new weights, (2 / (5 · width))^½ (Nguyen & Salazar, arXiv:1910.05895): BERT's 0.02 of a
    model 768 wide is too little for narrow ones."""
    return math.sqrt(2 / (5 * width))


def look_at_neighbours(bert: Bert, heads: int | None = None) -> None:
    """Gives a new encoder positions that are sinusoids, and heads in its first block that look beside themselves.

    The first head looks at the next token, the second at the one before, the third at the next but one, and so on; all
    see more than that one, the nearer the better. Each has frequencies of its own.

    Args:
        bert: whose weights are new; positions, queries and keys change.
        heads: how many of the first ones, if not all.
    """
    config = bert.config
    width, pairs = config.hidden_size, config.hidden_size // 2
    speeds = FASTEST * (SLOWEST / FASTEST) ** np.linspace(0, 1, pairs)  # [pairs], in radians a position
    angles = np.arange(config.max_position_embeddings)[:, np.newaxis] * speeds  # [positions, pairs]
    table = np.zeros((config.max_position_embeddings, width))
    table[:, :2 * pairs] = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    bert.embeddings.positions.assign(math.sqrt(2) * config.initializer_range * table)

    qkv, all_heads = bert.blocks[0].attention.qkv, config.num_attention_heads
    # np.array would ask the variable for a copy, which Keras's do not know of.
    kernel = np.asarray(qkv.kernel).reshape(width, 3, all_heads, -1).copy()  # [width, query key value, heads, …]
    for head in range(all_heads if heads is None else min(heads, all_heads)):
        steps = (-1) ** head * (head // 2 + 1)
        for i, pair in enumerate(range(head, pairs, all_heads)[:kernel.shape[-1] // 2]):
            sin, cos, here = pair, pairs + pair, slice(2 * i, 2 * i + 2)
            turn, root = speeds[pair] * steps, math.sqrt(SHARPNESS)
            # sin(a + b) = sin a · cos b + cos a · sin b, and cos(a + b) = cos a · cos b - sin a · sin b.
            kernel[[sin, cos], 0, head, here] += root * np.array([[math.cos(turn), -math.sin(turn)],
                                                                  [math.sin(turn), math.cos(turn)]])
            kernel[[sin, cos], 1, head, here] += root * np.eye(2)
    qkv.kernel.assign(kernel.reshape(width, -1))


def know_company(bert: Bert, vocabulary: Vocabulary, token_ids: np.ndarray) -> None:
    """Gives a new encoder word embeddings that tell which words stand in the same texts.

    Args:
        bert: whose weights are new; its word embeddings change, but for special tokens and for pieces in no text.
        vocabulary: its wordpieces.
        token_ids: [tokens] integers, of one text after the other, see `company`.
    """
    words = np.asarray(bert.embeddings.words).copy()  # [pieces, width]
    vectors = company(token_ids, vocabulary, words.shape[1])  # [pieces, size]
    known = vectors.any(axis=1)
    # Every dimension deviates as noise would: singular values would leave most of the width to a few of them.
    words[known, :vectors.shape[1]] = bert.config.initializer_range * vectors[known] / vectors[known].std(axis=0)
    bert.embeddings.words.assign(words)


def company(token_ids: np.ndarray, vocabulary: Vocabulary, size: int) -> np.ndarray:
    """Vectors of pieces, alike where the pieces stand in the same texts.

    They are singular vectors of the positive pointwise mutual information of pieces and frequent ones (Levy, Goldberg &
    Dagan, "Improving Distributional Similarity with Lessons Learned from Word Embeddings", 2015).

    Args:
        token_ids: [tokens] integers; a text ends with each [SEP].
        vocabulary: wordpieces.
        size: dimensions wanted.

    Returns:
        [pieces, size or, of few pieces, fewer] float32, the strongest dimension first; zeros for special tokens
        and for pieces in no text.
    """
    text = np.cumsum(token_ids == vocabulary.sep_id)  # [tokens]
    is_word = ~np.isin(token_ids, [vocabulary.ids[special] for special in SPECIALS])
    there = sparse.csc_matrix((np.ones(is_word.sum(), np.float32), (text[is_word], token_ids[is_word])),
                              shape=(text.max(initial=0) + 1, len(vocabulary.pieces)))
    there.data[:] = 1   # Whether a piece stands in a text, and not how often.
    counts = there.getnnz(axis=0)  # [pieces], texts that have it
    contexts = np.argsort(-counts, kind="stable")[:min(CONTEXTS, np.count_nonzero(counts))]
    together = (there.T @ there[:, contexts]).toarray()  # [pieces, contexts], in how many texts both stand
    together[contexts, np.arange(len(contexts))] = 0
    information = positive_information(together)
    if (size := min(size, min(information.shape) - 1)) < 1 or not information.any():
        return np.zeros((len(vocabulary.pieces), 0), np.float32)
    vectors, strengths, _ = svds(information, k=size, v0=np.ones(min(information.shape), np.float32))
    vectors[~information.any(axis=1)] = 0   # But for rounding they are.
    strongest = np.argsort(-strengths)
    return vectors[:, strongest[strengths[strongest] > 1e-5 * strengths.max()]].astype(np.float32)


def positive_information(together: np.ndarray) -> np.ndarray:
    """Positive pointwise mutual information [pieces, contexts] float32 of counts of that shape; 0 without a count.

    Contexts' probabilities are smoothed by the power 0.75, so that rare ones say less.
    """
    pieces = together.sum(axis=1, keepdims=True)
    contexts = together.sum(axis=0, keepdims=True) ** 0.75
    with np.errstate(divide="ignore", invalid="ignore"):
        information = np.log(together / (pieces * (contexts / contexts.sum())))
    return np.where(together > 0, np.maximum(information, 0), 0).astype(np.float32)
