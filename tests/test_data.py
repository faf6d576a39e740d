"""The texts that the project ships are what their pages say: counted, balanced, and no text in two splits."""

import csv
import re
from collections import Counter
from pathlib import Path

import pytest

from components.grammar import Grammar
from components.grammar_draw import WITH_ADJECTIVE, Chance, Pair, draw_pair, expand, typed
from components.grammar_splits import combination
from components.grammar_splits import split as split_pairs
from components.source_grammar import read_written
from tests import phrasebook_rules

DATA = Path(__file__).resolve().parents[1] / "data"
SPLITS = ("train", "validation", "test")


@pytest.mark.parametrize("name, texts, label", [
    ("reviews", ["review"], "sentiment"), ("paraphrases", ["first", "second"], "meaning")])
def test_shipped_texts(name, texts, label):
    page = (DATA / name / "README.md").read_text("utf-8")
    said = {split: int(number.replace(",", "")) for split, number in re.findall(r"`(\w+)\.csv` \| ([\d,]+)", page)}
    rows = {}
    for split in SPLITS:
        with (DATA / name / f"{split}.csv").open(encoding="utf-8", newline="") as file:
            rows[split] = list(csv.DictReader(file))
    assert {split: len(found) for split, found in rows.items()} == said
    assert f"{sum(said.values()):,}" in page
    for found in rows.values():
        counts = Counter(row[label] for row in found)
        assert len(counts) == 2 and len(set(counts.values())) == 1, counts
    seen = [{row[text] for row in rows[split] for text in texts} for split in SPLITS]
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])
    if "kind" in rows["train"][0]:
        kinds = Counter(row["kind"] for found in rows.values() for row in found)
        del kinds["paraphrase"]
        assert kinds == {kind: int(number) for kind, number in re.findall(r"^\| `(\w+)` \|.*\| (\d+) \|$", page, re.M)}


@pytest.fixture(scope="module")
def grammar() -> Grammar:
    path = DATA / "phrasebook" / "grammar.yaml"
    return Grammar(path.read_text("utf-8"), str(path))


@pytest.fixture(scope="module")
def drawn(grammar) -> list[Pair]:
    """As many pairs as the page promises."""
    return expand(grammar, 24_000, seed=1)


@pytest.fixture(scope="module")
def written() -> list[Pair]:
    path = DATA / "phrasebook" / "pairs.tsv"
    return read_written(path.read_text("utf-8"), str(path), "pt")


def test_phrasebook_words_have_the_forms_that_their_endings_ask_for(grammar):
    assert list(phrasebook_rules.lexicon(grammar.words)) == []


def test_phrasebook_sentences_agree(grammar, drawn):
    assert list(phrasebook_rules.sentences(grammar.words, drawn[:6000])) == []


def test_rules_of_the_phrasebook_find_what_breaks_them(grammar):
    broken = [("As cadeira são velhas.", "The chairs are old."), ("A cadeira está partido.", "The chair is broken."),
              ("O gato dormem.", "The cat sleeps."), ("Muitos gatos dormem.", "Many cat sleep."),
              ("Ele está em a cozinha.", "He is in the kitchen."), ("Este é um ovo.", "This is a egg.")]
    for own, en in broken:
        assert list(phrasebook_rules.sentences(grammar.words, [Pair(own, en, "", ())])), own


def test_phrasebook_uses_all_its_words_and_patterns(grammar, drawn):
    words = grammar.words
    assert {pair.pattern for pair in drawn} == set(words.patterns)
    used = {lexeme.replace("attribute:", "adjective:") for pair in drawn for lexeme in pair.lexemes}
    for kind, keys in (("noun", words.nouns), ("adjective", words.adjectives), ("name", words.names),
                       ("helper", words.helpers), ("verb", {verb.own or key for key, verb in words.verbs.items()})):
        assert {f"{kind}:{key}" for key in keys} <= used


def test_phrasebook_is_what_its_page_says(grammar, drawn, written):
    page, words = (DATA / "phrasebook" / "README.md").read_text("utf-8"), grammar.words
    assert len({typed(pair.own) for pair in drawn}) == len(drawn) >= 20_000 and len(written) >= 700
    counted = re.findall(r"(\d+) (pairs written|nouns|adjectives|verbs|patterns)", page.replace("\n", " "))
    assert counted == [(str(len(found)), what) for found, what in (
        (written, "pairs written"), (words.nouns, "nouns"), (words.adjectives, "adjectives"), (words.verbs, "verbs"),
        (words.patterns, "patterns"))]
    splits = split_pairs([*drawn, *written], seed=1)
    for name, rows in splits.items():
        slices = Counter(row.slice for row in rows)
        numbers = [len(rows), slices["seen"], slices["unseen"], slices["written"]]
        assert f"| {name} | {' | '.join(f'{number:,}' for number in numbers)} |" in page


def test_no_sentence_of_the_phrasebook_is_in_two_splits_and_no_unseen_combination_in_training(drawn, written):
    splits = split_pairs([*drawn, *written], seed=1)
    for side in ("own", "en"):
        train, validation, test = ({typed(getattr(pair, side)) for pair, _ in rows} for rows in splits.values())
        assert not (train & validation or train & test or validation & test)
    trained = {combination(pair) for pair, _ in splits["train"]}
    for pair, slice_ in splits["test"]:
        assert slice_ == ("written" if not pair.lexemes else "seen" if combination(pair) in trained else "unseen")


def test_written_pairs_are_whole_distinct_sentences_in_one_orthography(written):
    for side in ("own", "en"):
        texts = [getattr(pair, side) for pair in written]
        assert len(set(map(typed, texts))) == len(texts)
        for text in texts:
            assert 3 <= len(text.split()) <= 24 and text[-1] in ".?!" and text[0].isupper() and text == text.strip()
    assert [pair.own for pair in written if phrasebook_rules.NOT_EUROPEAN_1990.search(pair.own)] == []


def test_a_sentence_aimed_at(grammar):
    class Aim(Chance):
        """Picks the given words in turn where they are among the choices, the first choice elsewhere; adjectives
        always."""

        def __init__(self, *words: str):
            super().__init__(seed=0)
            self.words = list(words)

        def happens(self, probability):
            return probability == WITH_ADJECTIVE

        def pick(self, options, weights=None):
            for option in options:
                if self.words and self.words[0] == (option[0] if isinstance(option, tuple) else option):
                    self.words.pop(0)
                    return option
            return options[0]

    aim = Aim("dormir", "gato", "preto", "on a seat", "cadeira", "velho")
    assert draw_pair(grammar, "act somewhere", aim)[:2] == (
        "O gato preto dorme em cima da cadeira velha.", "The black cat sleeps on the old chair.")


def test_essays_are_distinct_prose_and_as_many_as_their_page_says():
    page, files = (DATA / "essays" / "README.md").read_text("utf-8"), sorted((DATA / "essays").glob("*.txt"))
    texts = [file.read_bytes().decode("utf-8") for file in files]
    words = [len(text.split()) for text in texts]
    assert sum(words) >= 60_000
    assert f"{len(files)} short English essays, {sum(words):,} words" in page
    assert f"from {min(words)} to {max(words):,} words" in page
    paragraphs = [line for text in texts for line in text.splitlines() if line]
    assert len(set(paragraphs)) == len(paragraphs)   # nor are two titles the same
    for file, text in zip(files, texts, strict=True):
        title, blank, *_ = text.split("\n")
        assert 0 < len(title) < 60 and not blank and text.endswith("\n") and not text.endswith("\n\n"), file.name
        assert re.fullmatch("[A-Z]", title[0]) and "\n\n\n" not in text, file.name
        assert set(re.findall(r"[^\w\s.,;:!?'\"()/%&+—–-]", text)) <= set("$£₹°½"), file.name
    # A run of words that two essays share is a text used twice.
    seen: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        split = re.findall(r"\w+", text.lower())
        seen.update({tuple(split[i:i + 12]) for i in range(len(split) - 11)})
    assert seen.most_common(1)[0][1] == 1
