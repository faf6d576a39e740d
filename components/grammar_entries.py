"""The entries of a grammar file, as models: every key with its type. data/phrasebook/README.md says what they mean."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

ALL = ["all"]   # in the place of classes: whatever it is

Gender = Literal["m", "f"]
Numbers = Annotated[list[str | None], Field(min_length=2, max_length=2)]   # singular, plural; None: not used so
Four = Annotated[list[str], Field(min_length=4, max_length=4)]   # m singular, f singular, m plural, f plural
FourOrNone = Annotated[list[str | None], Field(min_length=4, max_length=4)]
Persons = Annotated[list[str], Field(min_length=5, max_length=5)]   # eu, tu, ele/ela, nós, eles/elas


class Entry(BaseModel):
    """A part of the file. `own` and `en` are its words in the file's language, under that language's name, and English.

    Unknown keys are errors, and so are numbers and truths where words belong: YAML reads an unquoted `on` as true.
    """

    model_config = ConfigDict(extra="forbid", strict=True, populate_by_name=True)


class Determiner(Entry):
    own: FourOrNone
    en: Numbers
    weight: float = Field(1, gt=0)
    after: str = ""   # follows the noun and its adjectives: o gato preto dele
    owner: str | None = None   # the word among the lexemes: o gato da Ana


class Agreeing(Entry):
    own: Four
    en: Annotated[list[str], Field(min_length=2, max_length=2)]


class Person(Entry):
    """A name or a pronoun."""

    own: str
    en: str
    gender: Gender
    person: int = Field(2, ge=0, le=4)
    is_: list[str] = Field(alias="is")


class Noun(Entry):
    own: Numbers
    en: Numbers
    gender: Gender
    is_: list[str] = Field(alias="is", min_length=1)
    use: str = "any"
    in_: str | None = Field(None, alias="in")   # English of `em` before it: on the beach

    @model_validator(mode="after")
    def _both_languages_have_the_same_numbers(self) -> Noun:
        if [form is None for form in self.own] != [form is None for form in self.en] or self.own == [None, None]:
            raise ValueError(f"singular and plural in both languages or in neither, received {self.own} and {self.en}")
        return self


class Adjective(Entry):
    own: Four
    en: str
    be: str
    fits: list[str]
    unfit: list[str] = []
    scale: str | None = None
    more: Annotated[list[str], Field(min_length=2, max_length=2)] | None = None
    comparative: Four | None = None
    front: bool = False
    absolute: bool = False
    predicate: bool = False


class Verb(Entry):
    """A verb, with `tenses` that its conjugation does not have or has otherwise, and `flags` that patterns ask for.

    In the file both stand among the other keys: a list of five forms is a tense, `true` a flag.
    """

    own: str | None = None   # its infinitive, where the entry is called otherwise
    en: Annotated[list[str], Field(min_length=5, max_length=5)]   # base, he …, past, participle, -ing
    subject: list[str]
    object: list[str] | None = None
    kind: Literal["act", "event", "project", "state"] = "act"
    particle: str = ""
    prep: str = ""
    determiners: str | None = None
    where: list[str] = []
    how: list[str] = []
    because: list[str] = []
    despite: list[str] = []
    only: str | None = None
    plain: bool = False
    participle: Four | None = None
    tenses: dict[str, Persons] = {}
    flags: set[str] = set()

    @model_validator(mode="before")
    @classmethod
    def _sort_out(cls, entry: Any) -> Any:
        if not isinstance(entry, dict):
            return entry
        others = {key: value for key, value in entry.items() if key not in cls.model_fields}
        flags = {key for key, value in others.items() if value is True}
        tenses = {key: value for key, value in others.items() if isinstance(value, list)}
        return {key: value for key, value in entry.items() if key not in flags | tenses.keys()} | {
            "flags": flags, "tenses": tenses}

    def has(self, what: str) -> bool:
        """Whether it has a flag, or words under a key such as `because`."""
        return what in self.flags or bool(getattr(self, what, None))


class Helper(Entry):
    own: Persons
    en: Annotated[list[str], Field(min_length=4, max_length=4)]   # want to, wants to, and both denied
    only: Literal["affirmed", "denied"] | None = None


class Place(Entry):
    own: str
    en: str | None = None
    at: list[str]
    for_: list[str] = Field(alias="for")
    only: Literal["verbs"] | None = None
    number: Literal["singular", "plural"] | None = None


class Auxiliaries(Entry):
    own: dict[str, dict[str, Persons]]
    en: dict[str, dict[str, Persons]]


class Conjugation(Entry):
    """Endings in the place of the infinitive's own; its tenses may have any name."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Persons]
    participle: Four

    @property
    def tenses(self) -> dict[str, list[str]]:
        return self.__pydantic_extra__


class Slot(Entry):
    """What a slot of a pattern may hold. The key that is written first says what kind of thing that is."""

    verb: str | None = None   # transitive, intransitive, any; of a place: the slot of the verb that happens there
    kind: list[str] = []
    has: list[str] = []
    not_: list[str] = Field([], alias="not")
    noun: list[str] | None = None
    subject: str | None = None
    object: str | None = None
    like: str | None = None
    fits: str | None = None
    place: str | None = None
    adjective: str | None = None
    be: str | None = None
    graded: bool = False
    compared: bool = False
    attributive: bool = False
    contrast: str | None = None
    listed: list[str] | None = None
    phrase: str | None = None
    helper: Literal["affirmed", "denied"] | None = None
    manner: str | None = None
    names: bool | Literal["only"] | None = None
    pronouns: str | None = None
    determiners: str | None = None
    determiner: str | None = None
    number: Literal["singular", "plural"] | None = None
    plain: bool = False
    countable: bool = False
    only: list[str] = ALL

    holds: str = ""   # the key that is written first

    @model_validator(mode="before")
    @classmethod
    def _first_key(cls, options: Any) -> Any:
        return {"holds": next(iter(options)), **options} if isinstance(options, dict) and options else options

    @property
    def others(self) -> list[str]:
        """Slots that it asks about, which must be drawn before."""
        named = [self.subject, self.object, self.like, self.fits, self.place, self.adjective, self.contrast,
                 self.manner, *(self.listed or [])[:1], self.verb if self.holds == "place" else None]
        return [name for name in named if name is not None]


class Pattern(Entry):
    slots: dict[str, Slot]
    own: str
    en: str
    weight: float = Field(1, gt=0)


class Lexicon(Entry):
    """The whole file, as it is written."""

    determiners: dict[str, Determiner]
    determiner_sets: dict[str, list[str]]
    agreeing: dict[str, Agreeing] = {}
    names: dict[str, Person] = {}
    pronouns: dict[str, Person] = {}
    pronoun_sets: dict[str, list[str]] = {}
    nouns: dict[str, Noun]
    adjectives: dict[str, Adjective] = {}
    opposites: dict[str, str] = {}
    conjugations: dict[str, Conjugation] = {}
    auxiliaries: Auxiliaries
    verbs: dict[str, Verb] = {}
    helpers: dict[str, Helper] = {}
    places: dict[str, Place] = {}
    phrases: dict[str, dict[str, str]] = {}
    contractions: dict[str, dict[str, str]] = {}
    article_exceptions: dict[str, str] = {}
    patterns: dict[str, Pattern]
