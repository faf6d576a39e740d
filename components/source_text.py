"""Documents of plain text files, plain or gzipped: one a file, one a block between blank lines, or one a line."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import NamedTuple

from components import files
from components.rows import BadRow, Piece, Row
from components.source_csv import PREVIEW_BYTES, open_text
from components.split_files import find_split_files, split_fingerprint, text_size
from modules.errors import TextrailError

PIECE_BYTES = 64 << 20        # Text aimed at in a piece: small files together, a large one in parts.
LONGEST_LINE = 1 << 20        # Bytes. Prose has no longer one; an unbroken dump of something else has.
LONGEST_DOCUMENT = 16 << 20   # Bytes. Ten novels; a document must fit into the memory, with what becomes of it.
HEAD_BYTES = 4 << 10          # In which a NUL byte makes a file binary.

# How files begin that are taken for text most often.
FORMATS = {b"%PDF": "a PDF", b"PK\x03\x04": "a zip file, as .docx, .odt and .epub are", b"{\\rtf": "an RTF file",
           b"\xd0\xcf\x11\xe0": "an old Word file", b"BZh": "a bzip2 file", b"\xfd7zXZ": "an xz file",
           b"\x28\xb5\x2f\xfd": "a Zstandard file", b"\x89PNG": "an image", b"\xff\xd8\xff": "an image"}


class Part(NamedTuple):
    """What is read of one file.

    Attributes:
        path: of the file.
        start: byte from which on documents begin that are this part's.
        stop: byte from which on they are the next one's; none reads to the end.
    """

    path: str
    start: int = 0
    stop: int | None = None


class TextSource:
    """Documents of text files; a row is one document, and holds the text as it stands in the file.

    Blank lines and white space at either end of a document belong to none. Large files are read in parts by several
    workers, gzipped ones from start to end.

    Args:
        data: `sections.Data` as a dict; of its keys `path` and `documents`: `file`, `block` (lines between blank
            lines) or `line`.
    """

    def __init__(self, data: dict):
        self._path, self._documents = data["path"], data["documents"]

    def fingerprint(self) -> str:
        """Hex digest of the files' paths and contents.

        Raises:
            TextrailError: no file matches, or one belongs to two splits.
        """
        return split_fingerprint(self._path)

    def pieces(self) -> list[Piece]:
        """Parts of files, as many to a piece as make `PIECE_BYTES`.

        Raises:
            TextrailError: no file matches, all are empty, or one belongs to two splits.
        """
        found = find_split_files(self._path)
        if not any(file.size for _, file in found):
            raise TextrailError(f"text at {self._path}", f"{len(found)} of 0 bytes, the first {found[0][1].path}",
                                "Correct data.path.")
        groups: list[tuple[str | None, int, list[tuple]]] = []   # Split, size, parts.
        for owner, file in found:
            for part, size in self._parts(file):
                if not groups or groups[-1][0] != owner or groups[-1][1] + size > PIECE_BYTES:
                    groups.append((owner, 0, []))
                _, held, parts = groups[-1]
                parts.append(tuple(part))
                groups[-1] = owner, held + size, parts
        return [Piece(split, size, tuple(parts)) for split, size, parts in groups]

    def _parts(self, file: files.File) -> Iterator[tuple[Part, int]]:
        """The parts that a file is read in, with their sizes."""
        if file.path.endswith(".gz"):
            yield Part(file.path), text_size(file)
        elif file.size <= PIECE_BYTES or self._documents == "file" or _is_gzip(file):
            yield Part(file.path), file.size
        else:
            starts = range(0, file.size, PIECE_BYTES)
            for start, stop in zip(starts, [*starts[1:], None], strict=True):
                yield Part(file.path, start, stop), (stop or file.size) - start

    def read(self, piece: Piece) -> Iterator[Row | BadRow]:
        """Every document of a piece, usable or not.

        Raises:
            TextrailError: a file is no text, or a broken gzip file.
        """
        for where in piece.where:
            part = Part(*where)
            with open_text(part.path) as stream:
                if part.start == 0:
                    _check_is_text(part.path, stream)
                yield from _KINDS[self._documents](_Lines(stream, part), part)


class _Line(NamedTuple):
    """A line of a file.

    Attributes:
        start: byte where it begins.
        content: its bytes with the line end; of a line that is too long the first `LONGEST_LINE`.
        is_whole: whether `content` is all of it.
    """

    start: int
    content: bytes
    is_whole: bool

    @property
    def is_blank(self) -> bool:
        return not self.content or self.content.isspace()


class _Lines:
    """The lines of a file from the first that begins at `part.start` or behind it; counts them from there."""

    def __init__(self, stream: io.BufferedReader, part: Part):
        self._stream, self.path = stream, part.path
        self.number = 0   # of the line returned last, counted from 1
        if part.start:
            stream.seek(part.start - 1)
        self._at = stream.tell()
        if part.start:   # The line before, or what is left of it.
            self._next()
        self._first = self._at

    def __iter__(self) -> Iterator[_Line]:
        while (line := self._next()).content:
            self.number += 1
            yield line

    def _next(self) -> _Line:
        start, content = self._at, self._stream.readline(LONGEST_LINE)
        self._at += len(content)
        rest, is_whole = content, True
        while len(rest) == LONGEST_LINE and not rest.endswith(b"\n"):
            rest = self._stream.readline(LONGEST_LINE)
            self._at += len(rest)
            is_whole = is_whole and not rest   # Nothing may follow.
        return _Line(start, content, is_whole)

    def before(self) -> int:
        """How many lines of the file come before the first of these. Reads the file again; only errors need it."""
        count, left = 0, self._first
        with files.open_file(self.path) as stream:
            while self.number and left and (block := stream.read(min(left, 1 << 20))):
                count, left = count + block.count(b"\n"), left - len(block)
        return count


class _Document:
    """A document that is read line by line."""

    def __init__(self, lines: _Lines):
        self._lines, self._size = lines, 0
        self._held: list[bytes] = []
        self._first = self._start = 0
        self._reason: tuple[int, str] | None = None   # and the line it is about
        self._preview = b""

    def add(self, line: _Line) -> None:
        if not self._first:
            self._first, self._start, self._preview = self._lines.number, line.start, line.content[:PREVIEW_BYTES]
        self._size += len(line.content)
        if not self._reason and not line.is_whole:
            self._fail(self._lines.number, f"a line of more than {LONGEST_LINE:,} bytes, at byte {line.start:,}")
        elif not self._reason and self._size > LONGEST_DOCUMENT:
            self._fail(self._first, f"a document of more than {LONGEST_DOCUMENT:,} bytes (data.documents says where "
                                    "one ends)")
        elif not self._reason:
            self._held.append(line.content)

    def _fail(self, line: int, reason: str) -> None:
        self._reason = line, reason
        self._held.clear()

    def close(self) -> Iterator[Row | BadRow]:
        """The document, or why it cannot be used; nothing if it had no line."""
        if not self._first:
            return
        content = b"".join(self._held)
        if not self._reason and not content.strip():
            self._fail(self._first, "an empty document")
        if not self._reason and b"\0" in content:
            self._fail_at(content, content.index(b"\0"), "a NUL byte", "")
        if not self._reason:
            try:
                content.decode()
            except UnicodeDecodeError as error:
                byte = content[error.start:error.start + 1]
                self._fail_at(content, error.start, "invalid UTF-8",
                              f": 0x{byte.hex()}, {byte.decode('latin-1')!r} in Latin-1")
        if not self._reason:
            yield (content.strip(),)
            return
        line, reason = self._reason
        before = self._lines.before()
        yield BadRow(self._lines.path, before + line, before + line, reason,
                     self._preview.decode("utf-8", "backslashreplace").rstrip("\r\n"))

    def _fail_at(self, content: bytes, at: int, what: str, more: str) -> None:
        begin = content.rfind(b"\n", 0, at) + 1
        self._preview = content[begin:begin + PREVIEW_BYTES].split(b"\n")[0]
        self._fail(self._first + content.count(b"\n", 0, at), f"{what} at byte {self._start + at:,}{more}")


def _one_a_file(lines: _Lines, part: Part) -> Iterator[Row | BadRow]:
    document = _Document(lines)
    empty = True
    for line in lines:
        document.add(line)
        empty = False
    if empty:
        yield BadRow(part.path, 1, 1, "an empty document", "")
    yield from document.close()


def _one_a_block(lines: _Lines, part: Part) -> Iterator[Row | BadRow]:
    """The parts of a file meet at the first blank line that begins at the byte between them or behind it."""
    document = _Document(lines)
    is_ours = part.start == 0
    for line in lines:
        if line.is_blank:
            if part.stop is not None and line.start >= part.stop:
                break
            if is_ours:
                yield from document.close()
                document = _Document(lines)
            is_ours = True
        elif is_ours:
            document.add(line)
    yield from document.close()


def _one_a_line(lines: _Lines, part: Part) -> Iterator[Row | BadRow]:
    for line in lines:
        if part.stop is not None and line.start >= part.stop:
            return
        if not line.is_blank:
            document = _Document(lines)
            document.add(line)
            yield from document.close()


_KINDS: dict[str, Callable[[_Lines, Part], Iterator[Row | BadRow]]] = {
    "file": _one_a_file, "block": _one_a_block, "line": _one_a_line}
DOCUMENTS = tuple(_KINDS)   # What `data.documents` can be.


def _is_gzip(file: files.File) -> bool:
    with files.open_file(file.path) as stream:
        return stream.read(2) == b"\x1f\x8b"


def _check_is_text(path: str, stream: io.BufferedReader) -> None:
    """Refuses a file that is none of text.

    Raises:
        TextrailError: it begins as another format does, or has NUL bytes near its start.
    """
    head = stream.peek(HEAD_BYTES)[:HEAD_BYTES]
    found = next((name for start, name in FORMATS.items() if head.startswith(start)), None)
    if found is None and b"\0" in head:
        found = f"a binary file, with a NUL at byte {head.index(0):,}"
    if found:
        raise TextrailError(f"plain text (UTF-8) in {path}", found,
                            "Convert it to plain text, or have data.path leave it out.")
