"""Sentence pairs drawn from a grammar, both languages side by side.

    >>> expand(grammar, count=24_000, seed=1)[1]
    Pair(own='Antigamente eu cuidava destas árvores.', en='I used to take care of these trees.',
         pattern='used to act on something', lexemes=('verb:cuidar', 'pronoun:eu', 'noun:árvore'))

How a pair is made:

1. A pattern is drawn by its weight.
2. Its slots are drawn in the order in which they are written, each from what the slots before it allow: a verb, then a
   subject that can do it, then a place where that subject may do it. A noun phrase keeps what other words agree with.
   If nothing fits, or a word comes twice, the draw begins again at 1.
3. The two templates are filled; each word asks the phrase it agrees with for its form.
4. Contractions (de + a → da) and a/an are made, then the capital letter.
5. A sentence seen before is thrown away. One seen before with another translation is an error in the grammar.

Only `Random.random` is called, whose sequence Python promises to keep: a seed gives the same pairs everywhere, and the
pairs of a short expansion are the first ones of a longer.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from components import grammar_entries as entries
from components.grammar import TOKEN, Grammar, conjugation_of, overlap
from components.grammar_entries import ALL, Slot
from components.grammar_words import (
    THEY,
    THIRD,
    Adjective,
    Filler,
    Fixed,
    Helper,
    MissingFormError,
    NounPhrase,
    Verb,
    agreed,
    column,
)

WITH_ADJECTIVE = 0.35   # share of noun phrases
WITH_TWO = 0.4   # share of those with an adjective, where a second one can stand before the noun
IN_PLURAL = 0.4   # share of noun phrases whose words leave the choice
AS_PRONOUN, AS_NAME = 0.2, 0.2   # share of subjects that may be one
AS_TYPED = 0.2   # share of statements without capital and full stop, as people type them
PATIENCE = 20_000   # draws in a row with nothing new before the grammar counts as exhausted
TRIALS = 2_000   # draws of one pattern before it counts as one that can never be drawn


class Pair(NamedTuple):
    """A sentence, its translation, its pattern, and its words as `kind:word` in the order in which they were drawn.

    Kinds: noun, name, pronoun, verb, helper, phrase; adjective after ser or estar, attribute beside a noun (o gato
    preto), owner after it (o gato da Ana).
    """

    own: str
    en: str
    pattern: str
    lexemes: tuple[str, ...]


class NothingFitsError(Exception):
    """What was drawn so far leaves a slot without a word; another draw may do better."""


class Chance:
    """Choices by seed; `random.choice` and its like may change from one Python to the next."""

    def __init__(self, seed: int):
        self._random = random.Random(seed)

    def happens(self, probability: float) -> bool:
        return self._random.random() < probability

    def pick(self, options: Sequence[Any], weights: Sequence[float] | None = None) -> Any:
        """One of the options; NothingFitsError if there are none."""
        if not options:
            raise NothingFitsError
        if weights is None:
            return options[int(self._random.random() * len(options))]
        left = self._random.random() * sum(weights)
        for option, weight in zip(options, weights, strict=True):
            left -= weight
            if left < 0:
                return option
        return options[-1]


def expand(grammar: Grammar, count: int, seed: int) -> list[Pair]:
    """Distinct sentence pairs; the module's docstring says how they are drawn.

    Args:
        grammar: what they are drawn from.
        count: number of pairs.
        seed: decides which.

    Returns:
        `count` pairs; no two have the same sentence in the grammar's language, however it is typed (see `typed`).

    Raises:
        TextrailError: the grammar has two translations for one sentence, a pattern that can never be drawn or asks for
            a form that a word has not, or no more sentences.
    """
    check_patterns(grammar)
    pairs: list[Pair] = []
    seen: dict[str, str] = {}
    names, weights = list(grammar.words.patterns), [one.weight for one in grammar.words.patterns.values()]
    chance, idle = Chance(seed), 0
    while len(pairs) < count:
        pair, idle = draw_pair(grammar, chance.pick(names, weights), chance), idle + 1
        if pair is not None and typed(pair.own) not in seen:
            seen[typed(pair.own)], idle = typed(pair.en), 0
            pairs.append(pair)
        elif pair is not None and seen[typed(pair.own)] != typed(pair.en):
            raise grammar.error(f"{pair.own!r} as {seen[typed(pair.own)]!r} and as {pair.en!r}, where a sentence has "
                                "one translation")
        if idle > PATIENCE:
            raise grammar.error(f"one that ran dry after {len(pairs):,} of {count:,} pairs: lower data.count, or add "
                                "words and patterns")
    return pairs


def check_patterns(grammar: Grammar) -> None:
    """Draws each pattern once, with a seed of its own.

    Raises:
        TextrailError: one can never be drawn, or asks for a form that a word has not.
    """
    chance = Chance(seed=0)
    for name in grammar.words.patterns:
        if all(draw_pair(grammar, name, chance) is None for _ in range(TRIALS)):
            raise grammar.error(f"patterns, {name}: never drawn in {TRIALS:,} trials, for no words fit its slots "
                                "together")


def draw_pair(grammar: Grammar, name: str, chance: Chance) -> Pair | None:
    """One pair of the pattern of that name, or none if what was drawn first left a later slot without a word.

    Raises:
        TextrailError: the pattern asks for a form that a word has not.
    """
    pattern, draw = grammar.words.patterns[name], Draw(grammar, chance)
    as_typed = chance.happens(AS_TYPED)
    try:
        draw.fill(pattern.slots)
        own = grammar.contract(draw.render(pattern.own, own=True))
        en = grammar.article(draw.render(pattern.en, own=False))
    except NothingFitsError:
        return None
    except MissingFormError as error:
        raise grammar.error(f"patterns, {name}: {error}") from None
    if as_typed and own.endswith("."):
        return Pair(own[:-1], en[:-1], name, draw.lexemes)
    return Pair(own[0].upper() + own[1:], en[0].upper() + en[1:], name, draw.lexemes)


def typed(text: str) -> str:
    """A sentence as one may type it; what is the same here counts as the same sentence.

    `O gato dorme.` → `o gato dorme`; a question mark stays, since it may be all that tells a question.
    """
    return text.lower().removesuffix(".")


class Draw:
    """One sentence in the making: what its slots hold so far, and how the next one is filled.

    Args:
        grammar: where the words are.
        chance: what decides.
    """

    def __init__(self, grammar: Grammar, chance: Chance):
        self.grammar, self.words, self.chance = grammar, grammar.words, chance
        self.filled: dict[str, Filler] = {}

    def fill(self, slots: dict[str, Slot]) -> None:
        """Fills the slots in turn; NothingFitsError if one cannot be filled or a word came twice."""
        kinds: dict[str, Callable[[Slot], Filler]] = {
            "verb": self._verb, "place": self._place, "adjective": self._adjective, "phrase": self._phrase,
            "helper": self._helper, "manner": self._manner}
        for name, slot in slots.items():
            self.filled[name] = kinds.get(slot.holds, self._noun_phrase)(slot)
        words = [lexeme.partition(":")[2] for lexeme in self.lexemes]
        if len(set(words)) < len(words):
            raise NothingFitsError

    @property
    def lexemes(self) -> tuple[str, ...]:
        return tuple(lexeme for filler in self.filled.values() for lexeme in filler.lexemes)

    def _noun_in(self, slot: str | None) -> NounPhrase:
        filler = self.filled[slot or ""]
        if not isinstance(filler, NounPhrase):
            raise MissingFormError(f"slot {slot} as a noun, which it is not")
        return filler

    def _verb_in(self, slot: str | None) -> entries.Verb:
        """The grammar's entry of the verb in a slot."""
        filler = self.filled[slot or ""]
        if not isinstance(filler, Verb):
            raise MissingFormError(f"slot {slot} as a verb, which it is not")
        return filler.entry

    # One method for each kind of slot.

    def _verb(self, slot: Slot) -> Verb:
        key = self.chance.pick(self.grammar.verbs(slot))
        entry = self.words.verbs[key]
        infinitive = entry.own or key
        return Verb(infinitive, entry, *conjugation_of(infinitive, self.words))

    def _helper(self, slot: Slot) -> Helper:
        helpers = self.words.helpers
        key = self.chance.pick([key for key, one in helpers.items() if one.only in (None, slot.helper)])
        return Helper(key, helpers[key])

    def _phrase(self, slot: Slot) -> Fixed:
        return self._fixed(slot.phrase or "", list(self.words.phrases[slot.phrase or ""]))

    def _manner(self, slot: Slot) -> Fixed:
        return self._fixed("how", self._verb_in(slot.manner).how)

    def _fixed(self, group: str, choices: Sequence[str]) -> Fixed:
        own = self.chance.pick(choices)
        return Fixed(own, self.words.phrases[group][own], (f"phrase:{own}",))

    def _place(self, slot: Slot) -> Fixed:
        """em cima de + a cadeira velha: where the noun of `place` may be and, if it is named, `verb` happens."""
        places, who = self.words.places, self._noun_in(slot.place)
        kinds = self._verb_in(slot.verb).where if slot.verb else [
            kind for kind, place in places.items() if place.only != "verbs"]
        place = places[self.chance.pick([kind for kind in kinds if overlap(places[kind].for_, who.classes)])]
        where = self._noun(Slot(holds="noun", noun=place.at, determiners="sure", number=place.number))
        preposition = place.en or self.words.nouns[where.lexemes[0].partition(":")[2]].in_
        return Fixed(f"{place.own} {where.own}", f"{preposition} {where.en}", where.lexemes)

    def _adjective(self, slot: Slot) -> Adjective:
        subject = self._noun_in(slot.adjective)
        key = self.chance.pick([key for key in self.grammar.adjectives(subject.classes)
                                if self._describes(key, subject, slot)])
        entry = self.words.adjectives[key]
        return Adjective(key, entry, self.words.auxiliaries.own[entry.be]["present"])

    def _describes(self, key: str, subject: NounPhrase, slot: Slot) -> bool:
        """Whether an adjective fits the slot, and neither repeats nor denies what was said."""
        entry = self.words.adjectives[key]
        if slot.contrast:
            other = self.filled[slot.contrast].lexemes[0].partition(":")[2]
            sensible = self.grammar.opposed(key, other)
        else:
            sensible = all(scale(key, entry) != scale(one.key, one.entry) for one in self.filled.values()
                           if isinstance(one, Adjective))
        if slot.listed:
            verb, field = slot.listed
            sensible = sensible and key in getattr(self._verb_in(verb), field)
        return (sensible and scale(key, entry) not in subject.scales
                and entry.be == (slot.be or entry.be)
                and not (slot.graded and (entry.absolute or entry.scale == "colour"))
                and not (slot.attributive and entry.predicate)
                and not (slot.compared and not entry.more))

    def _noun_phrase(self, slot: Slot) -> NounPhrase:
        """A pronoun or a name where the slot takes them, or else a noun."""
        # The subject or object of a verb may be a person without the pattern saying so.
        names = slot.names if slot.names is not None else slot.holds in ("subject", "object", "like") and not (
            slot.determiner)
        if slot.pronouns and self.chance.happens(AS_PRONOUN):
            return self._pronoun(slot)
        if names == "only" or (names and self.chance.happens(AS_NAME)):
            return self._person("name", self.words.names, self._candidates("names", slot))
        return self._noun(slot)

    def _pronoun(self, slot: Slot) -> NounPhrase:
        allowed = self.words.pronoun_sets[slot.pronouns or ""]
        return self._person("pronoun", self.words.pronouns,
                            [key for key in self._candidates("pronouns", slot) if key in allowed])

    def _person(self, kind: str, people: dict[str, entries.Person], keys: list[str]) -> NounPhrase:
        key = self.chance.pick(keys)
        one = people[key]
        word = key.removesuffix(" (f)")   # eu of a woman is the same word
        return NounPhrase(one.own, one.en, one.gender, one.person, tuple(one.is_), (f"{kind}:{word}",))

    def _noun(self, slot: Slot) -> NounPhrase:
        """Determiner and noun, perhaps with adjectives: o gato preto, a pequena cadeira branca, o livro da Ana."""
        key = self.chance.pick(self._candidates("nouns", slot))
        noun = self.words.nouns[key]
        if slot.countable and noun.own[1] is None:
            raise NothingFitsError
        determiner = self._determiner(noun, slot)
        plural = self._plural(noun, determiner, slot)
        at = column(noun.gender, plural)
        plain = slot.plain or (slot.object and self._verb_in(slot.object).plain)
        front, behind = ([], []) if plain else self._attributes(noun)
        own = [determiner.own[at], *(one.own[at] for _, one in front), noun.own[plural],
               *(one.own[at] for _, one in behind), determiner.after]
        en = [determiner.en[plural], *(one.en for _, one in front + behind), noun.en[plural]]
        owners = [f"owner:{determiner.owner}"] if determiner.owner else []
        return NounPhrase(
            " ".join(filter(None, own)), " ".join(filter(None, en)), noun.gender, THEY if plural else THIRD,
            tuple(noun.is_), (f"noun:{key}", *(f"attribute:{name}" for name, _ in front + behind), *owners),
            noun=(noun.own[plural] or "", noun.en[plural] or ""),
            determiner=(determiner.own[at] or "", determiner.en[plural] or ""),
            scales=tuple(scale(name, one) for name, one in front + behind))

    def _candidates(self, section: Any, slot: Slot) -> list[str]:
        """The nouns, names or pronouns that are what the slot asks for."""
        wanted: Sequence[str] = slot.noun or ALL
        if slot.subject:
            wanted = self._verb_in(slot.subject).subject
        elif slot.object:
            wanted = self._verb_in(slot.object).object or []
        elif slot.like:
            wanted = self._noun_in(slot.like).classes[:1]
        found = self.grammar.those(section, wanted, slot.only)
        if not slot.fits:
            return found
        adjective = self.filled[slot.fits]
        if not isinstance(adjective, Adjective):
            raise MissingFormError(f"slot {slot.fits} as an adjective, which it is not")
        those: dict[str, Any] = getattr(self.words, section)
        return [name for name in found if adjective.key in self.grammar.adjectives(those[name].is_)]

    def _determiner(self, noun: entries.Noun, slot: Slot) -> entries.Determiner:
        """One that noun, slot and, before an object, verb allow."""
        sets = [noun.use]
        if slot.object and not slot.determiner:
            verb = self._verb_in(slot.object)
            sets.append(verb.determiners or ("bare" if verb.has("bare") else "object"))
        elif not (slot.determiners or slot.determiner):
            sets.append("subject")
        if slot.determiners:
            sets.append(slot.determiners)
        allowed = self.grammar.determiners([slot.determiner] if slot.determiner else self.words.determiners, sets)
        return self.chance.pick(allowed, [one.weight for one in allowed])

    def _plural(self, noun: entries.Noun, determiner: entries.Determiner, slot: Slot) -> bool:
        """Whether the noun is plural, where noun, determiner and slot leave the choice."""
        numbers = [plural for plural in (False, True)
                   if noun.own[plural] is not None and determiner.own[column(noun.gender, plural)] is not None
                   and slot.number in (None, "plural" if plural else "singular")]
        return self.chance.happens(IN_PLURAL) if len(numbers) == 2 else self.chance.pick(numbers)

    def _attributes(self, noun: entries.Noun) -> tuple[list[tuple[str, Any]], list[tuple[str, Any]]]:
        """Adjectives before and after the noun; one before it only if a colour follows (o pequeno gato preto)."""
        fitting = [(key, one) for key in self.grammar.adjectives(noun.is_)
                   if not (one := self.words.adjectives[key]).predicate]
        if not fitting or not self.chance.happens(WITH_ADJECTIVE):
            return [], []
        front = [(key, one) for key, one in fitting if one.front]
        colours = [(key, one) for key, one in fitting if one.scale == "colour"]
        if front and colours and self.chance.happens(WITH_TWO):
            return [self.chance.pick(front)], [self.chance.pick(colours)]
        return [], [self.chance.pick(fitting)]

    # Templates.

    def render(self, template: str, own: bool) -> str:
        """The template with its slots filled: `{s} {v present s}.` → `os gatos dormem.`"""
        return TOKEN.sub(lambda token: self._word(token[1].split(), own), template)

    def _word(self, words: list[str], own: bool) -> str:
        """`v present s` → dormem; the last word may name what the others agree with."""
        subject = self._subject(words[-1]) if len(words) > 1 else None
        if subject is not None:
            words = words[:-1]
        head, form, whole = words[0], " ".join(words[1:]), " ".join(words)
        if head in self.filled:
            return self.filled[head].form(own, form, subject)
        if whole in self.words.agreeing:
            forms, agrees = self.words.agreeing[whole], agreed(subject)
            return forms.own[agrees.column] if own else forms.en[agrees.is_plural]
        if whole == "pronoun":
            return agreed(subject).pronoun
        if whole == "who":
            return "who" if "person" in agreed(subject).classes else "that"
        auxiliaries = self.words.auxiliaries.own if own else self.words.auxiliaries.en
        return auxiliaries[head][form][agreed(subject).person]

    def _subject(self, name: str) -> NounPhrase | None:
        """What a name in a template agrees as: a slot, two of them, or nobody in particular."""
        if name == "3s":
            return NounPhrase("", "", "m", THIRD)
        parts = [one for one in map(self.filled.get, name.split("+")) if isinstance(one, NounPhrase)]
        if len(parts) < 2:
            return parts[0] if parts else None
        return NounPhrase("", "", "f" if all(part.gender == "f" for part in parts) else "m", THEY)


def scale(key: str, adjective: entries.Adjective) -> str:
    """Adjectives of one scale never meet in one thing; one without is a scale of its own."""
    return adjective.scale or key
