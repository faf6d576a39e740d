"""What every source of rows has in common, so that another one is one more file beside this."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

SPLITS = ("train", "validation", "test")
NUL = "\udc00"   # Stands for a NUL byte while a line is text: Python 3.10's csv module refuses the real one.

Row = tuple[bytes, ...]   # UTF-8 values of the wanted columns: text, (second text,) label.


class BadRow(NamedTuple):
    """A row that cannot be used.

    Attributes:
        file: path of its file.
        line: where it starts: the physical line, counted from 1, in a text file; the record's number, counted
            from 0, in a file of records.
        last_line: where it ends, the same as `line` for most.
        reason: what is wrong with it.
        row: its beginning.
        offset: in a file of records, the byte where the record begins, once the file is uncompressed.
    """

    file: str
    line: int
    last_line: int
    reason: str
    row: str
    offset: int | None = None

    def __str__(self) -> str:
        where = f"line {self.line}" if self.last_line == self.line else f"lines {self.line} to {self.last_line}"
        if self.offset is not None:
            where = f"record {self.line} at byte {self.offset}"
        return f"{self.file}, {where}: {self.reason}: {self.row!r}"


class Piece(NamedTuple):
    """A part of the input that one worker reads from start to end.

    Attributes:
        split: name of the split its rows belong to; none where a hash of each row decides.
        size: estimated bytes of text, uncompressed.
        where: what the source needs to find the part again.
    """

    split: str | None
    size: int
    where: tuple


class Source(Protocol):
    """Where rows come from. Objects travel to Beam workers by pickling, so they hold settings and nothing open."""

    def fingerprint(self) -> str:
        """Hex digest that changes when the data does. Light: no TensorFlow unless something must be downloaded."""

    def pieces(self) -> list[Piece]:
        """The parts of the input, in an order that is the same every time."""

    def read(self, piece: Piece) -> Iterator[Row | BadRow]:
        """Every row of a part, usable or not, holding only a few of them in memory."""


def wanted(data: dict) -> list[str]:
    """Names of the columns that are read, in the order of a row's values: text, (second text,) label."""
    return [name for name in (data["text"], data.get("text_pair"), data["label"]) if name is not None]


def empty_text(name: str) -> str:
    """The reason of a bad row whose text in column `name` is missing or blank."""
    return f"empty text in '{name}'"


def checked_row(values: Sequence[str], names: Sequence[str], label_names: Mapping[str, str] | None = None) -> Row:
    """Encodes a row's values as UTF-8.

    Args:
        values: decoded with `errors="surrogateescape"`, text first and label last, as `wanted` orders them.
        names: their columns.
        label_names: `data.label_names` of the settings, the class that each label stands for; a class's own name
            stays. Empty or none where labels are classes' names.

    Returns:
        The values as UTF-8.

    Raises:
        ValueError: the reason why the row cannot be used.

    Example:
        >>> checked_row(["fine", "pos"], ["review", "sentiment"])
        (b'fine', b'pos')
        >>> checked_row(["fine", " "], ["review", "sentiment"])
        ValueError: no label in 'sentiment'
        >>> checked_row(["fine", "1"], ["review", "sentiment"], {"0": "neg", "1": "pos"})
        (b'fine', b'pos')
    """
    row = []
    for value, name in zip(values, names, strict=True):
        if not value or value.isspace():
            raise ValueError(f"no label in '{name}'" if name == names[-1] else empty_text(name))
        try:
            row.append(value.encode())
        except UnicodeEncodeError:
            raise ValueError(f"NUL byte in '{name}'" if NUL in value else f"invalid UTF-8 in '{name}'") from None
    if label_names:
        label = values[-1]
        if label not in label_names and label not in label_names.values():
            raise ValueError(f"{label!r} in '{names[-1]}', which data.label_names does not name")
        row[-1] = label_names.get(label, label).encode()
    return tuple(row)
