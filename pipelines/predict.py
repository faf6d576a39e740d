"""Asks a pushed model: texts from the command line, or the rows of a file. Needs no more than TensorFlow."""

from __future__ import annotations

import csv
import gzip
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TextIO

from components import files
from components.versions import read_manifest, served_version
from modules.errors import TextrailError

BATCH = 64   # Examples a call, which bounds the memory.


class Prediction(NamedTuple):
    """A model's answer to one text.

    Attributes:
        label: the most probable class.
        score: its probability.
        scores: class → probability.
    """

    label: str
    score: float
    scores: dict[str, float]


class Predictor:
    """The newest version in a push destination, loaded.

    Args:
        destination: folder or URI of the versions.
        fix: what to do when there is none, for the error.

    Raises:
        TextrailError: nothing was pushed there.
    """

    def __init__(self, destination: str, fix: str):
        version = served_version(destination)
        if version is None:
            raise TextrailError(f"a pushed model in {destination}", "none", fix)
        self.folder = os.path.join(destination, version)
        manifest = read_manifest(self.folder)
        self.columns = [manifest[key] for key in ("text", "text_pair") if manifest.get(key)]
        self.classes = list(manifest["classes"])
        # Only lines that say something is wrong; the command line sends even those to a file.
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        import tensorflow as tf
        import tensorflow_text  # noqa: F401  # registers the tokenizer's ops

        self._tf = tf
        self._model = tf.saved_model.load(self.folder)   # the signature lives no longer than its model
        self._answer = self._model.signatures["serving_default"]

    def __call__(self, rows: Iterable[Sequence[str]]) -> Iterator[Prediction]:
        """Answers in the order of the rows, reading no more than a batch ahead.

        Args:
            rows: one text for each of `columns`.
        """
        rows = iter(rows)
        while batch := list(islice(rows, BATCH)):
            inputs = {name: self._tf.constant([row[place] for row in batch])
                      for place, name in enumerate(self.columns)}
            answer = {name: tensor.numpy() for name, tensor in self._answer(**inputs).items()}
            for label, score, scores, classes in zip(
                    answer["label"], answer["score"], answer["scores"], answer["classes"], strict=True):
                by_class = {name.decode(): float(value) for name, value in zip(classes, scores, strict=True)}
                yield Prediction(label.decode(), float(score), by_class)


def predict_file(predictor: Predictor, source: str, target: str) -> int:
    """Copies a CSV or TSV file, adding the label, its score and one column a class to each row.

    Columns that the file has already are added as `predicted_…`. The target appears when it is whole; it may be the
    source itself. Both may be `.gz`; `.tsv` means tabs.

    Args:
        predictor: the model; its `columns` must be among the file's.
        source: path of the file to read.
        target: path of the file to write.

    Returns:
        The number of rows.

    Raises:
        TextrailError: the file is missing, is not CSV in UTF-8, or lacks a column; file and line are named.
    """
    rows = read_rows(source)
    header = next(rows, [])
    for column in predictor.columns:
        if column not in header:
            raise TextrailError(f"the column {column!r}, which the model reads, in {source}",
                                f"the columns {', '.join(map(repr, header)) or '(none)'}"
                                f"{files.nearest(column, header)}", "Rename a column.")
    where = [header.index(column) for column in predictor.columns]
    added = [f"predicted_{name}" if name in header else name for name in ("label", "score", *predictor.classes)]
    if clash := sorted(set(added) & set(header)) or len({*added}) < len(added):
        raise TextrailError("a file without the columns that are added", f"{source} with {clash}", "Rename them.")
    count = 0
    with _write(target) as stream:
        writer = csv.writer(stream, delimiter=_delimiter(target), lineterminator="\n")
        writer.writerow([*header, *added])
        for batch in iter(lambda: list(islice(rows, BATCH)), []):
            answers = predictor([row[column] for column in where] for row in batch)
            for row, answer in zip(batch, answers, strict=True):
                scores = (answer.score, *(answer.scores[name] for name in predictor.classes))
                writer.writerow([*row, answer.label, *(f"{score:.6f}" for score in scores)])
            count += len(batch)
    return count


def read_rows(path: str) -> Iterator[list[str]]:
    """Header and rows of a CSV file (RFC 4180, UTF-8 with or without BOM, `.gz` as it is; `.tsv` means tabs).

    Raises:
        TextrailError: no such file, or a row that cannot be read, with its line.
    """
    if not Path(path).is_file():
        raise TextrailError(f"a file at {path}", files.describe_missing(path), "Correct the path.")
    csv.field_size_limit(sys.maxsize)   # The default, 128 KiB, is shorter than some texts.
    with _open(path, "rb") as stream:
        reader = csv.reader(_lines(stream), delimiter=_delimiter(path), strict=True)
        width = 0
        try:
            for row in reader:
                if row:   # A blank line is not a row.
                    width = width or len(row)
                    if len(row) != width:
                        raise ValueError(f"{len(row)} columns where the header has {width}")
                    yield row
        except (csv.Error, ValueError, OSError, EOFError) as error:
            reason = "bytes that are not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error)
            line = reader.line_num + isinstance(error, UnicodeDecodeError)
            raise TextrailError("CSV in UTF-8", f"{reason} in {path}, line {line}", "Correct that row.") from None


def _lines(stream: Iterable[bytes]) -> Iterator[str]:
    # Decoded line by line, so that the reader's count tells where invalid bytes are.
    for number, line in enumerate(stream):
        yield line.decode("utf-8" if number else "utf-8-sig")


def _delimiter(path: str) -> str:
    return "\t" if path.removesuffix(".gz").endswith(".tsv") else ","


def _open(path: str, mode: str) -> BinaryIO | Any:
    return gzip.open(path, mode) if path.endswith(".gz") else open(path, mode)


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
