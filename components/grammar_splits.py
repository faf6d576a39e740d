"""Sentence pairs in train, validation and test, so that the test tells what was learned and not what was remembered."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

from components.grammar_draw import Pair, typed

WRITTEN = "written"   # Pattern and slice of the pairs that no pattern made.


class SlicedPair(NamedTuple):
    """A pair with its slice.

    Attributes:
        pair: as it was drawn or written.
        slice: `seen` if training has its combination too, else `unseen`; `written` if it was written by hand.
    """

    pair: Pair
    slice: str


def combination(pair: Pair) -> tuple[str, str] | None:
    """The main noun and what is said of it: a verb, else an adjective, else another noun, else the pattern.

    The main noun is the first noun, name or pronoun drawn, in most patterns the subject.

        O gato preto dorme em cima da cadeira.   → ("noun:gato", "verb:dormir")
        A cadeira está partida.                  → ("noun:cadeira", "adjective:partido")
        A cadeira velha é azul.                  → ("noun:cadeira", "adjective:azul")
        Há um gato preto na cozinha.             → ("noun:gato", "noun:cozinha")

    Returns:
        None for a pair without lexemes, as one written by hand.
    """
    of_kind = {kinds: [one for one in pair.lexemes if one.partition(":")[0] in kinds.split()]
               for kinds in ("noun name pronoun", "verb", "adjective")}
    nouns = of_kind["noun name pronoun"]
    if not nouns:
        return None
    said = of_kind["verb"] or of_kind["adjective"] or nouns[1:] or [f"pattern:{pair.pattern}"]
    return nouns[0], said[0]


def split(pairs: Iterable[Pair], seed: int, validation: float = 0.03, test: float = 0.05, unseen: float = 0.04
          ) -> dict[str, list[SlicedPair]]:
    """Splits pairs so that no sentence of either language stands in two splits.

    1. A share `unseen` of all combinations is held out: its pairs may only be tested on. A combination holds for all
       patterns (`combination`), so neither it nor any triple of pattern and combination occurs in training.
    2. The other pairs go by a hash of the English side, so that pairs with one translation stay together (o professor,
       a professora → the teacher).
    3. An unseen pair whose English side stands in training or validation as well is dropped.

    Args:
        pairs: no two with the same sentence in the grammar's language.
        seed: decides which combinations and sentences.
        validation: share of the pairs that are not held out.
        test: share of the pairs that are not held out.
        unseen: share of the combinations.

    Returns:
        train, validation and test → pairs.
    """
    groups: dict[str, list[Pair]] = {"train": [], "validation": [], "test": []}
    held = []
    for pair in pairs:
        words, at = combination(pair), _fraction(f"{seed}/sentence/{typed(pair.en)}")
        if words is not None and _fraction(f"{seed}/combination/{'/'.join(words)}") < unseen:
            held.append(pair)
        else:
            groups["validation" if at < validation else "test" if at < validation + test else "train"].append(pair)
    known = {typed(pair.en) for pair in groups["train"] + groups["validation"]}
    groups["test"] += [pair for pair in held if typed(pair.en) not in known]
    trained = {combination(pair) for pair in groups["train"]}
    return {name: [SlicedPair(pair, _slice(pair, trained)) for pair in rows] for name, rows in groups.items()}


def _slice(pair: Pair, trained: set[tuple[str, str] | None]) -> str:
    words = combination(pair)
    return WRITTEN if words is None else "seen" if words in trained else "unseen"


def _fraction(text: str) -> float:
    """A number in [0, 1) that depends on nothing but the text."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") / 2**64
