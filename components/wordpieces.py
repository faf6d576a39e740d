"""Learns wordpieces from counts of words, and splits words with them.

tensorflow_text's learner also works on counts. It looks for a threshold of frequency that gives about the wanted
size: up to 5 % off, sometimes above, in a minute or two for 30,000 words. Here pieces are merged pair by pair, the most
frequent first (Sennrich et al., "Neural Machine Translation of Rare Words with Subword Units", 2016): the size is
exact, and it takes seconds, for texts that come out 1 % longer in tokens (`benchmarks/vocabulary.py`). Pieces inside a
word are marked by "##" and found as BERT's are, the longest first.
"""

from __future__ import annotations

import heapq
import sys
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

INSIDE = "##"
LEAST_PAIRS = 2   # A pair of pieces that stands together once is nobody's habit.


class Learned(NamedTuple):
    """What came of learning.

    Attributes:
        pieces: in the order of their ids.
        characters: that are among them, inside a word and at its start.
        reason: why there are fewer than wanted; "" if there are not.
    """

    pieces: list[str]
    characters: list[str]
    reason: str


def learn(counts: Mapping[str, int], size: int, reserved: Sequence[str], max_characters: int,
          always: Collection[str] = ()) -> Learned:
    """Wordpieces of a language, the same for the same counts in whatever order.

        >>> learn({"low": 5, "lower": 2, "new": 1}, size=17, reserved=["[UNK]"], max_characters=6).pieces
        ['[UNK]', 'e', 'l', 'n', 'o', 'r', 'w', '##e', '##l', '##n', '##o', '##r', '##w', '##ow', 'low', '##er',
         'lower']

    Args:
        counts: word → how often it stands in the texts.
        size: pieces wanted, the reserved ones included.
        reserved: pieces that come first, whatever the words.
        max_characters: most different characters; words with rarer ones teach nothing.
        always: characters that are in, whatever the words.

    Raises:
        ValueError: the reserved pieces and the characters alone are more than `size`; says how many they are.
    """
    characters = frequent_characters(counts, max_characters, always)
    pieces = [*reserved, *characters, *(INSIDE + character for character in characters)]
    if len(pieces) > size:
        raise ValueError(f"{len(reserved)} reserved pieces and {len(characters)} characters, each at the start of a "
                         f"word and inside, which are {len(pieces)} pieces")
    known = set(characters)
    merges = Merges({word: count for word, count in counts.items() if known.issuperset(word)})
    known.update(pieces)
    while len(pieces) < size:
        piece = merges.best()
        if piece is None:
            return Learned(pieces, characters, f"no other two pieces stand together {LEAST_PAIRS} times")
        if piece not in known:
            known.add(piece)
            pieces.append(piece)
    return Learned(pieces, characters, "")


def frequent_characters(counts: Mapping[str, int], most: int, always: Collection[str] = ()) -> list[str]:
    """The most frequent characters of words and those that are always in, sorted; of equally frequent ones the first
    of Unicode."""
    found: dict[str, int] = defaultdict(int)
    for word, count in counts.items():
        for character in word:
            found[character] += count
    chosen = sorted(found, key=lambda character: (-found[character], character))[:most]
    return sorted({*chosen, *always})


class Merges:
    """Words as sequences of pieces, at first one a character, that grow together pair by pair.

    Args:
        counts: word → how often it stands in the texts.
    """

    def __init__(self, counts: Mapping[str, int]):
        ordered = sorted(counts)
        self._counts = [counts[word] for word in ordered]
        # One string for each character, not one for each place where it stands: of millions of words a third of it all.
        self._words = [[word[:1], *(sys.intern(INSIDE + character) for character in word[1:])] for word in ordered]
        self._pairs: dict[tuple[str, str], int] = defaultdict(int)
        self._where: dict[tuple[str, str], list[int]] = defaultdict(list)   # numbers of words; may be out of date
        for number, pieces in enumerate(self._words):
            for pair in pairwise(pieces):
                self._pairs[pair] += self._counts[number]
                self._where[pair].append(number)
        self._heap = [(-count, pair) for pair, count in self._pairs.items()]
        heapq.heapify(self._heap)

    def best(self) -> str | None:
        """Merges the pair that stands together most often, the first in the order of Unicode if there are several.

        Returns:
            The piece that it becomes; none if no pair is frequent enough.
        """
        while self._heap:
            count, pair = heapq.heappop(self._heap)
            if -count != self._pairs.get(pair):   # It has changed since, and stands in the heap once more.
                continue
            if -count < LEAST_PAIRS:
                return None
            piece = pair[0] + pair[1].removeprefix(INSIDE)
            self._merge(pair, piece)
            return piece
        return None

    def _merge(self, pair: tuple[str, str], piece: str) -> None:
        changed: set[tuple[str, str]] = set()
        for number in self._where.pop(pair):
            old, count = self._words[number], self._counts[number]
            new = _joined(old, pair, piece)
            if len(new) == len(old):
                continue
            self._words[number] = new
            before, after = list(pairwise(old)), list(pairwise(new))
            for gone in before:
                self._pairs[gone] -= count
            for there in after:
                self._pairs[there] += count
            changed.update(before, after)
            for there in set(after).difference(before):
                self._where[there].append(number)
        changed.discard(pair)
        self._pairs.pop(pair)
        for other in changed:
            if self._pairs[other] >= LEAST_PAIRS:
                heapq.heappush(self._heap, (-self._pairs[other], other))


def _joined(pieces: list[str], pair: tuple[str, str], piece: str) -> list[str]:
    """Pieces with every occurrence of a pair, from left to right, replaced by one piece."""
    result, i = [], 0
    while i < len(pieces):
        if pieces[i] == pair[0] and i + 1 < len(pieces) and pieces[i + 1] == pair[1]:
            result.append(piece)
            i += 2
        else:
            result.append(pieces[i])
            i += 1
    return result


def split(word: str, pieces: Collection[str], longest: int) -> list[str] | None:
    """A word in pieces as the graph splits it, the longest first; none if that leads nowhere.

        split("lower", {"low", "##er", "##e"}, longest=3) → ["low", "##er"]

    Args:
        word: without white space.
        pieces: of the vocabulary; a set.
        longest: most characters of a piece, its mark not counted.
    """
    found, start = [], 0
    while start < len(word):
        mark = INSIDE if start else ""
        for end in range(min(len(word), start + longest), start, -1):
            piece = mark + word[start:end]
            if piece in pieces:
                found.append(piece)
                break
        else:
            return None
        start = end
    return found


class Coverage(NamedTuple):
    """How well a vocabulary covers counted words.

    Attributes:
        words: how many there are.
        tokens: they make.
        unknown: of the words, how many are [UNK].
        characters: in all words.
        covered: of the characters, how many have a piece of their own.
    """

    words: int
    tokens: int
    unknown: int
    characters: int
    covered: int


def add_up(parts: Iterable[Coverage]) -> Coverage:
    """The coverage of all words, of that of parts of them."""
    return Coverage(*(sum(numbers) for numbers in zip(Coverage(0, 0, 0, 0, 0), *parts, strict=True)))


def measure(counts: Iterable[tuple[str, int]], pieces: Sequence[str]) -> Coverage:
    """Splits every counted word and adds up; the words may be many, and are held one at a time."""
    known, longest = set(pieces), max(len(piece.removeprefix(INSIDE)) for piece in pieces)
    words = tokens = unknown = characters = covered = 0
    for word, count in counts:
        found = split(word, known, longest)
        words += count
        tokens += count * (1 if found is None else len(found))
        unknown += count * (found is None)
        characters += count * len(word)
        covered += count * sum(character in known for character in word)
    return Coverage(words, tokens, unknown, characters, covered)
