"""Asks a pushed model: texts from the command line, or the rows of a file. Needs no more than TensorFlow."""

from __future__ import annotations

import csv
import gzip
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from components import files
from components.rows import NUL
from components.source_csv import open_rows, separator
from components.versions import served_version
from modules.errors import TextrailError
from modules.manifest import DEFAULT_SIGNATURE
from pipelines.answers import as_fields
from pipelines.described import Described
from pipelines.workspace import Workspace

BATCH = 256   # Rows read ahead, to be asked in the order of their lengths.
TOLD = 10     # Rows that a sentence names.


def newest_version(destination: str, fix: str) -> str:
    """Folder of the newest version in a push destination.

    Args:
        destination: folder or URI of the versions.
        fix: what to do when there is none, for the error.

    Raises:
        TextrailError: nothing was pushed there.
    """
    version = served_version(destination)
    if version is None:
        raise TextrailError(f"a pushed model in {destination}", "none", fix)
    return os.path.join(destination, version)


class Predictor(Described):
    """A version in a push destination, loaded.

    Args:
        folder: of the version, see `newest_version`.

    Raises:
        TextrailError: it does not load.
    """

    def __init__(self, folder: str):
        super().__init__(folder)
        # Only lines that say something is wrong; the command line sends even those to a file.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        from pipelines.model import Model

        self._model = Model(folder)

    def __call__(self, rows: Iterable[Sequence[str]]) -> Iterator[Any]:
        """Answers of `pipelines.answers` in the order of the rows, reading no more than a batch ahead.

        Args:
            rows: one text for each of `columns`.
        """
        rows = iter(rows)
        while batch := list(islice(rows, BATCH)):
            columns = {name: [row[place].encode() for row in batch] for place, name in enumerate(self.names)}
            yield from self.answers.read(self._model.ask(DEFAULT_SIGNATURE, columns), batch)


class Dialect(NamedTuple):
    """How a CSV file is written: `data.delimiter`, `data.quoting` and `data.columns`, empty where it has a header."""

    delimiter: str = "auto"
    quoting: str = "standard"
    columns: Sequence[str] = ()

    @classmethod
    def of(cls, paths: Workspace) -> Dialect:
        """That of the files which a run read last."""
        data = paths.recorded("data")
        return cls(**{key: data[key] for key in cls._fields if key in data})


BY_NAME = Dialect()


class Done(NamedTuple):
    """What came of a file.

    Attributes:
        rows: how many it has.
        warning: see `cut_warning`.
    """

    rows: int
    warning: str


def predict_file(predictor: Predictor, source: str, target: str, dialect: Dialect = BY_NAME) -> Done:
    """Copies a CSV or TSV file, adding to each row the columns of the answer.

    They are label, score and one a class of a classifier, translation and score of a translator, and the filled text,
    words and probabilities of an encoder. Columns that the file has already are added as `predicted_…`. The target
    appears when it is whole; it may be the source itself. Both may be `.gz`. A file of a run whose files have no header
    gets none, and may lack the last of their columns.

    Args:
        predictor: the model; its `columns` must be among the file's.
        source: path of the file to read.
        target: path of the file to write.
        dialect: of both files.

    Raises:
        TextrailError: the file is missing, is not CSV in UTF-8, or lacks a column; file and line are named.
    """
    rows = read_rows(source, dialect)
    header = next(rows, [])
    if dialect.columns:
        header, rows = list(dialect.columns)[:len(header)], chain([header] if header else [], rows)
    where, added = places(predictor, header, source)
    count, cut = 0, {}
    with _write(target) as stream:
        write = row_writer(stream, target, dialect)
        if not dialect.columns:
            write([*header, *added])
        for batch in iter(lambda: list(islice(rows, BATCH)), []):
            answers = predictor([row[column] for column in where] for row in batch)
            for row, answer in zip(batch, answers, strict=True):
                count += 1
                write([*row, *as_fields(predictor.answers.values(answer))])
                if reason := predictor.answers.cut(answer):
                    cut[count] = reason
    return Done(count, cut_warning(f"{source}, row", cut))


def places(model: Described, header: Sequence[str], source: str) -> tuple[list[int], list[str]]:
    """Where in a table stands what a model reads, and the names of the columns that its answers get.

    Args:
        model: that is asked.
        header: names of the table's columns.
        source: the table's path, for errors.

    Raises:
        TextrailError: it lacks a column, or has all names that could be added.
    """
    for column in model.columns:
        if column not in header:
            raise TextrailError(f"the column {column!r}, which the model reads, in {source}",
                                f"the columns {', '.join(map(repr, header)) or '(none)'}"
                                f"{files.nearest(column, header)}",
                                "Separate the columns as the run's data.delimiter says, or rename that one."
                                if len(header) == 1 else "Rename a column.")
    added = [f"predicted_{name}" if name in header else name for name in model.answers.columns]
    if clash := sorted(set(added) & set(header)) or len({*added}) < len(added):
        raise TextrailError("a file without the columns that are added", f"{source} with {clash}", "Rename them.")
    return [header.index(column) for column in model.columns], added


def cut_warning(what: str, cut: Mapping[int, str]) -> str:
    """A sentence on the texts that a model has not answered as a whole; empty if there are none.

    Example:
        >>> cut_warning("in.tsv, row", {3: "longer than …", 5: "without …", 8: "longer than …"})
        "in.tsv, row 3 (and 1 more: 8): the text is longer than …; in.tsv, row 5: the text is without …"

    Args:
        what: before the number.
        cut: number → what it lost; see `Answers.cut`.
    """
    found = []
    for reason in dict.fromkeys(cut.values()):
        first, *others = (number for number in cut if cut[number] == reason)
        named = ", ".join(map(str, others[:TOLD])) + (", …" if len(others) > TOLD else "")
        found.append(f"{what} {first}{f' (and {len(others)} more: {named})' if others else ''}: the text is {reason}")
    return "; ".join(found)


def read_rows(path: str, dialect: Dialect = BY_NAME) -> Iterator[list[str]]:
    """Header, if there is one, and rows of a CSV file in UTF-8, plain or gzipped.

    Raises:
        TextrailError: no such file, or a row that cannot be read, with its line.
    """
    if not files.is_uri(path) and not Path(path).is_file():
        raise TextrailError(f"a file at {path}", files.describe_missing(path), "Correct the path.")
    width = 0
    with open_rows(path, dialect.delimiter, dialect.quoting) as (rows, _):
        for line, fields in rows:
            width = width or len(fields)
            if reason := fields if isinstance(fields, str) else _flaw(fields, width, dialect.columns):
                raise TextrailError("CSV in UTF-8", f"{reason} in {path}, line {line}", "Correct that row.")
            yield list(fields)


def _flaw(fields: Sequence[str], width: int, columns: Sequence[str]) -> str:
    """What is wrong with a row; empty if nothing is."""
    if columns and len(fields) > len(columns):
        return f"{len(fields)} columns where data.columns names {len(columns)}"
    if len(fields) != width:
        return f"{len(fields)} columns where the {'first row' if columns else 'header'} has {width}"
    try:
        "".join(fields).encode()
    except UnicodeEncodeError:
        return "a NUL byte" if any(NUL in field for field in fields) else "bytes that are not UTF-8"
    return ""


def row_writer(stream: TextIO, path: str, dialect: Dialect) -> Callable[[Sequence[str]], object]:
    """A function that writes one row."""
    delimiter = separator(dialect.delimiter, path)
    if dialect.quoting == "standard":
        return csv.writer(stream, delimiter=delimiter, lineterminator="\n").writerow

    def write(row: Sequence[str]) -> None:
        line = delimiter.join(row)
        if len(line.split(delimiter)) != len(row):
            raise TextrailError(f"values without {delimiter!r}, which data.quoting=none cannot write to {path}",
                                f"a row with one: {line[:80]}",
                                "Give it the ending of the file that is read, such as .tsv.")
        stream.write(line + "\n")

    return write


@contextmanager
def _write(path: str) -> Iterator[TextIO]:
    """A text file that takes its place only when the block ends well."""
    target = Path(path)
    if not target.parent.is_dir():
        raise TextrailError(f"a folder at {target.parent}", files.describe_missing(str(target.parent)), "Make it.")
    beside = target.with_name(f".{os.getpid()}.{target.name}")
    try:
        opened = gzip.open if path.endswith(".gz") else open
        with opened(beside, "wt", encoding="utf-8", newline="") as stream:
            yield stream   # type: ignore[misc]
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
