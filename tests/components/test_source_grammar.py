"""Rows that a grammar draws: columns, splits, slices, and what is wrong with the table beside it."""

import pytest

from components import source_grammar
from components.source_grammar import GrammarSource
from components.sources import data_fingerprint, make_source
from modules.errors import TextrailError
from tests.components.test_grammar import TINY

WRITTEN = "es\ten\nBuenos días, señora.\tGood morning, madam.\nEl gato duerme dentro de la casa.\tWritten anew.\n"


@pytest.fixture
def data(tmp_path):
    (tmp_path / "grammar.yaml").write_text(TINY, "utf-8")
    (tmp_path / "pairs.tsv").write_text(WRITTEN, "utf-8")
    return {"source": "grammar", "path": str(tmp_path / "grammar.yaml"), "pairs": str(tmp_path / "pairs.tsv"),
            "count": 40, "seed": 1, "text": "es", "target": "en", "slice": "slice"}


def rows_of(data):
    source = make_source(data)
    return {piece.split: list(source.read(piece)) for piece in source.pieces()}


def test_rows_of_three_splits_with_slices(data):
    rows = rows_of(data)
    assert list(rows) == ["train", "validation", "test"]
    everything = [row for found in rows.values() for row in found]
    assert len(set(everything)) == len(everything) == 41   # what the grammar draws is not taken from the table again
    assert ("Buenos días, señora.".encode(), b"Good morning, madam.", b"written") in everything
    assert {row[2] for row in rows["train"]} <= {b"seen", b"written"}


def test_either_language_may_be_the_source_and_pairs_may_be_absent(data):
    there, back = rows_of(data), rows_of(data | {"text": "en", "target": "es", "slice": "pattern"})
    assert [row[:2] for row in there["train"]] == [row[1::-1] for row in back["train"]]
    assert {row[2] for row in back["train"]} == {b"act", b"is so", b"written"}
    assert sum(map(len, rows_of(data | {"pairs": None, "slice": None}).values())) == 40


def test_a_process_expands_once_until_something_changes(data, monkeypatch):
    calls = []
    drawn = source_grammar.expand
    monkeypatch.setattr(source_grammar, "expand", lambda *given: calls.append(given) or drawn(*given))
    first = rows_of(data)
    assert rows_of(data) == first and len(calls) == 1
    rows_of(data | {"count": 41})
    assert len(calls) == 2


def test_fingerprint_sees_files_count_and_seed(data, tmp_path):
    first = data_fingerprint(data)
    assert data_fingerprint(dict(data)) == first
    others = [data_fingerprint(data | change) for change in ({"count": 41}, {"seed": 2}, {"pairs": None})]
    (tmp_path / "pairs.tsv").write_text(WRITTEN + "Adiós.\tGoodbye.\n", "utf-8")
    assert len({first, data_fingerprint(data), *others}) == 5


def test_a_column_that_there_is_not(data):
    with pytest.raises(TextrailError, match=r"one of the columns es, en, slice, pattern of .*; received 'pt'"):
        rows_of(data | {"text": "pt"})


@pytest.mark.parametrize("text, said", [
    ("es\tfr\n", "the columns es and en"), ("", "the columns es and en"),
    ("es\ten\nUno.\n", "two sentences with a tab between them in .*, line 2"),
    ("en\tes\nOne.\tUno.\nTwo. \t \n", "line 3")])
def test_a_table_that_is_none(data, tmp_path, text, said):
    (tmp_path / "pairs.tsv").write_text(text, "utf-8")
    with pytest.raises(TextrailError, match=said):
        rows_of(data)


def test_files_that_are_not_there(data, tmp_path):
    with pytest.raises(TextrailError, match=r"a file at .*gramar.yaml; received no 'gramar.yaml' in .*nearest is"):
        GrammarSource(data | {"path": str(tmp_path / "gramar.yaml")}).fingerprint()
    (tmp_path / "pairs.tsv").write_bytes(b"es\ten\nma\xf1ana\tx\n")
    with pytest.raises(TextrailError, match=r"UTF-8 in .*pairs.tsv"):
        rows_of(data)
