"""Examples to pretrain BERT on: sentences of documents packed into segments, two to an example.

The rules are those of BERT's own data preparation (Devlin et al., 2019; google-research/bert,
create_pretraining_data.py). Sentences of a document are gathered until they fill an example. A cut at random between
two of them makes the segments A and B. In a share of the examples B is taken from another document instead, and the
sentences that it stands in for begin the next example. The pair is cut to length token by token, always of the longer
segment, at random from its front or its back.

Some things differ:

- Whether an example is a short one is drawn for each example and not once a document, so that the share of short ones
  is the one asked for, also where a corpus is one long document.
- A sentence that fills an example alone is a pair with the next sentence, and the last of a document one with the one
  before, as often as any other. In BERT they always get a B of another document, so that the share of those is larger
  than the one asked for (0.57 for 0.5, of film reviews at 128 tokens) and a lone sentence gives its label away.
- A sentence that does not fit an example is cut into several, where BERT throws away what does not fit.
- Tokens are masked when they are read (`modules.masking`), not here.

Worked example: a document of the sentences 5 6 7 | 8 9 | 10 11 12 13, `max_length` 10, [CLS] = 2 and [SEP] = 3. Seven
tokens fit beside the special ones. The first seven are in all three sentences; a cut behind the first makes
2 5 6 7 3 8 9 10 11 12 13 3, two too long. B loses one token at its front and one at its back: 2 5 6 7 3 9 10 11 12 3.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

import numpy as np

IS_NEXT, IS_RANDOM = 0, 1   # BERT's labels, which its released next-sentence heads know.

Span = tuple[int, int]   # Of tokens: start and stop in `Documents.token_ids`.


@dataclass(frozen=True)
class Packing:
    """How examples are made.

    Attributes:
        max_length: most tokens of an example, special tokens included.
        short_rate: share of the examples that are filled only to a length drawn at random, so that a model trained
            on full ones alone is not surprised by short texts.
        swap_rate: share of the pairs whose B comes from another document. A document of one sentence has no next one:
            it always becomes such a pair, or none if the rate is 0.
        next_sentence: whether examples are pairs; otherwise whole sentences fill one segment.
    """

    max_length: int = 128
    short_rate: float = 0.1
    swap_rate: float = 0.5
    next_sentence: bool = True

    @property
    def room(self) -> int:
        """Most tokens of an example without the special ones."""
        return self.max_length - (3 if self.next_sentence else 2)


class Instance(NamedTuple):
    """An example.

    Attributes:
        first: tokens of segment A.
        second: tokens of segment B; empty in an example of one segment.
        label: `IS_NEXT` or `IS_RANDOM`.
        is_short: whether the length it was to be filled to was drawn.
    """

    first: Span
    second: Span
    label: int
    is_short: bool


@dataclass(frozen=True)
class Documents:
    """Documents as token ids, and where in them sentences and documents begin.

    Attributes:
        token_ids: [tokens] int32.
        sentences: token where each sentence begins, and behind the last where it ends; none is empty.
        starts: sentence that each document begins with, and behind the last how many there are; none is empty.
        strangers: the last so many of the documents are there for others to take a segment from, and make no examples.
    """

    token_ids: np.ndarray
    sentences: Sequence[int]
    starts: Sequence[int]
    strangers: int = 0

    @property
    def count(self) -> int:
        """Documents that examples are made of."""
        return len(self.starts) - 1 - self.strangers

    @classmethod
    def of(cls, token_ids: np.ndarray, lengths: np.ndarray, counts: Sequence[int], room: int) -> Documents:
        """Documents without the sentences and documents that have no tokens.

        Args:
            token_ids: [tokens] int32 of all sentences behind each other.
            lengths: [sentences] tokens of each.
            counts: sentences of each document.
            room: a sentence of more tokens is cut into parts of half as many, so that two of them make a pair.
        """
        owners = np.repeat(np.arange(len(counts)), counts)[lengths > 0]
        lengths = lengths[lengths > 0]
        half = max(room // 2, 1)
        parts = np.where(lengths > room, -(-lengths // half), 1)
        last = np.cumsum(parts) - 1   # of the parts of each sentence
        cut = np.full(parts.sum(), half)
        cut[last] = lengths - (parts - 1) * half
        sizes = np.bincount(np.repeat(owners, parts), minlength=len(counts))   # in sentences, of each document
        return cls(token_ids, [0, *np.cumsum(cut).tolist()], [0, *np.cumsum(sizes[sizes > 0]).tolist()])

    def join(self, other: Documents, strangers: int) -> Documents:
        """These documents and those of another behind them, the last of which are strangers."""
        tokens, sentences = len(self.token_ids), len(self.sentences) - 1
        return Documents(np.concatenate([self.token_ids, other.token_ids]),
                         [*self.sentences, *(tokens + start for start in other.sentences[1:])],
                         [*self.starts, *(sentences + start for start in other.starts[1:])], strangers)

    def last(self) -> Documents:
        """The last document by itself; there must be one."""
        first = self.starts[self.count - 1]
        start, stop = self.sentences[first], self.sentences[self.starts[self.count]]
        return Documents(self.token_ids[start:stop].copy(),
                         [at - start for at in self.sentences[first:self.starts[self.count] + 1]],
                         [0, self.starts[self.count] - first])


def make_instances(documents: Documents, number: int, packing: Packing, random: Random) -> Iterator[Instance]:
    """The examples of one document.

    Args:
        documents: the document and others, from which B is taken where it is no next one. Where there are no others,
            every B is a next one.
        number: of the document.
        packing: how.
        random: where all chance comes from.
    """
    sentences, begin, end = documents.sentences, documents.starts[number], documents.starts[number + 1]
    swap_rate = packing.swap_rate if len(documents.starts) > 2 else 0.0
    start = begin
    while start < end:
        is_short = random.random() < packing.short_rate
        target = random.randint(min(2, packing.room), packing.room) if is_short else packing.room
        if not packing.next_sentence:
            stop = max(bisect_right(sentences, sentences[start] + target, start + 1, end + 1) - 1, start + 1)
            first, second = _cut((sentences[start], sentences[stop]), (0, 0), packing.room, random)
            yield Instance(first, second, IS_NEXT, is_short)
            start = stop
            continue
        stop = bisect_left(sentences, sentences[start] + target, start + 1, end + 1)
        stop = min(max(stop, start + 2), end)   # Two sentences at least, where there are two.
        is_swapped = random.random() < swap_rate or (swap_rate > 0 and end - begin == 1)
        if stop - start == 1 and not is_swapped:
            if start == begin:
                return
            start -= 1
        middle = random.randint(start + 1, max(stop - 1, start + 1))
        first, second = (sentences[start], sentences[middle]), (sentences[middle], sentences[stop])
        if is_swapped:
            second = _segment_of_another(documents, number, target - (first[1] - first[0]), random)
        start = middle if is_swapped else stop
        yield Instance(*_cut(first, second, packing.room, random), IS_RANDOM if is_swapped else IS_NEXT, is_short)


def _segment_of_another(documents: Documents, number: int, tokens: int, random: Random) -> Span:
    """Sentences of another document, from a random one on, of at least so many tokens if it has as many."""
    other = random.randrange(len(documents.starts) - 2)
    other += other >= number
    end = documents.starts[other + 1]
    start = random.randrange(documents.starts[other], end)
    sentences = documents.sentences
    stop = min(bisect_left(sentences, sentences[start] + tokens, start + 1, end + 1), end)
    return sentences[start], sentences[stop]


def _cut(first: Span, second: Span, room: int, random: Random) -> tuple[Span, Span]:
    """Takes tokens away, each from the longer segment, from B if both are as long, until both fit.

    What BERT's loop over tokens comes down to, as in `modules.tokenization.truncate_pair`.
    """
    size, other = first[1] - first[0], second[1] - second[0]
    if size + other <= room:
        return first, second
    keep_other = min(other, max(room - size, room // 2))
    return _trim(first, min(size, room - keep_other), random), _trim(second, keep_other, random)


def _trim(span: Span, keep: int, random: Random) -> Span:
    """Takes each token too many from the front or the back, as a coin says."""
    excess = span[1] - span[0] - keep
    front = random.getrandbits(excess).bit_count() if excess else 0
    return span[0] + front, span[0] + front + keep


def token_ids_of(instance: Instance, documents: Documents, cls_id: int, sep_id: int) -> list[int]:
    """`[CLS] A [SEP] B [SEP]`, or `[CLS] A [SEP]`, unpadded."""
    ids = documents.token_ids
    first = [cls_id, *ids[slice(*instance.first)].tolist(), sep_id]
    if instance.second[0] == instance.second[1]:
        return first
    return [*first, *ids[slice(*instance.second)].tolist(), sep_id]
