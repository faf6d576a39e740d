"""What fills the slots of a grammar's patterns: words that know their forms.

Every kind has `form(own, name, subject)`: its words in the grammar's language (`own` true) or in English, in the form
that a template names, agreeing with `subject`. English's own rules are here: he, she or it, and -s in the third person.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from components import grammar_entries as entries

THIRD, THEY = 2, 4   # places in a list of verb forms: eu, tu, ele/ela, nós, eles/elas
PRONOUNS = {0: "I", 1: "you", 3: "we", 4: "they"}


class MissingFormError(Exception):
    """A template asks for a form that its word does not have."""


class Filler(Protocol):
    """What is in a slot.

    Attributes:
        lexemes: its words as `kind:word`.
    """

    @property
    def lexemes(self) -> tuple[str, ...]: ...

    def form(self, own: bool, name: str, subject: NounPhrase | None) -> str:
        """The words; MissingFormError if there is no such form, or nothing that it could agree with."""


@dataclass(frozen=True)
class NounPhrase:
    """o gato preto / the black cat, with all that other words agree with.

    Args:
        own: all of it.
        en: all of it in English.
        gender: m or f.
        person: place in a list of verb forms, 0 to 4.
        classes: what it `is` in the grammar.
        lexemes: its words.
        noun: both without determiner and adjectives, for patterns that set them apart (whose hat is this).
        determiner: in both languages.
        scales: scales of its adjectives, so that no old house is new.
    """

    own: str
    en: str
    gender: str
    person: int
    classes: tuple[str, ...] = ()
    lexemes: tuple[str, ...] = ()
    noun: tuple[str, str] = ("", "")
    determiner: tuple[str, str] = ("", "")
    scales: tuple[str, ...] = ()

    @property
    def is_plural(self) -> bool:
        return self.person > THIRD

    @property
    def column(self) -> int:
        """Place of the form that agrees with it in a list like o, a, os, as."""
        return column(self.gender, self.is_plural)

    @property
    def pronoun(self) -> str:
        if self.person == THIRD:
            return {"m": "he", "f": "she"}[self.gender] if "person" in self.classes else "it"
        return PRONOUNS[self.person]

    def form(self, own: bool, name: str, subject: NounPhrase | None) -> str:
        parts = {"": (self.own, self.en), "noun": self.noun, "determiner": self.determiner}
        return one_of(parts, name, "a noun")[0 if own else 1]


@dataclass(frozen=True)
class Verb:
    """comer / eat: `form(True, "present", eles)` is comem, `form(False, "ing", None)` eating.

    Args:
        infinitive: in the grammar's language.
        entry: its entry in the grammar; forms given there go before those of the conjugation.
        ending: of the infinitive, which a conjugation's endings replace.
        conjugation: none for pôr, which has all forms of its own.
    """

    infinitive: str
    entry: entries.Verb
    ending: str
    conjugation: entries.Conjugation | None

    @property
    def lexemes(self) -> tuple[str, ...]:
        return (f"verb:{self.infinitive}",)

    def form(self, own: bool, name: str, subject: NounPhrase | None) -> str:
        if own:
            return f"{self._own(name, subject)} {self.entry.prep}".rstrip()
        return f"{self._english(name, subject)} {self.entry.particle}".rstrip()

    def _own(self, name: str, subject: NounPhrase | None) -> str:
        if name == "infinitive":
            return self.infinitive
        if name == "command":   # abre!, which is also ele abre, for the verbs that have it
            return self._tense("present")[THIRD]
        if name == "participle":
            return (self.entry.participle or self._conjugated("participle"))[agreed(subject).column]
        return self._tense(name)[agreed(subject).person]

    def _tense(self, name: str) -> list[str]:
        return self.entry.tenses.get(name) or self._conjugated(name)

    def _conjugated(self, name: str) -> list[str]:
        known = {} if self.conjugation is None else {
            **self.conjugation.tenses, "participle": self.conjugation.participle}
        stem = self.infinitive.removesuffix(self.ending)
        return [stem + ending for ending in one_of(known, name, f"the verb {self.infinitive}")]

    def _english(self, name: str, subject: NounPhrase | None) -> str:
        base, third, past, participle, ing = self.entry.en
        if name == "present":
            return third if agreed(subject).person == THIRD else base
        return one_of({"base": base, "past": past, "participle": participle, "ing": ing}, name, f"the verb {base}")


@dataclass(frozen=True)
class Adjective:
    """velho / old: `form(True, "", as cadeiras)` is velhas, `form(True, "copula", as cadeiras)` são."""

    key: str
    entry: entries.Adjective
    copula: list[str]

    @property
    def lexemes(self) -> tuple[str, ...]:
        return (f"adjective:{self.key}",)

    def form(self, own: bool, name: str, subject: NounPhrase | None) -> str:
        """In the grammar's language, a form that is no other is a word before it: `mais` → mais velhas."""
        if not own:
            more, most = self.entry.more or ("", "")
            return one_of({"": self.entry.en, "more": more, "most": most}, name, f"the adjective {self.key}")
        if name == "copula":
            return self.copula[agreed(subject).person]
        if name and self.entry.comparative:
            return self.entry.comparative[agreed(subject).column]
        return f"{name} {self.entry.own[agreed(subject).column]}".lstrip()


@dataclass(frozen=True)
class Helper:
    """A verb before an infinitive: quer / wants to; denied it is (não) quer / doesn't want to."""

    key: str
    entry: entries.Helper

    @property
    def lexemes(self) -> tuple[str, ...]:
        return (f"helper:{self.key}",)

    def form(self, own: bool, name: str, subject: NounPhrase | None) -> str:
        person = agreed(subject).person
        denied = one_of({"present": 0, "not": 2}, name, f"the helper {self.key}")
        return self.entry.own[person] if own else self.entry.en[denied + (person == THIRD)]


@dataclass(frozen=True)
class Fixed:
    """Words without inflection: ontem / yesterday, em cima da cadeira / on the chair."""

    own: str
    en: str
    lexemes: tuple[str, ...]

    def form(self, own: bool, name: str, subject: NounPhrase | None) -> str:
        return self.own if own else self.en


def column(gender: str, plural: bool) -> int:
    """Place in a list of masculine and feminine singular, masculine and feminine plural."""
    return (gender == "f") + 2 * plural


def agreed(subject: NounPhrase | None) -> NounPhrase:
    """What a word agrees with; MissingFormError if nobody said."""
    if subject is None:
        raise MissingFormError("a form that agrees, and nothing that it agrees with: write {v present s}")
    return subject


def one_of(forms: dict, name: str, of: str):
    """The form of that name; MissingFormError if there is none."""
    if name not in forms:
        raise MissingFormError(f"the form {name!r} of {of}, which has {', '.join(map(repr, forms))}")
    return forms[name]
