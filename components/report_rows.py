"""What a report tells of the rows: how long texts are, what the vocabulary covers, what stands in two splits.

Every row counts. A file is measured at a time, in batches, wherever a worker is; what files give adds up, and is of a
size that the data do not change: lengths are counted, and of texts digests are held, `HELD` of a split at most. Where a
split has more different texts, one in 2, 4, 8 … of them is held, chosen by its digest, so that the same texts are held
of every split, and what they give is multiplied (Gibbons, "Distinct sampling", 2001).
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

HELD = 1 << 22            # Digests of a split, in 64 MB.
BATCH = 512               # Rows in memory at a time; a file has no more text than ExampleGen gave it.
EXACT = 10_000            # Lengths above are told to four digits.
TRAIN = "train"
RAGGED = "$ragged_values"
SHOWN = 5                 # Rows that are shown, with as many characters of each text.
CHARACTERS = 1000


@dataclass(frozen=True)
class Histogram:
    """How often each length occurs.

    Attributes:
        values: [different lengths] int64, ascending.
        counts: [different lengths] int64.
    """

    values: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    counts: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    @classmethod
    def of(cls, lengths: np.ndarray) -> Histogram:
        """Counts lengths [rows]; those above `EXACT` to four digits, so that few are different."""
        lengths = np.asarray(lengths, np.int64)
        unit = 10 ** np.maximum(0, np.floor(np.log10(np.maximum(lengths, 1))).astype(np.int64) - 3)
        return cls(*np.unique(np.where(lengths > EXACT, lengths // unit * unit, lengths), return_counts=True))

    def __add__(self, other: Histogram) -> Histogram:
        return Histogram(*_counted(np.concatenate([self.values, other.values]),
                                   np.concatenate([self.counts, other.counts])))

    @property
    def rows(self) -> int:
        return int(self.counts.sum())

    @property
    def total(self) -> int:
        """The sum of all lengths."""
        return int(self.values @ self.counts)

    @property
    def longest(self) -> int:
        return int(self.values[-1]) if len(self.values) else 0

    def quantile(self, share: float) -> int:
        """The smallest length that so many are not above."""
        return int(self.values[np.searchsorted(np.cumsum(self.counts), share * self.rows)])

    def above(self, limit: int) -> int:
        """How many are longer."""
        return int(self.counts[self.values > limit].sum())

    def cut(self, limit: int) -> Histogram:
        """As if all that is longer ended at `limit`."""
        return Histogram(*_counted(np.minimum(self.values, limit), self.counts))


def _counted(values: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each value once, ascending, with the sum of its counts."""
    different, places = np.unique(values, return_inverse=True)
    return different, np.bincount(places.ravel(), counts, len(different)).astype(np.int64)


@dataclass(frozen=True)
class Digests:
    """Which texts a split has, and how often each: all of them, or one in 2 to the power of `level`.

    Attributes:
        values: [texts] int64, ascending; their lowest `level` bits are 0.
        counts: [texts] int64 rows.
        level: how often the texts that are held were halved.
    """

    values: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    counts: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    level: int = 0

    @classmethod
    def of(cls, digests: np.ndarray) -> Digests:
        """Those of a digest a row, [rows] int64."""
        return cls(*np.unique(np.asarray(digests, np.int64), return_counts=True)).bounded()

    def __add__(self, other: Digests) -> Digests:
        level = max(self.level, other.level)
        mine, others = self.at(level), other.at(level)
        return Digests(*_counted(np.concatenate([mine.values, others.values]),
                                 np.concatenate([mine.counts, others.counts])), level).bounded()

    def at(self, level: int) -> Digests:
        """Fewer of them, those of a higher level."""
        kept = self.values & ((1 << level) - 1) == 0
        return Digests(self.values[kept], self.counts[kept], level)

    def bounded(self) -> Digests:
        """At most `HELD` of them."""
        return self if len(self.values) <= HELD else self.at(self.level + 1).bounded()

    @property
    def repeated(self) -> int:
        """Rows whose text stands in another row of the split before them; an estimate above level 0."""
        return int(self.counts.sum() - len(self.values)) << self.level

    def shared(self, other: Digests) -> int:
        """Rows whose text also stands in the other split; an estimate where either has a level above 0."""
        level = max(self.level, other.level)
        mine = self.at(level)
        return int(mine.counts[np.isin(mine.values, other.at(level).values)].sum()) << level


class Words(NamedTuple):
    """What texts are tokenized with, as the model's graph does it.

    Attributes:
        kind: "bert" or "subwords".
        folder: with the vocabulary.
        columns: with texts; of a pair both make one sequence.
    """

    kind: str
    folder: str
    columns: tuple[str, ...]

    def encoder(self) -> tuple[Callable[[Mapping[str, tf.Tensor]], tf.RaggedTensor], Sequence[str]]:
        """A function of columns [batch] string to ids [batch, (tokens)], however many they are; and the pieces."""
        if self.kind == "bert":
            from modules.tokenization import Tokenizer, Vocabulary

            vocabulary = Vocabulary.read(self.folder)
            tokenizer = Tokenizer(vocabulary)
            return lambda row: tokenizer.encode(*(row[name] for name in self.columns), max_length=1 << 30), \
                vocabulary.pieces
        from modules.subwords import Subwords

        subwords = Subwords.read(self.folder)
        return lambda row: subwords.encode(row[self.columns[0]]), subwords.pieces


@dataclass(frozen=True)
class Pieces:
    """How often each piece of a vocabulary stands in the training split; what a vocabulary is worth follows.

    Attributes:
        counts: [vocabulary] int64.
        words: tokens that begin a word.
        unknown: tokens that the vocabulary lacks.
    """

    counts: np.ndarray
    words: int
    unknown: int

    def __add__(self, other: Pieces) -> Pieces:
        return Pieces(self.counts + other.counts, self.words + other.words, self.unknown + other.unknown)

    @classmethod
    def of(cls, counts: np.ndarray, pieces: Sequence[str]) -> Pieces:
        """Of counts by id; special tokens in brackets stand around texts, and are no words."""
        special = np.array([piece.startswith("[") and piece.endswith("]") and len(piece) > 2 for piece in pieces])
        unknown = np.array([piece == "[UNK]" for piece in pieces])
        own = np.where(special & ~unknown, 0, counts)
        begins = np.array([not piece.startswith("##") for piece in pieces])
        return cls(own, int(own[begins].sum()), int(own[unknown].sum()))

    @property
    def tokens(self) -> int:
        return int(self.counts.sum())

    @property
    def used(self) -> int:
        """Different pieces that occur."""
        return int((self.counts > 0).sum())


class Task(NamedTuple):
    """A file to be measured.

    Attributes:
        path: of gzipped TFRecords.
        split: it belongs to.
        columns: with texts, whose characters are counted; none where the file has token ids.
        read: those of them that the model reads, which tell one row from another.
        words: what a report calls a sequence of tokens → how it is made; empty where there is no vocabulary.
        limit: most tokens of a row; 0 if there is no limit.
        cuts: whether longer texts are cut, else their rows are left out.
    """

    path: str
    split: str
    columns: tuple[str, ...] = ()
    read: tuple[str, ...] = ()
    words: Mapping[str, Words] = {}
    limit: int = 0
    cuts: bool = True


@dataclass(frozen=True)
class Rows:
    """What files are like.

    Attributes:
        digests: split → its texts.
        characters: column → lengths of the training split.
        tokens: name of a sequence → lengths of the training split in tokens, special ones included.
        pieces: name of a sequence → the pieces in it.
        trained: lengths in tokens, by the longest sequence, of rows as they are trained on.
        trained_tokens: of these rows, of all sequences.
        left_out: tokens and texts of rows that training leaves out, the `SHOWN` longest.
    """

    digests: Mapping[str, Digests] = field(default_factory=dict)
    characters: Mapping[str, Histogram] = field(default_factory=dict)
    tokens: Mapping[str, Histogram] = field(default_factory=dict)
    pieces: Mapping[str, Pieces] = field(default_factory=dict)
    trained: Histogram = field(default_factory=Histogram)
    trained_tokens: int = 0
    left_out: tuple[tuple[int, tuple[str, ...]], ...] = ()

    def __add__(self, other: Rows) -> Rows:
        def both(mine: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
            return {**mine, **{name: mine[name] + value if name in mine else value for name, value in others.items()}}

        return Rows(both(self.digests, other.digests), both(self.characters, other.characters),
                    both(self.tokens, other.tokens), both(self.pieces, other.pieces), self.trained + other.trained,
                    self.trained_tokens + other.trained_tokens,
                    tuple(sorted(self.left_out + other.left_out, reverse=True)[:SHOWN]))

    def shared(self, splits: Sequence[str]) -> dict[tuple[str, str], int]:
        """(split, split before it in the order) → rows of the first whose texts also stand in the second."""
        there = [split for split in splits if split in self.digests]
        return {(split, before): self.digests[split].shared(self.digests[before])
                for place, before in enumerate(there) for split in there[place + 1:]}

    @property
    def estimated(self) -> bool:
        """Whether there were too many different texts to hold all digests."""
        return any(digests.level for digests in self.digests.values())


def measure(task: Task) -> Rows:
    """Reads a file once."""
    return _instances(task) if not task.columns else _texts(task)


def _texts(task: Task) -> Rows:
    encoders = {name: words.encoder() for name, words in task.words.items()} if task.split == TRAIN else {}
    spec = {name: tf.io.FixedLenFeature([], tf.string, "") for name in task.columns}

    def look(serialized: tf.Tensor) -> dict[str, Any]:
        row = tf.io.parse_example(serialized, spec)
        # No text has a NUL byte, so that joined ones cannot be mistaken for others.
        text = tf.strings.join([row[name] for name in task.read], "\0")  # [batch]
        return {"texts": row, "digests": tf.strings.to_hash_bucket_fast(text, 2**63 - 1),
                "characters": {name: tf.strings.length(row[name], "UTF8_CHAR") for name in task.columns},
                "tokens": {name: encode(row) for name, (encode, _) in encoders.items()}}

    digests: list[np.ndarray] = []
    characters: dict[str, list[np.ndarray]] = {name: [] for name in task.columns}
    lengths: dict[str, list[np.ndarray]] = {name: [] for name in encoders}
    pieces = {name: np.zeros(len(known), np.int64) for name, (_, known) in encoders.items()}
    left_out: list[tuple[int, tuple[str, ...]]] = []
    for batch in tf.data.TFRecordDataset(task.path, "GZIP").batch(BATCH).map(look).prefetch(1):
        digests.append(batch["digests"].numpy())
        for name in task.columns:
            characters[name].append(batch["characters"][name].numpy())
        for name, tokens in batch["tokens"].items():
            lengths[name].append(tokens.row_lengths().numpy())
            pieces[name] += np.bincount(tokens.values.numpy(), minlength=len(pieces[name]))
        if encoders and task.limit and not task.cuts:
            longest = np.max([found[-1] for found in lengths.values()], axis=0)  # [batch]
            for place in np.flatnonzero(longest > task.limit):
                texts = (batch["texts"][name][place].numpy().decode("utf-8", "replace") for name in task.columns)
                left_out.append((int(longest[place]), tuple(text[:CHARACTERS] for text in texts)))
            left_out = sorted(left_out, reverse=True)[:SHOWN]
    if task.split != TRAIN:
        return Rows({task.split: Digests.of(_joined(digests))})
    sides = {name: _joined(found) for name, found in lengths.items()}
    trained, tokens = _as_trained(list(sides.values()), task.limit, task.cuts)
    return Rows({task.split: Digests.of(_joined(digests))},
                {name: Histogram.of(_joined(found)) for name, found in characters.items()},
                {name: Histogram.of(found) for name, found in sides.items()},
                {name: Pieces.of(counts, encoders[name][1]) for name, counts in pieces.items()}, trained, tokens,
                tuple(left_out))


def _instances(task: Task) -> Rows:
    """Of examples that are token ids, unpadded and short enough."""
    name = next(_ragged(task.path), "")
    if not name:
        return Rows()
    spec = {name: tf.io.RaggedFeature(tf.int64, name + RAGGED, row_splits_dtype=tf.int64)}
    batches = tf.data.TFRecordDataset(task.path, "GZIP").batch(BATCH).map(
        lambda serialized: tf.io.parse_example(serialized, spec)[name].row_lengths()).prefetch(1)
    lengths = _joined([batch.numpy() for batch in batches])
    found = Histogram.of(lengths)
    return Rows(tokens={name: found}, trained=found, trained_tokens=found.total)


def _ragged(path: str) -> Iterator[str]:
    """Names of the ragged features of a file, by its first record."""
    for record in tf.data.TFRecordDataset(path, "GZIP").take(1).as_numpy_iterator():
        for name in sorted(tf.train.Example.FromString(record).features.feature):
            if name.endswith(RAGGED):
                yield name.removesuffix(RAGGED)


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.int64), *parts]).astype(np.int64)


def _as_trained(sides: Sequence[np.ndarray], limit: int, cuts: bool) -> tuple[Histogram, int]:
    """Lengths [rows] of each sequence to those that training sees: by the longest of a row, and all tokens together."""
    if not sides:
        return Histogram(), 0
    lengths = np.stack(sides)  # [sequences, rows]
    if limit and cuts:
        lengths = np.minimum(lengths, limit)
    elif limit:
        lengths = lengths[:, lengths.max(axis=0) <= limit]
    return Histogram.of(lengths.max(axis=0, initial=0)), int(lengths.sum())


Each = Callable[[Callable[[Task], Rows], Sequence[Task]], Iterable[Rows]]


def measure_all(tasks: Sequence[Task], each: Each = map) -> Rows:
    """What all files are like.

    Args:
        tasks: the files.
        each: applies a function to each of them, in whatever order; `map` does it here, one after the other.
    """
    return functools.reduce(lambda mine, other: mine + other, each(measure, tasks), Rows())


def split_files(folder: str) -> dict[str, list[str]]:
    """Split → its files, of an artifact's folder; splits without files are left out."""
    if not folder or not tf.io.gfile.isdir(folder):
        return {}
    names = sorted(name.rstrip("/") for name in tf.io.gfile.listdir(folder))
    splits = {name.removeprefix("Split-"): os.path.join(folder, name) for name in names if name.startswith("Split-")}
    found = {split: [os.path.join(path, name) for name in sorted(tf.io.gfile.listdir(path))
                     if not name.startswith(".")] for split, path in splits.items()}
    return {split: files for split, files in found.items() if files}
