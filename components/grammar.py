"""A grammar file: words of one language with their English, and patterns that make sentences of both.

`data/phrasebook/README.md` describes the format. Here it is read and looked through before a sentence is drawn: a
misspelt class, place or phrase would pick no word, and a verb's missing form would show in one sentence of thousands.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar

import yaml
from pydantic import ValidationError

from components.files import nearest
from components.grammar_entries import ALL, Conjugation, Determiner, Lexicon, Noun, Pattern, Person, Slot, Verb
from modules.errors import TextrailError

TOKEN = re.compile(r"\{([^}]*)\}")   # in a template: {v present s}
SLOT_KINDS = ("verb", "place", "adjective", "phrase", "helper", "manner", "noun", "subject", "object", "like", "names")
FIX = "Correct the grammar; data/phrasebook/README.md describes the format."
PROBLEMS_SHOWN = 10

Found = TypeVar("Found")


class Grammar:
    """The lexicon and patterns of a file, with what is asked of them again and again.

    Args:
        text: of the file.
        path: of the file, for errors.

    Attributes:
        language: name of the language beside English, which is also the name of its column: pt.
        words: all entries.
        path: of the file.

    Raises:
        TextrailError: the text is no grammar, or names what there is not.
    """

    def __init__(self, text: str, path: str):
        self.path = path
        self.language, self.words = _parsed(text, path)
        self._sets = {name: set(_members(name, self.words)) for name in self.words.determiner_sets}
        self._found: dict[Hashable, Any] = {}

    def error(self, problem: str) -> TextrailError:
        """What to say of a mistake that shows only when sentences are drawn."""
        return TextrailError(f"a grammar in {self.path}", problem, FIX)

    def remembered(self, key: Hashable, find: Callable[[], Found]) -> Found:
        """What `find` finds, asked once: a grammar answers the same few hundred questions thousands of times."""
        if key not in self._found:
            self._found[key] = find()
        return self._found[key]

    def those(self, section: Literal["nouns", "names", "pronouns"], wanted: Iterable[str], only: Iterable[str]
              ) -> list[str]:
        """Keys of the nouns, names or pronouns that are one of each of two groups of classes; `all` asks for none."""
        entries: Mapping[str, Noun | Person] = getattr(self.words, section)
        groups = [list(group) for group in (wanted, only) if list(group) != ALL]
        return self.remembered((section, *map(tuple, groups)), lambda: [
            name for name, entry in entries.items() if all(overlap(group, entry.is_) for group in groups)])

    def verbs(self, slot: Slot) -> list[str]:
        """Keys of the verbs that a slot like `{verb: transitive, kind: [act], has: [puts]}` asks for."""
        return self.remembered(("verbs", slot.verb, *slot.kind, "has", *slot.has, "not", *slot.not_), lambda: [
            key for key, verb in self.words.verbs.items() if _is_asked_for(verb, slot)])

    def adjectives(self, classes: Sequence[str]) -> list[str]:
        """Keys of the adjectives that describe what is of these classes."""
        return self.remembered(("adjectives", *classes), lambda: [
            key for key, one in self.words.adjectives.items()
            if overlap(one.fits, classes) and not overlap(one.unfit, classes)])

    def determiners(self, names: Iterable[str], sets: Sequence[str]) -> list[Determiner]:
        """The determiners of those names that are in each of the sets."""
        return self.remembered(("determiners", *names, "of", *sets), lambda: [
            self.words.determiners[name] for name in names if all(name in self._sets[one] for one in sets)])

    def opposed(self, first: str, second: str) -> bool:
        """Whether two adjectives make a contrast: caro and barato, preto and branco."""
        adjectives, opposites = self.words.adjectives, self.words.opposites
        if adjectives[first].scale == adjectives[second].scale == "colour":
            return first != second
        return second == opposites.get(first) or first == opposites.get(second)

    def contract(self, text: str) -> str:
        """Joins prepositions with the word after them: `em cima de a mesa` → `em cima da mesa`."""
        words: list[str] = []
        for word in text.split():
            joined = self.words.contractions.get(words[-1], {}).get(word) if words else None
            words = [*words[:-1], joined] if joined else [*words, word]
        return " ".join(words)

    def article(self, text: str) -> str:
        """Makes a or an by the word after it: `a old chair` → `an old chair`, `a honest man` → `an honest man`."""
        words = text.split()
        for i, following in enumerate(words[1:]):
            if words[i] == "a":
                words[i] = self.words.article_exceptions.get(following, "an" if following[0] in "aeiou" else "a")
        return " ".join(words)


def _is_asked_for(verb: Verb, slot: Slot) -> bool:
    return (slot.verb in ("any", "transitive" if verb.object is not None else "intransitive")
            and (not slot.kind or verb.kind in slot.kind) and all(map(verb.has, slot.has))
            and not any(map(verb.has, slot.not_)) and verb.only in (None, *slot.has))


def overlap(first: Iterable[str], second: Iterable[str]) -> bool:
    """Whether two groups have a member in common."""
    return not set(first).isdisjoint(second)


def _parsed(text: str, path: str) -> tuple[str, Lexicon]:
    """The language of a grammar and its entries, looked through."""
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise TextrailError("a grammar in YAML", f"{path}: {error}", "Correct that line.") from None
    language = content.pop("language", None) if isinstance(content, dict) else None
    if not isinstance(language, str):
        raise TextrailError(f"a grammar in {path}, with the key `language`", f"{str(content)[:60]!r}", FIX)
    try:
        words = Lexicon.model_validate(_renamed(content, language))
        problems = list(_dangling(words, language))
    except ValidationError as error:
        problems = [_sentence(problem, language) for problem in error.errors()]
    if problems:
        shown = problems[:PROBLEMS_SHOWN] + ["…"] * (len(problems) > PROBLEMS_SHOWN)
        raise TextrailError(f"a grammar in {path}", "\n".join([f"{len(problems)} that cannot be:", *shown, ""]), FIX)
    return language, words


def _renamed(tree: Any, language: str) -> Any:
    """The file's content with `own` as key for its language."""
    if not isinstance(tree, dict):
        return tree
    return {"own" if key == language else key: _renamed(value, language) for key, value in tree.items()}


def _sentence(problem: Any, language: str) -> str:
    """`nouns, gato, pt: List should have at least 2 items …`"""
    place = [language if part == "own" else str(part) for part in problem["loc"]]
    return f"{', '.join(place)}: {problem['msg'].removeprefix('Value error, ')}"


def _members(name: str, words: Lexicon, within: tuple[str, ...] = ()) -> Iterator[str]:
    """The determiners of a set, with those of the sets that it names."""
    for member in words.determiner_sets[name]:
        if member in words.determiners:
            yield member
        elif member not in within:
            yield from _members(member, words, (*within, name))


def _dangling(words: Lexicon, language: str) -> Iterator[str]:
    """A sentence for each name that an entry or a pattern uses and that nothing has."""
    classes = {one for section in (words.nouns, words.names, words.pronouns) for entry in section.values()
               for one in entry.is_}
    checks: list[tuple[str, dict[str, Any], dict[str, Iterable[str]]]] = [
        ("verbs", words.verbs, {"subject": classes, "object": classes, "where": words.places,
                                "how": words.phrases.get("how", ()), "because": words.adjectives,
                                "despite": words.adjectives, "determiners": words.determiner_sets}),
        ("adjectives", words.adjectives, {"fits": classes, "unfit": classes, "be": words.auxiliaries.own}),
        ("places", words.places, {"at": classes, "for_": classes}),
        ("nouns", words.nouns, {"use": words.determiner_sets}),
    ]
    for section, entries, fields in checks:
        for key, entry in entries.items():
            for field, known in fields.items():
                yield from _unknown(f"{section}, {key}", field.rstrip("_"), _names(getattr(entry, field)), known)
    for name, members in words.determiner_sets.items():
        yield from _unknown("determiner_sets", name, members, [*words.determiners, *words.determiner_sets])
    for name, members in words.pronoun_sets.items():
        yield from _unknown("pronoun_sets", name, members, words.pronouns)
    for pair in words.opposites.items():
        yield from _unknown("opposites", pair[0], pair, words.adjectives)
    yield from _incomplete_verbs(words)
    yield from _places_without_english(words)
    for name, pattern in words.patterns.items():
        yield from _slot_problems(f"patterns, {name}", pattern, words, classes)
        for side, template, auxiliaries in ((language, pattern.own, words.auxiliaries.own),
                                            ("en", pattern.en, words.auxiliaries.en)):
            for token in TOKEN.findall(template):
                if problem := _token_problem(token.split(), pattern.slots, words, auxiliaries):
                    yield f"patterns, {name}, {side}: {{{token}}} {problem}"


def _names(value: Any) -> list[str]:
    return [] if value is None else [value] if isinstance(value, str) else list(value)


def _unknown(where: str, field: str, names: Iterable[str], known: Iterable[str]) -> Iterator[str]:
    for name in names:
        if name not in known:
            yield f"{where}: there is no {field} {name!r}{nearest(name, known)}"


def _incomplete_verbs(words: Lexicon) -> Iterator[str]:
    """Verbs without one of the tenses that there are, and keys of verbs that mean nothing."""
    tenses = {tense for conjugation in words.conjugations.values() for tense in conjugation.tenses}
    asked = {flag for pattern in words.patterns.values() for slot in pattern.slots.values()
             for flag in (*slot.has, *slot.not_)}
    for key, verb in words.verbs.items():
        yield from _unknown(f"verbs, {key}", "tense", verb.tenses, tenses)
        for flag in verb.flags - asked - {"bare"}:
            yield f"verbs, {key}: no pattern asks for its flag {flag!r}{nearest(flag, asked)}"
        conjugation = conjugation_of(verb.own or key, words)[1]
        for tense in sorted(tenses - verb.tenses.keys() - (conjugation.tenses.keys() if conjugation else set())):
            yield f"verbs, {key}: no {tense}, and no conjugation for its ending"
        if not (verb.participle or conjugation):
            yield f"verbs, {key}: no participle, and no conjugation for its ending"


def conjugation_of(infinitive: str, words: Lexicon) -> tuple[str, Conjugation | None]:
    """The ending that tells an infinitive's conjugation, the longest there is, and the conjugation."""
    ending = max((end for end in words.conjugations if infinitive.endswith(end)), key=len, default="")
    return ending, words.conjugations.get(ending)


def _places_without_english(words: Lexicon) -> Iterator[str]:
    for key, place in words.places.items():
        for name, noun in words.nouns.items():
            if place.en is None and noun.in_ is None and overlap(place.at, noun.is_):
                yield f"nouns, {name}: no `in`, which the place {key!r} needs"


def _slot_problems(where: str, pattern: Pattern, words: Lexicon, classes: set[str]) -> Iterator[str]:
    """Slots that ask for what there is not."""
    drawn: list[str] = []
    for name, slot in pattern.slots.items():
        at = f"{where}, {name}"
        if slot.holds not in SLOT_KINDS:
            yield f"{at}: a slot begins with what it holds ({', '.join(SLOT_KINDS)}), not with {slot.holds!r}"
        yield from _unknown(at, "slot before it called", slot.others, drawn)
        for field, names, known in (
                ("class", [*(slot.noun or []), *slot.only], {*classes, "all"}), ("phrase", slot.phrase, words.phrases),
                ("set of determiners", slot.determiners, words.determiner_sets),
                ("determiner", slot.determiner, words.determiners), ("copula", slot.be, words.auxiliaries.own),
                ("set of pronouns", slot.pronouns, words.pronoun_sets),
                ("flag", [*slot.has, *slot.not_], [*Verb.model_fields, *(flag for verb in words.verbs.values()
                                                                         for flag in verb.flags)])):
            yield from _unknown(at, field, _names(names), known)
        drawn.append(name)


def _token_problem(token: list[str], slots: Iterable[str], words: Lexicon, auxiliaries: dict[str, dict]) -> str:
    """Why `{v present s}` means nothing in a template; empty if it does. Forms show themselves when a word is drawn."""
    if not token:
        return "is empty"
    head, rest = token[0], token[1:]
    if head in slots or (rest and " ".join(token[:-1]) in {*words.agreeing, "pronoun", "who"}):
        return ""
    if head in auxiliaries:
        form = " ".join(rest[:-1])
        known = auxiliaries[head]
        return "" if form in known else f"asks for a form of {head} that there is not{nearest(form, known)}"
    return f"is no slot of the pattern{nearest(head, [*slots, *auxiliaries])}"


