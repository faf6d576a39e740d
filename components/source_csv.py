"""Rows of CSV and TSV files (RFC 4180), plain or gzipped."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from components import files
from components.rows import NUL, BadRow, Piece, Row, checked_row, column_keys, wanted
from components.split_files import find_split_files, split_fingerprint, text_size
from modules.errors import TextrailError

MAX_FIELD = 16 << 20   # Characters. A field beyond this is a quote nobody closed, and must not fill the memory.
PREVIEW_BYTES = 80     # How much of a bad row is shown.

STRAY_RETURN = "a carriage return outside quotes"

Parsed = tuple[int, "list[str] | str"]   # Line where a row starts, and its fields or the reason why there are none.


class CsvSource:
    """Rows of CSV files: columns by name, from a header row or the settings, each file read from start to end.

    Lines end with LF or CRLF; inside quotes both, and a lone CR, belong to the text. Lines with nothing on them are
    not rows. Every other line is part of a row that is either returned or reported.

    Args:
        data: `sections.Data` as a dict; of its keys `path`, those that name columns (`rows.ROLES`), `label_names`,
            `columns`, `delimiter`, `quoting`.
    """

    def __init__(self, data: dict):
        self._path = data["path"]
        self._columns = wanted(data)
        self._label_names = data.get("label_names")
        self._header = data.get("columns") or []
        self._delimiter = data.get("delimiter", "auto")
        self._quoting = data.get("quoting", "standard")

    def fingerprint(self) -> str:
        """Hex digest of the files' paths and contents.

        Raises:
            TextrailError: no file matches, or one belongs to two splits.
        """
        return split_fingerprint(self._path)

    def pieces(self) -> list[Piece]:
        """One piece a file.

        Raises:
            TextrailError: no file matches, or one belongs to two splits.
        """
        return [Piece(split, text_size(file), (file.path,)) for split, file in find_split_files(self._path)]

    def read(self, piece: Piece) -> Iterator[Row | BadRow]:
        """Every row of a file, usable or not.

        Raises:
            TextrailError: the header lacks a column, a quote swallows lines, or the file is not text or a broken gzip
                file.
        """
        path, = piece.where
        with open_rows(path, self._delimiter, self._quoting) as (rows, lines):
            columns, width = self._places(rows, path)
            for line, fields in rows:
                if isinstance(fields, str):
                    yield BadRow(path, line, lines.number, fields, lines.preview())
                elif len(fields) != width:
                    where = "data.columns" if self._header else "the header"
                    reason = f"{len(fields)} columns where {where} has {width}"
                    yield BadRow(path, line, lines.number, reason, lines.preview())
                else:
                    try:
                        yield checked_row([fields[column] for column in columns], self._columns, self._label_names)
                    except ValueError as reason:
                        yield BadRow(path, line, lines.number, str(reason), lines.preview())

    def _places(self, rows: Iterator[Parsed], path: str) -> tuple[list[int], int]:
        """Reads the header, if any. Returns the places of the wanted columns and how many columns there are."""
        header: list[str] | str = self._header
        if not header:
            _, header = next(rows, (0, "an empty file"))
        if isinstance(header, str):
            raise TextrailError(f"a header row in {path}", header, "Give the file a first row with the column names, "
                                "or name them in data.columns.")
        for name in self._columns.names:
            if header.count(name) != 1:
                found = ", ".join(repr(column) for column in header)
                what = "several of that name" if name in header else files.nearest(name, header).lstrip(", ")
                raise TextrailError(
                    f"one column '{name}' in {path}", f"the columns {found}{what and f' ({what})'}",
                    f"Correct {column_keys(self._columns)}; one column only may point to data.delimiter, a row in the "
                    "place of names to data.columns.")
        return [header.index(name) for name in self._columns.names], len(header)


def separator(delimiter: str, path: str) -> str:
    """The character between the columns of a file, by `data.delimiter`: `auto` goes by the file's name."""
    if delimiter == "auto":
        return "\t" if path.removesuffix(".gz").endswith(".tsv") else ","
    return "\t" if delimiter == "tab" else delimiter


@contextmanager
def open_rows(path: str, delimiter: str, quoting: str) -> Iterator[tuple[Iterator[Parsed], _Lines]]:
    """Opens a file, plain or gzipped, for reading its header and rows.

    Args:
        path: of the file.
        delimiter: `data.delimiter` of the settings.
        quoting: `data.quoting` of the settings.

    Yields:
        The rows, header first, and the lines they are read from.

    Raises:
        TextrailError: the file is not text or a broken gzip file.
    """
    with open_text(path) as stream:
        lines = _Lines(stream, path)
        parse = _parse_quoted if quoting == "standard" else _parse_unquoted
        yield parse(lines, separator(delimiter, path)), lines


class _Lines:
    """The decoded lines of a file, which remembers how the current row began.

    Invalid bytes become lone surrogates and NUL becomes `rows.NUL`, for `rows.checked_row` to find.
    """

    def __init__(self, stream: io.BufferedReader, path: str):
        self._stream, self.path = stream, path
        self._start = b""
        self.number = 0   # of the line returned last, counted from 1
        self.begin_row()

    def begin_row(self) -> None:
        """Tells that the next line starts a row."""
        self._begins = True

    def preview(self) -> str:
        """The first characters of the current row as they stand in the file."""
        return self._start.decode("utf-8", "backslashreplace").rstrip("\r\n")

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        raw = self._stream.readline(MAX_FIELD)
        if not raw:
            raise StopIteration
        self.number += 1
        if len(raw) == MAX_FIELD and not raw.endswith(b"\n"):
            raise TextrailError(f"text with line ends in {self.path}", f"{MAX_FIELD} bytes without one after line "
                                f"{self.number - 1}", "Is it a table of text, with LF or CRLF at the end of its rows?")
        if self._begins:
            self._start, self._begins = raw[:PREVIEW_BYTES], False
        line = raw.decode("utf-8", "surrogateescape")
        return line.replace("\0", NUL) if b"\0" in raw else line


def _parse_quoted(lines: _Lines, delimiter: str) -> Iterator[Parsed]:
    """Rows as RFC 4180 writes them. After a malformed row, parsing goes on with the next line.

    Raises:
        TextrailError: a misplaced quote made one row of several lines. Those are rows of their own, and nobody could
            tell how many were lost if they passed for a single bad one.
    """
    csv.field_size_limit(MAX_FIELD)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        lines.begin_row()
        start = lines.number + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            reason = _reason(str(error))
            if lines.number > start and reason != STRAY_RETURN:
                raise TextrailError(
                    f"rows with quotes that match in {lines.path}",
                    f"lines {start} to {lines.number} as one row, beginning {lines.preview()!r}: {reason}",
                    "Mend the quote, or set data.quoting=none if quotes are ordinary characters there.") from error
            yield start, reason
        else:
            if fields:
                yield start, fields


def _reason(error: str) -> str:
    """The csv module's complaint in words that say what to look for."""
    if "unexpected end" in error:
        return "a quote that is never closed"
    if "field limit" in error:
        return f"a quote that is not closed within {MAX_FIELD} characters"
    if "new-line character" in error:
        return STRAY_RETURN
    return "text after a closing quote (a quote inside quotes is written twice)"


def _parse_unquoted(lines: _Lines, delimiter: str) -> Iterator[Parsed]:
    """Rows without quoting: a row is a line, and quotes are ordinary characters."""
    lines.begin_row()
    for line in lines:
        line = line.removesuffix("\n").removesuffix("\r")
        if line:
            yield lines.number, line.split(delimiter)
        lines.begin_row()


def _buffered(raw: Any) -> io.BufferedReader:
    return io.BufferedReader(raw, 1 << 20)


@contextmanager
def open_text(path: str) -> Iterator[io.BufferedReader]:
    """Opens a file for reading lines of UTF-8: gzip undone, byte order mark passed over."""
    with files.open_file(path) as raw:
        stream = _buffered(raw)
        try:
            # By content, for not every gzip file is named so.
            if stream.peek(2)[:2] == b"\x1f\x8b":
                stream = _buffered(gzip.GzipFile(fileobj=stream))
            mark = stream.peek(3)[:3]
            if mark[:2] in (b"\xff\xfe", b"\xfe\xff"):
                raise TextrailError(f"UTF-8 in {path}", "UTF-16", f"Convert it: iconv -f utf-16 -t utf-8 {path}")
            if mark == b"\xef\xbb\xbf":
                stream.read(3)
            yield stream
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise TextrailError(f"a complete gzip file at {path}", f"one that breaks off ({error})",
                                "Fetch or write the file again.") from error
