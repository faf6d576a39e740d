"""The files that bulk prediction reads and writes: tables, plain text and TFRecords."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import PurePath
from typing import Any, NamedTuple, Protocol

import tensorflow as tf

from components import files
from components.source_csv import open_text
from components.source_text import LONGEST_LINE
from components.source_tfrecord import features_of, text_of
from components.tfrecords import read_records
from modules.errors import TextrailError
from pipelines.answers import as_fields
from pipelines.described import Described
from pipelines.predict import Dialect, places, read_rows, row_writer


class Rows(NamedTuple):
    """What is read of a file.

    Attributes:
        header: what its parts need to know of it; can be pickled.
        rows: its rows, each with its size in bytes, about.
    """

    header: Any
    rows: Iterator[tuple[Any, int]]


class Format(Protocol):
    """A kind of files. Objects travel to Beam's workers by pickling."""

    def suffix(self, path: str) -> str:
        """How the names of the parts end that come of a file."""

    def open(self, path: str, model: Described) -> Rows:
        """The rows of a file.

        Raises:
            TextrailError: now or while they are read: a row or a column cannot be used, with file and place.
        """

    def texts(self, row: Any, header: Any) -> Sequence[str]:
        """What the model reads of a row."""

    def write(self, path: str, source: str, header: Any, rows: Sequence[Any], answers: Iterable[Any],
              model: Described) -> None:
        """Writes the rows of a part with their answers.

        Args:
            path: to write.
            source: the file they are from.
            header: see `open`.
            rows: of the part, in their order.
            answers: one for each, see `pipelines.answers`.
            model: that gave them.
        """


class Table:
    """CSV and TSV, as `data` of the run's settings says. Every part has the header; a row keeps its columns.

    Args:
        dialect: of the files.
    """

    def __init__(self, dialect: Dialect):
        self._dialect = dialect

    def suffix(self, path: str) -> str:
        return ".tsv" if PurePath(path.removesuffix(".gz")).suffix == ".tsv" else ".csv"

    def open(self, path: str, model: Described) -> Rows:
        rows = read_rows(path, self._dialect)
        header = next(rows, [])
        if self._dialect.columns:   # The first line, if there is one, is a row, which may lack the last of them.
            rows, header = chain([header] if header else [], rows), list(self._dialect.columns)[:len(header) or None]
        if not header:
            raise TextrailError(f"a header with {' and '.join(map(repr, model.columns))} in {path}", "an empty file",
                                "Leave it out of --input, or write its header.")
        where, added = places(model, header, path)
        return Rows((header, where, added), ((row, sum(map(len, row))) for row in rows))

    def texts(self, row: list[str], header: Any) -> list[str]:
        return [row[column] for column in header[1]]

    def write(self, path: str, source: str, header: Any, rows: Sequence[Any], answers: Iterable[Any],
              model: Described) -> None:
        names, _, added = header
        with _text_file(path) as stream:
            write = row_writer(stream, path, self._dialect)
            if not self._dialect.columns:
                write([*names, *added])
            for row, answer in zip(rows, answers, strict=True):
                write([*row, *as_fields(model.answers.values(answer))])


class Lines:
    """Plain text, a text a line; blank lines are passed over. A line becomes JSON with its file and number as key."""

    def suffix(self, path: str) -> str:
        return ".jsonl"

    def open(self, path: str, model: Described) -> Rows:
        if len(model.columns) > 1:
            raise TextrailError(f"a table or TFRecords with {' and '.join(model.columns)}, of which the model reads "
                                "both", f"lines of text in {path}", "Write the pairs to a CSV or TSV file.")
        return Rows(None, self._rows(path))

    def _rows(self, path: str) -> Iterator[tuple[tuple[int, str], int]]:
        with open_text(path) as stream:
            number = 0
            while line := stream.readline(LONGEST_LINE):
                number += 1
                if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
                    raise TextrailError(f"lines of at most {LONGEST_LINE:,} bytes in {path}",
                                        f"line {number}, which is longer", "Is it plain text with a text a line?")
                try:
                    text = line.decode().rstrip("\r\n")
                except UnicodeDecodeError as error:
                    raise TextrailError(f"UTF-8 in {path}, line {number}", f"the byte {error.object[error.start]:#04x}",
                                        "Convert the file, for example with iconv.") from None
                if text.strip():
                    yield (number, text), len(line)

    def texts(self, row: tuple[int, str], header: Any) -> list[str]:
        return [row[1]]

    def write(self, path: str, source: str, header: Any, rows: Sequence[Any], answers: Iterable[Any],
              model: Described) -> None:
        with _text_file(path) as stream:
            for (number, text), answer in zip(rows, answers, strict=True):
                one = {"file": source, "line": number, "text": text, **answer._asdict()}
                stream.write(json.dumps(one, ensure_ascii=False) + "\n")


class Records:
    """TFRecords of tf.Examples, which keep their features and get those of the answer."""

    def suffix(self, path: str) -> str:
        return ".tfrecord.gz"

    def open(self, path: str, model: Described) -> Rows:
        return Rows(tuple(model.columns), self._rows(path, model))

    def _rows(self, path: str, model: Described) -> Iterator[tuple[bytes, int]]:
        for record in read_records(path):
            features = features_of(record.data)
            if features is None:
                raise TextrailError(f"serialized tf.Examples in {path}", f"record {record.number}, which is none",
                                    "Name files of tf.Examples.")
            for column in model.columns:
                try:
                    if column not in features:
                        raise ValueError(f"the features {', '.join(map(repr, sorted(features)))}"
                                         f"{files.nearest(column, features)}")
                    text_of(features, column, free_text=True).encode()
                except ValueError as error:   # UnicodeEncodeError is one.
                    reason = "bytes that are no UTF-8" if isinstance(error, UnicodeEncodeError) else error
                    raise TextrailError(f"one text in the feature {column!r} of {path}, record {record.number}",
                                        str(reason), "Correct that record, or rename a feature.") from None
            yield record.data, len(record.data)

    def texts(self, row: bytes, header: tuple[str, ...]) -> list[str]:
        features = features_of(row)
        return [text_of(features, column, free_text=True) for column in header]

    def write(self, path: str, source: str, header: Any, rows: Sequence[Any], answers: Iterable[Any],
              model: Described) -> None:
        with tf.io.TFRecordWriter(path, "GZIP") as writer:
            for row, answer in zip(rows, answers, strict=True):
                example = tf.train.Example.FromString(row)
                features = example.features.feature
                names = [f"predicted_{name}" if name in features else name for name in model.answers.columns]
                for name, values in zip(names, model.answers.values(answer), strict=True):
                    for value in values:   # A column without any is no feature.
                        if isinstance(value, float):
                            features[name].float_list.value.append(value)
                        else:
                            features[name].bytes_list.value.append(value.encode())
                writer.write(example.SerializeToString(deterministic=True))


def _text_file(path: str) -> Any:
    """A file of UTF-8 to write, at a path or URI."""
    file = tf.io.gfile.GFile(path, "w")
    file.write("")   # Without a first write there would be none.
    return file


FORMATS = ("csv", "text", "tfrecord")


def format_of(name: str, dialect: Dialect) -> Format:
    """The format of a name of `FORMATS`."""
    kinds: dict[str, Callable[[], Format]] = {"csv": lambda: Table(dialect), "text": Lines, "tfrecord": Records}
    return kinds[name]()


def format_named(path: str) -> str | None:
    """Of `FORMATS`, the one that a file's name tells; none if it tells nothing."""
    name = PurePath(path).name
    if name.removesuffix(".gz").endswith((".csv", ".tsv")):
        return "csv"
    if "tfrecord" in name:
        return "tfrecord"
    return "text" if name.removesuffix(".gz").endswith(".txt") else None
