"""Rows of sentence pairs that a grammar draws, and of pairs written by hand beside it."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator
from functools import lru_cache

from components import files
from components.grammar import Grammar
from components.grammar_draw import Pair, expand, typed
from components.grammar_splits import WRITTEN, SlicedPair, split
from components.rows import SPLITS, BadRow, Piece, Row, checked_row, column_keys, wanted
from modules.errors import TextrailError

PAIR_BYTES = 80   # Text of a pair, about.


class GrammarSource:
    """Pairs of a grammar, drawn anew by each process and the same every time; one piece a split.

    Columns are the grammar's language and `en` (for `pt` either may be the source), `slice` (`seen`, `unseen` or
    `written`, see `grammar_splits`) and `pattern`.

    Args:
        data: `sections.Data` as a dict; of its keys `path`, `pairs`, `count`, `seed` and those that name columns.
    """

    def __init__(self, data: dict):
        self._path, self._pairs = data["path"], data.get("pairs")
        self._count, self._seed = data["count"], data["seed"]
        self._columns = wanted(data)

    def fingerprint(self) -> str:
        """Hex digest of the files' contents, the count and the seed.

        Raises:
            TextrailError: a file is not there.
        """
        digest = hashlib.sha256(f"{self._count} {self._seed}\n".encode())
        for path in (self._path, self._pairs):
            digest.update(b"none\n" if path is None else f"{files.content_hash(_file(path))}\n".encode())
        return digest.hexdigest()

    def pieces(self) -> list[Piece]:
        """One piece a split.

        Raises:
            TextrailError: a file is not there, or is no grammar or table of pairs.
        """
        return [Piece(name, PAIR_BYTES * len(rows), (name,)) for name, rows in self._expanded()[1].items()]

    def read(self, piece: Piece) -> Iterator[Row | BadRow]:
        """Every pair of a split, in the order in which they were drawn, then those written by hand.

        Raises:
            TextrailError: as `pieces`, or a column that there is not.
        """
        language, splits = self._expanded()
        known = [language, "en", "slice", "pattern"]
        for name in self._columns.names:
            if name not in known:
                raise TextrailError(f"one of the columns {', '.join(known)} of {self._path}",
                                    f"{name!r}{files.nearest(name, known)}", f"Correct {column_keys(self._columns)}.")
        for pair, sliced in splits[piece.where[0]]:
            values = dict(zip(known, (pair.own, pair.en, sliced, pair.pattern), strict=True))
            yield checked_row([values[name] for name in self._columns.names], self._columns)

    def _expanded(self) -> tuple[str, dict[str, list[SlicedPair]]]:
        return _expanded(self._path, _text(self._path), self._pairs, _text(self._pairs) if self._pairs else "",
                         self._count, self._seed)


# By the texts, so that a changed file is expanded anew; once a process, since that takes seconds.
@lru_cache(maxsize=1)
def _expanded(path: str, text: str, pairs_path: str | None, pairs_text: str, count: int, seed: int
              ) -> tuple[str, dict[str, list[SlicedPair]]]:
    """The grammar's language, and the pairs of each split."""
    grammar = Grammar(text, path)
    drawn = expand(grammar, count, seed)
    written = read_written(pairs_text, pairs_path, grammar.language) if pairs_path else []
    distinct: dict[str, Pair] = {}
    for pair in [*drawn, *written]:
        distinct.setdefault(typed(pair.own), pair)
    splits = split(distinct.values(), seed)
    return grammar.language, {name: splits[name] for name in SPLITS}


def read_written(text: str, path: str, language: str) -> list[Pair]:
    """The pairs of a table of pairs, as pairs without lexemes.

    Args:
        text: lines of `sentence<TAB>translation`; the first names the columns.
        path: of the table, for errors.
        language: of the grammar, and of one of the columns.

    Raises:
        TextrailError: other columns, or a line without two sentences.
    """
    rows = list(csv.reader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE))
    header = rows[0] if rows else []
    if sorted(header) != sorted([language, "en"]):
        raise TextrailError(f"the columns {language} and en in {path}, named in its first line", f"{header}",
                            "Correct that line.")
    pairs = []
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != 2 or not all(map(str.strip, row)):
            raise TextrailError(f"two sentences with a tab between them in {path}, line {number}", f"{row}",
                                "Mend that line.")
        values = dict(zip(header, row, strict=True))
        pairs.append(Pair(values[language], values["en"], WRITTEN, ()))
    return pairs


def _file(path: str) -> files.File:
    found = files.find(path)
    if len(found) != 1:
        raise TextrailError(f"a file at {path}", f"{len(found)} of them" if found else files.describe_missing(path),
                            "Correct data.path or data.pairs.")
    return found[0]


def _text(path: str) -> str:
    with files.open_file(_file(path).path) as stream:
        content = stream.read()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TextrailError(f"UTF-8 in {path}", str(error), "Save it as UTF-8 text.") from None
