"""Rows of a prepared TensorFlow Datasets data set, with its official splits.

The prepared folder alone is read (`dataset_info.json`, `features.json`, shards): no code of the data set is needed,
and nothing is downloaded unless `data.download` says so.
"""

from __future__ import annotations

import glob
import hashlib
import itertools
import json
import os
import re
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from components import files
from components.rows import NUL, SPLITS, BadRow, Piece, Row, checked_row, column_keys, wanted
from modules.errors import TextrailError
from modules.progress import report

BATCH = 256         # Rows taken from tf.data at a time; only saves calls.
PREVIEW_CHARS = 80  # How much of a bad row is shown.


class TfdsSource:
    """Rows of a TFDS data set, one part a shard.

    ClassLabel integers become their names and other integers their digits, since labels are strings. Label -1, which
    TFDS gives rows without one, makes a bad row.

    Args:
        data: `sections.Data` as a dict; of its keys `name`, `data_dir`, `download`, `splits`, `label_names`, and those
            that name columns (`rows.ROLES`).
    """

    def __init__(self, data: dict):
        name, _, self._version = data["name"].partition(":")
        self._name, _, self._config = name.partition("/")
        self._data_dir = os.path.expanduser(
            data.get("data_dir") or os.environ.get("TFDS_DATA_DIR") or os.path.join("~", "tensorflow_datasets"))
        self._download = data.get("download", False)
        self._splits = data.get("splits") or {}
        self._columns = wanted(data)
        self._label_names = data.get("label_names")

    def fingerprint(self) -> str:
        """Hex digest of the data set's description and of its shards' names, sizes and times.

        A data set that is missing and may be downloaded is downloaded first: what is not there has no fingerprint.

        Raises:
            TextrailError: the data set is not there, or several of its configs are.
        """
        folder = self._folder()
        digest = hashlib.sha256()
        for file in files.find(os.path.join(glob.escape(folder), "*")):
            name = os.path.basename(file.path)
            described = name in ("dataset_info.json", "features.json")
            seen = files.content_hash(file) if described else f"{file.size} {file.modified}"
            digest.update(f"{name} {seen}\n".encode())
        return digest.hexdigest()

    def pieces(self) -> list[Piece]:
        """As many pieces for each split as it has shards.

        Raises:
            TextrailError: the data set is not there, lacks a feature or a split, or two splits share rows.
        """
        folder = self._folder()
        builder = _tfds().builder_from_directory(folder)
        self._check_features(builder)
        pieces = []
        for split, official in self._official_splits(builder).items():
            info = builder.info.splits[official]
            parts = len(info.file_instructions)
            share = info.num_examples / builder.info.splits.total_num_examples
            size = int(builder.info.dataset_size * share / parts)
            pieces += [Piece(split, size, (folder, official, part, parts)) for part in range(parts)]
        return pieces

    def read(self, piece: Piece) -> Iterator[Row | BadRow]:
        """Every row of a part of a split, usable or not."""
        tfds = _tfds()
        folder, official, part, parts = piece.where
        builder = tfds.builder_from_directory(folder)
        texts = [_as_text(builder.info.features[name]) for name in self._columns.names]
        rows = builder.as_dataset(
            split=tfds.even_splits(official, parts)[part], decoders=self._decoders(builder.info.features),
            read_config=tfds.ReadConfig(add_tfds_id=True, interleave_cycle_length=1))
        for batch in rows.batch(BATCH).as_numpy_iterator():
            columns = [batch[name] for name in self._columns.names]
            for record, *values in zip(batch["tfds_id"], *columns, strict=True):
                values = [text(value) for text, value in zip(texts, values, strict=True)]
                try:
                    yield checked_row(values, self._columns, self._label_names)
                except ValueError as reason:
                    # TFDS's id of a record is its file's name, two underscores, its number in the file.
                    file, _, number = record.decode().rpartition("__")
                    shown = " | ".join(values)[:PREVIEW_CHARS].encode("utf-8", "replace").decode()
                    yield BadRow(os.path.join(folder, file), int(number), int(number), str(reason), shown)

    def _decoders(self, features: Any) -> Any:
        """Leaves out what is not wanted; none where TFDS only decodes the whole, as pairs of languages."""
        tfds = _tfds()
        if type(features) is not tfds.features.FeaturesDict:   # TFDS refuses subclasses such as Translation.
            return None
        return tfds.decode.PartialDecoding(dict.fromkeys(self._columns.names, True))

    def _folder(self) -> str:
        """The prepared folder, `data_dir/name/(config/)version`; downloads it first where that is asked for."""
        folder = self._prepared()
        if folder is None and self._download:
            name = "/".join(filter(None, (self._name, self._config))) + (self._version and f":{self._version}")
            report(f"downloading the data set {name} to {self._data_dir}", lasting=True)
            _tfds().builder(name, data_dir=self._data_dir).download_and_prepare()
            folder = self._prepared()
        if folder is None:
            path = os.path.join(self._data_dir, *filter(None, (self._name, self._config)))
            raise TextrailError(
                f"a prepared data set at {path}" + (self._version and f", version {self._version}"),
                "other versions only" if files.find(os.path.join(path, "*", "dataset_info.json"))
                else "none there" if os.path.isdir(path) else files.describe_missing(path),
                "Correct data.name or data.data_dir, or set data.download=true to download it.")
        return folder

    def _prepared(self) -> str | None:
        """The folder of the newest version that is there; none where none is."""
        root = os.path.join(glob.escape(self._data_dir), self._name)
        version = self._version or "*"
        if self._config:
            found = files.find(os.path.join(root, self._config, version, "dataset_info.json"))
        else:
            found = (files.find(os.path.join(root, version, "dataset_info.json"))
                     or self._default_config(root, files.find(os.path.join(root, "*", version, "dataset_info.json"))))
        folders = [os.path.dirname(file.path) for file in found]
        return max(folders, key=_version_key, default=None)

    def _default_config(self, root: str, found: list[files.File]) -> list[files.File]:
        """Of the folders of several configs, those of the one that the data set calls its default."""
        by_config: dict[str, list[files.File]] = {}
        for file in found:
            by_config.setdefault(file.path.split("/")[-3], []).append(file)
        if len(by_config) < 2:
            return found
        default = None
        for file in files.find(os.path.join(root, ".config", "metadata.json")):
            with files.open_file(file.path) as stream:
                default = json.load(stream).get("default_config_name")
        if default not in by_config:
            raise TextrailError(f"one config of {self._name} in {self._data_dir}", f"{', '.join(sorted(by_config))}",
                                f"Name one, for example data.name={self._name}/{min(by_config)}.")
        return by_config[default]

    def _check_features(self, builder: Any) -> None:
        for name in self._columns.names:
            features = builder.info.features
            if name not in features:
                raise TextrailError(
                    f"the feature '{name}' in {builder.info.full_name}",
                    f"the features {', '.join(map(repr, features))}{files.nearest(name, features)}",
                    f"Correct {column_keys(self._columns)}.")
            kind = features[name].tf_dtype
            if features[name].shape != () or not (kind.name == "string" or kind.is_integer or kind.is_bool):
                raise TextrailError(f"one string or integer a row in '{name}' of {builder.info.full_name}",
                                    repr(features[name]), f"Choose another feature in {column_keys(self._columns)}.")

    def _official_splits(self, builder: Any) -> dict[str, str]:
        """Our split → TFDS's, checked: train and validation are there, and no row belongs to two of ours."""
        official = list(builder.info.splits)
        chosen = {split: self._splits[split] for split in SPLITS if split in self._splits} or {
            split: split for split in SPLITS if split in official}
        missing = [split for split in ("train", "validation") if split not in chosen]
        if missing:
            raise TextrailError(
                f"a {missing[0]} split in {builder.info.full_name}", f"the splits {', '.join(official)}",
                "Set data.splits, for example {train: 'train[:90%]', validation: 'train[90%:]', test: test}.")
        ranges = []
        for split, expression in chosen.items():
            try:
                instructions = builder.info.splits[expression].file_instructions
            except (KeyError, ValueError) as error:
                raise TextrailError(f"a TFDS split in data.splits.{split}, of {', '.join(official)}",
                                    repr(expression) + files.nearest(expression, official),
                                    "Correct it; slices are written train[:90%].") from error
            if not instructions:
                raise TextrailError(f"rows in data.splits.{split}", f"none in {expression!r}", "Correct the slice.")
            ranges += [(str(part.filename), part.skip, part.skip + part.take, split) for part in instructions]
        ranges.sort()
        for (file, _, end, split), (next_file, start, _, next_split) in itertools.pairwise(ranges):
            if file == next_file and start < end:
                raise TextrailError("splits without common rows in data.splits",
                                    f"{split}: {chosen[split]} and {next_split}: {chosen[next_split]}",
                                    "A row in two splits makes the metrics look better than they are; cut them apart.")
        return chosen


def _version_key(folder: str) -> tuple[int, ...]:
    """`.../1.10.0` → (1, 10, 0), so that versions compare as numbers."""
    return tuple(int(number) for number in re.findall(r"\d+", os.path.basename(folder)))


def _as_text(feature: Any) -> Callable[[Any], str]:
    """How a feature's value (numpy scalar or bytes) becomes text; without a label, the empty text."""
    if hasattr(feature, "int2str"):
        return lambda value: "" if value < 0 else feature.int2str(int(value))
    if feature.tf_dtype.name == "string":
        return lambda value: value.decode("utf-8", "surrogateescape").replace("\0", NUL)
    return str


def _tfds() -> ModuleType:
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise TextrailError("the package tensorflow-datasets for data.source=tfds", "an environment without it",
                            "Install it: uv sync --extra tfds") from error
    return tensorflow_datasets
