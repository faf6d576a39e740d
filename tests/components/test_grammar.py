"""Grammar files: forms that agree, draws that repeat, and sentences about what cannot be."""

import re

import pytest
import yaml

from components import grammar_draw
from components.grammar import Grammar
from components.grammar_draw import Chance, Pair, draw_pair, expand, typed
from components.grammar_splits import combination, split
from modules.errors import TextrailError

TINY = """
language: es
determiners:
  the: {es: [el, la, los, las], en: [the, the]}
  a: {es: [un, una, ~, ~], en: [a, ~]}
determiner_sets: {subject: [the, a], object: [the], bare: [the], sure: [the], any: [the, a]}
pronouns: {yo: {es: yo, en: I, gender: m, person: 0, is: [person]}}
pronoun_sets: {any: [yo]}
nouns:
  gato: {es: [gato, gatos], en: [cat, cats], gender: m, is: [animal]}
  perro: {es: [perro, perros], en: [dog, dogs], gender: m, is: [animal]}
  actriz: {es: [actriz, actrices], en: [actress, actresses], gender: f, is: [person]}
  casa: {es: [casa, casas], en: [house, houses], gender: f, is: [building], in: in}
  jardín: {es: [jardín, jardines], en: [garden, gardens], gender: m, is: [building], in: in}
adjectives:
  viejo: {es: [viejo, vieja, viejos, viejas], en: old, be: ser, fits: [animal, building], more: [older, oldest]}
conjugations: {ir: {present: [o, es, e, imos, en], participle: [ido, ida, idos, idas]}}
auxiliaries:
  es: {ser: {present: [soy, eres, es, somos, son]}}
  en: {be: {present: [am, are, is, are, are]}}
verbs:
  dormir: {en: [sleep, sleeps, slept, slept, sleeping], subject: [animal, person], where: [inside], together: true,
           present: [duermo, duermes, duerme, dormimos, duermen]}
places: {inside: {es: dentro de, at: [building], for: [animal, person], number: singular}}
contractions: {de: {el: del}}
patterns:
  act:
    slots: {v: {verb: intransitive, has: [together]}, s: {subject: v, pronouns: any}, p: {place: s, verb: v}}
    es: "{s} {v present s} {p}."
    en: "{s} {v present s} {p}."
    weight: 3
  is so:
    slots: {s: {noun: [all]}, a: {adjective: s}}
    es: "{s} {ser present s} {a más s}."
    en: "{s} {be present s} {a more}."
"""


def made(text: str = TINY) -> Grammar:
    return Grammar(text, "tiny.yaml")


def changed(path: str, value) -> str:
    """The tiny grammar with another value at a path such as `nouns/gato/en`; None leaves the key out."""
    content = yaml.safe_load(TINY)
    *parts, last = path.split("/")
    entry = content
    for part in parts:
        entry = entry[part]
    if value is None:
        del entry[last]
    else:
        entry[last] = value
    return yaml.safe_dump(content, allow_unicode=True, sort_keys=False)


def test_another_language_says_all_that_it_can():
    texts = {typed(pair.own): typed(pair.en) for pair in expand(made(), 64, seed=3)}
    assert texts.items() >= {
        "el gato duerme dentro de la casa": "the cat sleeps in the house",
        "las actrices duermen dentro del jardín": "the actresses sleep in the garden",
        "yo duermo dentro de la casa vieja": "i sleep in the old house",
        "una casa es más vieja": "a house is older",
        "los gatos son más viejos": "the cats are older"}.items()


def test_a_seed_gives_the_same_pairs_and_a_short_expansion_is_the_beginning_of_a_long_one():
    pairs = expand(made(), 40, seed=1)
    assert pairs == expand(made(), 40, seed=1) and expand(made(), 10, seed=1) == pairs[:10]
    assert expand(made(), 40, seed=2) != pairs
    assert pairs[0] == Pair(own="Un perro viejo duerme dentro de la casa.", en="An old dog sleeps in the house.",
                            pattern="act", lexemes=("verb:dormir", "noun:perro", "attribute:viejo", "noun:casa"))


def test_contractions_and_articles():
    grammar = made(TINY + "article_exceptions: {honest: an, useful: a}\n")
    assert grammar.contract("cerca de el gato de la casa") == "cerca del gato de la casa"
    assert grammar.article("a old cat and a honest man with a useful house") == (
        "an old cat and an honest man with a useful house")


def test_a_sentence_with_and_without_capital_and_full_stop_is_one():
    assert typed("O gato dorme.") == typed("o gato dorme") == "o gato dorme"
    assert typed("O gato dorme?") == "o gato dorme?"


@pytest.mark.parametrize("path, value, said", [
    ("language", None, "with the key `language`"),
    ("nouns/gato/en", ["cat"], "nouns, gato, en: List should have at least 2 items"),
    ("nouns/gato/es", ["gato", None], "nouns, gato: singular and plural in both languages or in neither"),
    ("nouns/casa/in", None, "nouns, casa: no `in`, which the place 'inside' needs"),
    ("nouns/casa/in", True, "nouns, casa, in: Input should be a valid string"),
    ("nouns/gato/colour", "black", "nouns, gato, colour: Extra inputs are not permitted"),
    ("nouns/gato/use", "anny", "nouns, gato: there is no use 'anny', nearest is 'any'"),
    ("adjectives/viejo/fits", ["anymal"], "adjectives, viejo: there is no fits 'anymal', nearest is 'animal'"),
    ("verbs/dormir/where", ["inside", "outside"], "verbs, dormir: there is no where 'outside', nearest is 'inside'"),
    ("verbs/dormir/present", ["duermo"], "verbs, dormir, tenses, present: List should have at least 5 items"),
    ("verbs/dormir/presente", ["a"] * 5, "verbs, dormir: there is no tense 'presente', nearest is 'present'"),
    ("verbs/dormir/swims", True, "verbs, dormir: no pattern asks for its flag 'swims'"),
    ("verbs/poner", {"en": ["put", "puts", "put", "put", "putting"], "subject": ["person"]},
     "verbs, poner: no present, and no conjugation for its ending"),
    ("patterns/act/slots", {"v": {"werb": "intransitive"}}, "patterns, act, slots, v, werb: Extra inputs"),
    ("patterns/act/slots", {"s": {"subject": "v"}}, "patterns, act, s: there is no slot before it called 'v'"),
    ("patterns/act/slots/p/place", "q", "patterns, act, p: there is no slot before it called 'q'"),
    ("patterns/act/slots/v/has", ["tugether"], "patterns, act, v: there is no flag 'tugether', nearest is 'together'"),
    ("patterns/act/es", "{x} {v present s}.", "patterns, act, es: {x} is no slot of the pattern"),
    ("patterns/is so/en", "{s} {be presnt s} {a}.",
     "patterns, is so, en: {be presnt s} asks for a form of be that there is not, nearest is 'present'"),
])
def test_what_cannot_be_is_named_by_entry(path, value, said):
    with pytest.raises(TextrailError, match=re.escape(said)) as error:
        made(changed(path, value))
    assert "tiny.yaml" in str(error.value)


@pytest.mark.parametrize("path, value, said", [
    ("patterns/act/es", "{s} {v presente s} {p}.",
     "patterns, act: the form 'presente' of the verb dormir, which has 'present', 'participle'"),
    ("patterns/act/es", "{s} {v present} {p}.", "patterns, act: a form that agrees, and nothing that it agrees with"),
    ("patterns/act/en", "{s} {v gerund s} {p}.", "patterns, act: the form 'gerund' of the verb sleep"),
    ("places/inside/for", ["building"], "patterns, act: never drawn in 2,000 trials"),
    ("nouns/actriz", {"es": ["gato", "gatos"], "en": ["actor", "actors"], "gender": "m", "is": ["animal"]},
     "where a sentence has one translation"),
])
def test_what_shows_when_sentences_are_drawn(path, value, said):
    with pytest.raises(TextrailError, match=re.escape(said)) as error:
        expand(made(changed(path, value)), 60, seed=1)
    assert "tiny.yaml" in str(error.value)


def test_a_count_that_cannot_be_reached(monkeypatch):
    monkeypatch.setattr(grammar_draw, "PATIENCE", 1000)
    with pytest.raises(TextrailError, match=r"ran dry after \d\d of 10,000 pairs: lower data.count"):
        expand(made(), 10_000, seed=1)


def test_damaged_yaml():
    with pytest.raises(TextrailError, match=r"(?s)a grammar in YAML; received tiny.yaml: .*line 3"):
        made("language: es\nnouns: [\n")


def test_a_pattern_is_drawn_alone():
    pair = None
    while pair is None:
        pair = draw_pair(made(), "is so", Chance(1))
    assert pair.pattern == "is so" and combination(pair)[1] in ("adjective:viejo",)


def test_combinations():
    def of(*lexemes, pattern="p"):
        return combination(Pair("", "", pattern, lexemes))

    assert of("verb:dormir", "noun:gato", "attribute:preto", "noun:cadeira") == ("noun:gato", "verb:dormir")
    assert of("noun:cadeira", "adjective:partido") == ("noun:cadeira", "adjective:partido")
    assert of("noun:gato", "attribute:preto", "noun:cozinha") == ("noun:gato", "noun:cozinha")
    assert of("name:Ana", "noun:gato") == ("name:Ana", "noun:gato")
    assert of("noun:gato", pattern="where is") == ("noun:gato", "pattern:where is")
    assert of() is None


def test_splits_hold_combinations_and_translations_together():
    pairs = [Pair(f"o {noun} {verb} {place}", f"the {noun} {verb} {place // 2}", "act",
                  (f"verb:{verb}", f"noun:{noun}"))
             for noun in "abcdefgh" for verb in "abcdefgh" for place in range(20)]
    splits = split(pairs, seed=1, validation=0.1, test=0.2, unseen=0.2)
    assert splits == split(pairs, seed=1, validation=0.1, test=0.2, unseen=0.2) != split(pairs, 2, 0.1, 0.2, 0.2)
    english = [{pair.en for pair, _ in rows} for rows in splits.values()]
    assert not (english[0] & english[1] or english[0] & english[2] or english[1] & english[2])
    trained = {combination(pair) for pair, _ in splits["train"]}
    assert {slice_ for _, slice_ in splits["train"]} == {"seen"}
    assert {slice_ for _, slice_ in splits["test"]} == {"seen", "unseen"}
    assert all((combination(pair) in trained) == (slice_ == "seen") for pair, slice_ in splits["test"])
    assert sum(map(len, splits.values())) == len(pairs)   # no English side is shared with a combination held out
