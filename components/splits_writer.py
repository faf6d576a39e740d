"""Reads a source through Beam and writes its rows as shuffled shards, in memory that does not grow with the data
(until there are MOST_SHARDS).

Two steps with a tiny exchange between them, as an external sort works:

1. A worker reads one piece of the source. Each row gets a digest of its text, which decides its split (where the source
   leaves that open) and its shard. Rows are held up to SPILL_BYTES, then spilled to a temporary file, shard by shard.
   Beam carries only where each shard's rows lie.
2. For each shard a worker collects its rows from all spills, sorts them by digest and writes one file. As digests know
   nothing of the input's order, that is a shuffle, and the same one every time whatever the runner. A seed makes it
   another one.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import pickle
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import apache_beam as beam
import tensorflow as tf

from components.rows import SPLITS, BadRow, Columns, Piece, Row, Source
from modules.errors import TextrailError
from modules.progress import report as tell

SHARD_BYTES = 64 << 20   # Text aimed at in one shard: what step 2 holds at a time.
SPILL_BYTES = 32 << 20   # Text that step 1 holds before it spills.
# Of a split. With more, each spill would have fewer than ten reviews for a shard, and reading those one by one takes
# longer than all the rest. Of more than 128 GB the shards, and with them step 2's memory, grow instead.
MOST_SHARDS = 2048
SUMMARY = "summary.json"
SKIPPED = "skipped_rows.jsonl"
ROWS_SHOWN = 10   # Of those that cannot be used.

Shard = tuple[str, int]   # Split and number.
Rows = list[tuple[bytes, bytes]]   # Digest and serialized tf.Example.
# Where one shard's rows lie in a temporary file: path, first byte and number of bytes, which are a pickled `Rows`.
# What travels through Beam is plain tuples, since Beam takes named ones for rows of a schema.
Spill = tuple[str, int, int]


class ShardFile(NamedTuple):
    """A file that step 2 wrote.

    Attributes:
        split: train, validation or test.
        file: its path inside the folder of the splits.
        rows: how many records it has.
        text_bytes: of its records, uncompressed.
    """

    split: str
    file: str
    rows: int
    text_bytes: int


class Plan:
    """Which split and which shard a row goes to.

    Args:
        pieces: all of the source's pieces.
        shares: split → share of the rows whose piece names no split; they sum to 1.
        shard_bytes: text aimed at in one shard, as far as MOST_SHARDS allows.
        seed: of the order of the rows, among the shards and within them; no split depends on it. None orders by the
            digest itself.

    Attributes:
        shards: split → number of shards, in the order train, validation, test.
    """

    def __init__(self, pieces: Sequence[Piece], shares: dict[str, float], shard_bytes: int,
                 seed: int | None = None):
        sizes: dict[str, float] = defaultdict(float)
        for piece in pieces:
            for split, share in ({piece.split: 1.0} if piece.split else shares).items():
                if share > 0:
                    sizes[split] += piece.size * share
        self.shards = {split: min(max(1, math.ceil(sizes[split] / shard_bytes)), MOST_SHARDS)
                       for split in SPLITS if split in sizes}
        # Upper ends, on the scale of a 64-bit hash. The last one takes the rounding.
        ends, total = [], 0.0
        for split in SPLITS:
            if shares.get(split, 0) > 0:
                total += shares[split]
                ends.append((split, total * 2**64))
        self._ends = ends
        self._key = b"" if seed is None else str(seed).encode()

    def shard_of(self, digest: bytes, split: str | None) -> Shard:
        """The shard of a row with this digest, whose piece names this split or none."""
        if split is None:
            place = int.from_bytes(digest[:8], "big")
            split = next((split for split, end in self._ends if place < end), self._ends[-1][0])
        return split, int.from_bytes(self.order_of(digest)[8:], "big") % self.shards[split]

    def order_of(self, digest: bytes) -> bytes:
        """The 16 bytes that a row of this digest is sorted by."""
        return hashlib.blake2b(digest, digest_size=16, key=self._key).digest() if self._key else digest


def row_digest(texts: Row) -> bytes:
    """16 bytes that depend on the texts of a row that a model reads (the first `Columns.read` of its values).

    Label, translation or slice change nothing: the same text twice stays in one split.
    """
    # Values hold no NUL byte, so that joined ones cannot be mistaken for others.
    return hashlib.blake2b(b"\0".join(texts), digest_size=16).digest()


class ExampleEncoder:
    """Serializes rows as tf.Examples with one bytes feature a column; fills one message again and again."""

    def __init__(self, names: Sequence[str]):
        self._example = tf.train.Example()
        for name in names:
            self._example.features.feature[name].bytes_list.value.append(b"")
        self._values = [self._example.features.feature[name].bytes_list.value for name in names]

    def __call__(self, row: Row) -> bytes:
        for values, value in zip(self._values, row, strict=True):
            values[0] = value
        return self._example.SerializeToString(deterministic=True)


class _ReadPiece(beam.DoFn):
    """Step 1, for a numbered piece. Outputs (shard, spill) pairs and, tagged `reports`, a dict of what was read.

    Errors travel as data, since a runner hands back an exception as text in a traceback.
    """

    def __init__(self, source: Source, columns: Columns, plan: Plan, temp: str):
        self._source, self._columns, self._plan, self._temp = source, columns, plan, temp

    def setup(self) -> None:
        self._encode = ExampleEncoder(self._columns.names)

    def process(self, numbered: tuple) -> Iterator[Any]:
        number, piece = numbered[0], Piece(*numbered[1])
        bad = _BadRows(os.path.join(self._temp, f"skipped-{uuid.uuid4().hex}.jsonl"), piece.split)
        report: dict[str, Any] = {"piece": number, "read": 0, "error": None}
        held: dict[Shard, Rows] = defaultdict(list)
        size, texts = 0, self._columns.read
        try:
            for row in self._source.read(piece):
                report["read"] += 1
                if isinstance(row, BadRow):
                    bad.add(row)
                    continue
                digest, example = row_digest(row[:texts]), self._encode(row)
                held[self._plan.shard_of(digest, piece.split)].append((self._plan.order_of(digest), example))
                size += len(example)
                if size >= SPILL_BYTES:
                    yield from self._spill(held)
                    held.clear()
                    size = 0
            yield from self._spill(held)
        except TextrailError as error:
            report["error"] = [error.expected, error.received, error.fix]
        tell(f"part {number + 1}: {report['read']:,} rows read")
        report |= {"skipped": bad.close(), "skipped_file": bad.path}
        yield beam.pvalue.TaggedOutput("reports", report)

    def _spill(self, held: dict[Shard, Rows]) -> Iterator[tuple[Shard, Spill]]:
        path, offset = os.path.join(self._temp, f"spill-{uuid.uuid4().hex}"), 0
        with tf.io.gfile.GFile(path, "wb") as file:
            for shard, rows in held.items():
                block = pickle.dumps(rows, protocol=pickle.HIGHEST_PROTOCOL)
                file.write(block)
                yield shard, (path, offset, len(block))
                offset += len(block)


class _BadRows:
    """A file of JSON lines, for the rows of one split or none, that comes into being with its first row."""

    def __init__(self, path: str, split: str | None):
        self.path, self._split, self._count = path, split, 0
        self._file: Any = None

    def add(self, row: BadRow) -> None:
        if self._file is None:
            self._file = tf.io.gfile.GFile(self.path, "w")
        self._file.write(json.dumps({"split": self._split, **row._asdict()}, ensure_ascii=False) + "\n")
        self._count += 1

    def close(self) -> int:
        """Returns how many rows there were."""
        if self._file is not None:
            self._file.close()
        return self._count


class _WriteShard(beam.DoFn):
    """Step 2, for a shard and its spills. Outputs a dict that tells what was written, as `ShardFile` has it."""

    def __init__(self, plan: Plan, uri: str, temp: str):
        self._plan, self._uri, self._temp = plan, uri, temp

    def process(self, grouped: tuple) -> Iterator[dict]:
        (split, number), spills = grouped
        rows: Rows = []
        for spill in spills:
            if spill is not None:
                rows += _load(spill)
        rows.sort()
        unfinished = os.path.join(self._temp, uuid.uuid4().hex)
        # Level 1 writes 34 MB of reviews in 0.5 s, 16 % larger than TensorFlow's default, which takes 2.3 s.
        with tf.io.TFRecordWriter(unfinished, tf.io.TFRecordOptions("GZIP", compression_level=1)) as writer:
            for _, example in rows:
                writer.write(example)
        name = f"Split-{split}/data_tfrecord-{number:05d}-of-{self._plan.shards[split]:05d}.gz"
        # Renamed when complete, so that a killed or repeated attempt leaves no half file.
        tf.io.gfile.rename(unfinished, os.path.join(self._uri, name), overwrite=True)
        tell(f"{name}: {len(rows):,} rows written")
        yield {"written": ShardFile(split, name, len(rows), sum(len(example) for _, example in rows))._asdict()}


def _load(spill: Spill) -> Rows:
    path, offset, length = spill
    with tf.io.gfile.GFile(path, "rb") as file:
        file.seek(offset)
        return pickle.loads(file.read(length))


def _write_summary(everything: tuple, path: str) -> None:
    with tf.io.gfile.GFile(path, "w") as file:
        json.dump(list(everything[1]), file)


def write_splits(pipeline: beam.Pipeline, source: Source, columns: Columns, pieces: Sequence[Piece], plan: Plan,
                 uri: str, temp: str) -> None:
    """Adds both steps to a pipeline. When it has run, `temp` holds the summary that `finish` reads.

    Args:
        pipeline: where to add them.
        source: what is read.
        columns: of a row's values, which become features of their names.
        pieces: the source's pieces.
        plan: which row goes where.
        uri: folder that gets `Split-NAME/data_tfrecord-*.gz`.
        temp: folder for temporary files, on the same file system, reachable by every worker.
    """
    for folder in [temp, *(os.path.join(uri, f"Split-{split}") for split in plan.shards)]:
        tf.io.gfile.makedirs(folder)
    read = (pipeline
            | "Pieces" >> beam.Create([(number, tuple(piece)) for number, piece in enumerate(pieces)])
            | "SpreadPieces" >> beam.Reshuffle()
            | "ReadPiece" >> beam.ParDo(_ReadPiece(source, columns, plan, temp)).with_outputs(
                "reports", main="spills"))
    # Every shard is named once, for one that no row falls into to be written all the same.
    shards = pipeline | "Shards" >> beam.Create(
        [((split, number), None) for split, count in plan.shards.items() for number in range(count)])
    written = ((read.spills, shards)
               | "Rows" >> beam.Flatten()
               | "RowsOfShard" >> beam.GroupByKey()
               | "WriteShard" >> beam.ParDo(_WriteShard(plan, uri, temp)))
    _ = ((read.reports, written)
         | "Counts" >> beam.Flatten()
         | "AnyKey" >> beam.Map(lambda count: (None, count))
         | "Together" >> beam.GroupByKey()
         | "Summary" >> beam.Map(_write_summary, os.path.join(temp, SUMMARY)))


class Counts(NamedTuple):
    """What `finish` found: rows written to each split, rows skipped, and the files in the order of their names."""

    written: dict[str, int]
    skipped: int
    shards: list[ShardFile]


def finish(uri: str, temp: str, plan: Plan, skip: bool) -> Counts:
    """Checks that no row was lost, and lists the skipped ones beside the splits.

    Args:
        uri: folder with the splits; gets `skipped_rows.jsonl`, which `read_skipped` counts, if rows were skipped.
        temp: the temporary folder.
        plan: as given to `write_splits`.
        skip: whether rows that cannot be used are left out; otherwise they are an error.

    Raises:
        TextrailError: a file could not be read, rows cannot be used and `skip` is false, or a split has no rows.
    """
    with tf.io.gfile.GFile(os.path.join(temp, SUMMARY)) as file:
        summary = json.load(file)
    reports = sorted((part for part in summary if "piece" in part), key=lambda report: report["piece"])
    for report in reports:
        if report["error"]:
            raise TextrailError(*report["error"])
    skipped = sum(report["skipped"] for report in reports)
    read = sum(report["read"] for report in reports)
    lists = [report["skipped_file"] for report in reports if report["skipped"]]
    if skipped and not skip:
        raise unusable(skipped, read, (BadRow(*(fields[name] for name in BadRow._fields))
                                       for fields in map(json.loads, _lines(lists))))
    shards = sorted((ShardFile(**part["written"]) for part in summary if "written" in part),
                    key=lambda shard: (list(plan.shards).index(shard.split), shard.file))
    written = {split: sum(shard.rows for shard in shards if shard.split == split) for split in plan.shards}
    assert read == sum(written.values()) + skipped, f"{read} rows read, {written} written, {skipped} skipped"
    check_no_split_is_empty(written, skipped)
    if skipped:
        with tf.io.gfile.GFile(os.path.join(uri, SKIPPED), "w") as file:
            for line in _lines(lists):
                file.write(line)
    return Counts(written, skipped, shards)


def unusable(skipped: int, read: int, bad: Iterable[BadRow]) -> TextrailError:
    """What to say of rows that cannot be used: how many of those read, and the first of them."""
    shown = [f"{row}\n" for row in islice(bad, ROWS_SHOWN + 1)]
    if len(shown) > ROWS_SHOWN:
        shown[ROWS_SHOWN] = "…"
    return TextrailError(
        "rows that can be used", f"{skipped:,} of {read:,} that cannot:\n{''.join(shown)}",
        "Mend them, or set data.bad_rows=skip to leave them out and have them listed in a file.")


def check_no_split_is_empty(written: dict[str, int], skipped: int) -> None:
    """Refuses a split without rows.

    Args:
        written: split → its rows.
        skipped: rows that could not be used.

    Raises:
        TextrailError: one has none.
    """
    for split, count in written.items():
        if count == 0:
            raise TextrailError(f"rows in the {split} split",
                                f"none, of {sum(written.values()) + skipped:,} rows read, {skipped:,} skipped",
                                "Give it a file with rows, a larger share in data.split, or more data; of text files, "
                                "see in data.documents what counts as one.")


def read_skipped(uri: str) -> dict[str | None, Counter[str]]:
    """How many rows `finish` left out, and why.

    Args:
        uri: folder with the splits.

    Returns:
        Split → reason → rows; the split is None where a hash of each row would have decided it. Empty if no row was
        skipped.
    """
    path = os.path.join(uri, SKIPPED)
    skipped: dict[str | None, Counter[str]] = defaultdict(Counter)
    for line in _lines([path] if tf.io.gfile.exists(path) else []):
        row = json.loads(line)
        skipped[row["split"]][row["reason"]] += 1
    return dict(skipped)


def _lines(paths: Iterable[str]) -> Iterator[str]:
    for path in paths:
        with tf.io.gfile.GFile(path) as file:
            yield from file
