"""What every source of rows has in common, so that another one is one more file beside this."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

SPLITS = ("train", "validation", "test")
NUL = "\udc00"   # Stands for a NUL byte while a line is text: Python 3.10's csv module refuses the real one.

Row = tuple[bytes, ...]   # UTF-8 values, one for each of the `Columns`.


class Role(NamedTuple):
    """What a column is for.

    Attributes:
        read: whether the model reads it. What it reads, and nothing else, decides a row's split: the same text stays in
            one split, whatever it is labelled or translated as.
        text: whether it is free text, which may not be blank more often than the gate allows.
    """

    read: bool = False
    text: bool = False


# The keys of `data` that name columns, in the order of a row's values: what is read comes first.
ROLES = {"text": Role(read=True, text=True), "text_pair": Role(read=True, text=True), "target": Role(text=True),
         "label": Role(), "slice": Role()}


class Columns(NamedTuple):
    """The columns that are taken from the data, in the order of a row's values.

    Attributes:
        names: of the columns.
        roles: of `ROLES`, for each.
    """

    names: tuple[str, ...]
    roles: tuple[str, ...]

    @property
    def read(self) -> int:
        """How many values of a row, from the first, the model reads."""
        return sum(ROLES[role].read for role in self.roles)

    @property
    def texts(self) -> list[str]:
        """Names of the columns of free text."""
        return [name for name, role in zip(self.names, self.roles, strict=True) if ROLES[role].text]

    def place(self, role: str) -> int | None:
        """Where in a row the value of a role stands; none where no column has it."""
        return self.roles.index(role) if role in self.roles else None

    def name(self, role: str) -> str | None:
        """The column of a role; none where there is none."""
        place = self.place(role)
        return None if place is None else self.names[place]


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


def wanted(data: Mapping[str, Any]) -> Columns:
    """The columns that `data` names by what they are for.

        >>> wanted({"text": "review", "label": "sentiment", "text_pair": None, "source": "csv"})
        Columns(names=('review', 'sentiment'), roles=('text', 'label'))
    """
    roles = tuple(role for role in ROLES if data.get(role))
    return Columns(tuple(data[role] for role in roles), roles)


def column_keys(columns: Columns) -> str:
    """The keys that name these columns, for errors: "data.text or data.label"."""
    *most, last = (f"data.{role}" for role in columns.roles)
    return f"{', '.join(most)} or {last}" if most else last


def empty_text(name: str) -> str:
    """The reason of a bad row whose text in column `name` is missing or blank."""
    return f"empty text in '{name}'"


def checked_row(values: Sequence[str], columns: Columns, label_names: Mapping[str, str] | None = None) -> Row:
    """Encodes a row's values as UTF-8.

    Args:
        values: decoded with `errors="surrogateescape"`, in the order of the columns.
        columns: whose they are.
        label_names: `data.label_names` of the settings, the class that each label stands for; a class's own name
            stays. Empty or none where labels are classes' names, or there are none.

    Returns:
        The values as UTF-8.

    Raises:
        ValueError: the reason why the row cannot be used.

    Example, with columns `wanted({"text": "review", "label": "sentiment"})`:
        >>> checked_row(["fine", "pos"], columns)
        (b'fine', b'pos')
        >>> checked_row(["fine", " "], columns)
        ValueError: no label in 'sentiment'
        >>> checked_row(["fine", "1"], columns, {"0": "neg", "1": "pos"})
        (b'fine', b'pos')
    """
    row = []
    for value, name, role in zip(values, *columns, strict=True):
        if not value or value.isspace():
            raise ValueError(empty_text(name) if ROLES[role].text else f"no {role} in '{name}'")
        if role == "label" and label_names:
            if value not in label_names and value not in label_names.values():
                raise ValueError(f"{value!r} in '{name}', which data.label_names does not name")
            value = label_names.get(value, value)
        try:
            row.append(value.encode())
        except UnicodeEncodeError:
            raise ValueError(f"NUL byte in '{name}'" if NUL in value else f"invalid UTF-8 in '{name}'") from None
    return tuple(row)
