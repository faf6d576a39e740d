"""Rows of TFRecord files that hold serialized tf.Examples, or of a folder that `textrail convert` wrote."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

from components import files
from components.rows import NUL, ROLES, BadRow, Piece, Row, checked_row, column_keys, wanted
from components.split_files import GZIP_FACTOR, find_split_files, split_fingerprint
from components.tfrecord_folder import FIX, MANIFEST, manifest_of, read_shards
from components.tfrecords import Record, is_compressed, read_records
from modules.errors import TextrailError

SAMPLE = 100        # Records that are asked which features there are.
PREVIEW_CHARS = 80  # How much of a bad row is shown.


class _Part(NamedTuple):
    """A file, what its text takes uncompressed if a manifest says so, and the sha256 that it must have, if known."""

    split: str | None
    path: str
    size: int
    text_bytes: int | None = None
    sha256: str | None = None


class TfrecordSource:
    """Rows of tf.Examples: one text, or of what is no free text one integer, in each wanted feature.

    An integer becomes its digits, since labels are strings; `data.label_names` names them. A record that cannot be
    used is a bad row; a file that is damaged stops everything, for what stands behind the damage is lost.

    Args:
        data: `sections.Data` as a dict; of its keys `path`, `label_names`, and those that name columns
            (`rows.ROLES`).
    """

    def __init__(self, data: dict):
        self._path = data["path"]
        self._columns = wanted(data)
        self._label_names = data.get("label_names")

    def fingerprint(self) -> str:
        """Hex digest of the files' paths and contents; of a folder with a manifest, of that, which has their hashes.

        Raises:
            TextrailError: no file matches, one belongs to two splits, or the manifest says otherwise.
        """
        manifest = self._manifest()
        if manifest:
            return read_shards(manifest)[1]
        return split_fingerprint(self._path)

    def pieces(self) -> list[Piece]:
        """One piece a file.

        Raises:
            TextrailError: no file matches, one belongs to two splits, the manifest says otherwise, or the first
                records lack a feature.
        """
        parts = self._parts()
        factors: dict[str | None, int] = {}
        for split in dict.fromkeys(part.split for part in parts):
            first = self._check_features([part.path for part in parts if part.split == split])
            factors[split] = GZIP_FACTOR if is_compressed(first) else 1
        return [Piece(part.split, part.size * factors[part.split] if part.text_bytes is None else part.text_bytes,
                      (part.path, part.sha256)) for part in parts]

    def read(self, piece: Piece) -> Iterator[Row | BadRow]:
        """Every row of a file, usable or not.

        Raises:
            TextrailError: the file is damaged, cut off, or not the one that the manifest lists.
        """
        path, sha256 = piece.where
        digest = hashlib.sha256() if sha256 else None
        for record in read_records(path, digest):
            features = features_of(record.data)
            try:
                if features is None:
                    raise ValueError("not a serialized tf.Example")
                values = [text_of(features, name, ROLES[role].text) for name, role in zip(*self._columns, strict=True)]
                yield checked_row(values, self._columns, self._label_names)
            except ValueError as reason:
                yield BadRow(path, record.number, record.number, str(reason), self._preview(record), record.offset)
        if digest and digest.hexdigest() != sha256:
            raise TextrailError(f"{path} with the sha256 {sha256}, as {MANIFEST} there says",
                                f"one with {digest.hexdigest()}", FIX)

    def _manifest(self) -> str | None:
        return manifest_of(self._path) if isinstance(self._path, str) else None

    def _parts(self) -> list[_Part]:
        manifest = self._manifest()
        if manifest:
            return [_Part(shard.split, shard.file, shard.size, shard.text_bytes, shard.sha256)
                    for shard in read_shards(manifest)[0]]
        return [_Part(split, file.path, file.size) for split, file in find_split_files(self._path)]

    def _check_features(self, paths: list[str]) -> str:
        """Looks for the wanted features in the first records of a split's files; returns the file that has them.

        A feature without a value is often left out of a tf.Example, so one record alone proves nothing.
        """
        for path in paths:
            records = list(islice(read_records(path), SAMPLE))
            if not records:
                continue
            found = sorted({name for record in records for name in features_of(record.data) or ()})
            for name in self._columns.names:
                if name not in found:
                    raise TextrailError(
                        f"the feature '{name}' in the tf.Examples of {path}",
                        f"the features {', '.join(map(repr, found))}{files.nearest(name, found)}" if found
                        else "records that are no tf.Examples",
                        f"Correct {column_keys(self._columns)}.")
            return path
        return paths[0]

    def _preview(self, record: Record) -> str:
        """The wanted features as the record has them; the record itself if it is no tf.Example."""
        features = features_of(record.data)
        if features is None:
            return record.data[:PREVIEW_CHARS].decode("utf-8", "backslashreplace")
        shown = [f"{name}: {', '.join(map(_shown, _values(features, name)[1]))}" for name in self._columns.names]
        return " | ".join(shown)[:PREVIEW_CHARS]


def features_of(data: bytes) -> Any:
    """Name → feature of a serialized tf.Example; none if it is not one."""
    import tensorflow as tf  # not above: a fingerprint needs none of it
    from google.protobuf.message import DecodeError

    try:
        return tf.train.Example.FromString(data).features.feature
    except DecodeError:
        return None


def _values(features: Any, name: str) -> tuple[str, Any]:
    """Kind and values of a feature; no values where it is missing. (To ask for a missing one would make it.)"""
    if name not in features:
        return "", []
    feature = features[name]
    kind = feature.WhichOneof("kind")
    return kind or "", getattr(feature, kind).value if kind else []


def text_of(features: Any, name: str, free_text: bool) -> str:
    """The one value of a feature as text, the empty text where there is none.

    Raises:
        ValueError: several values, or another kind.
    """
    kind, values = _values(features, name)
    if not values:
        return ""
    if len(values) > 1:
        raise ValueError(f"{len(values)} values in '{name}', where one is needed")
    if kind == "bytes_list":
        return values[0].decode("utf-8", "surrogateescape").replace("\0", NUL)
    if kind == "int64_list" and not free_text:
        return str(values[0])
    raise ValueError(f"{'an integer' if kind == 'int64_list' else 'a float'} in '{name}', where "
                     f"{'text' if free_text else 'text or an integer'} is needed")


def _shown(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
