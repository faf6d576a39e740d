"""The first rows of every part of a data set, for a look at it before a run. Nothing is written."""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

from components.rows import BadRow, Columns, Row, Source
from components.splits_writer import SHARD_BYTES, Plan, row_digest

SAMPLE_BYTES = 64 << 20   # Text that is read in a second or two. Smaller data sets are read whole.


class Sample(NamedTuple):
    """What was read of a data set.

    Attributes:
        rows: split → rows, in the order of the source.
        estimates: split → rows it has in all; exact if the sample is whole.
        bad: rows that cannot be used.
        read: rows read, bad ones included.
        whole: whether all rows were read.
    """

    rows: dict[str, list[Row]]
    estimates: dict[str, int]
    bad: list[BadRow]
    read: int
    whole: bool


def take_sample(source: Source, columns: Columns, shares: dict[str, float], limit: int = SAMPLE_BYTES) -> Sample:
    """Reads the beginning of each piece, and each row into the split that a run would put it in.

    Where the rows of a split are sorted by label, it is read on until a second label shows.

    Args:
        source: what is read.
        columns: of its rows.
        shares: split → share of the rows whose piece names no split.
        limit: text to read, in bytes; each piece gets its part of it.

    Raises:
        TextrailError: the source is not there, or is no such thing as it should be.
    """
    pieces = source.pieces()
    plan = Plan(pieces, shares, SHARD_BYTES)
    total = max(sum(piece.size for piece in pieces), 1)
    last = {piece.split: number for number, piece in enumerate(pieces)}
    rows: dict[str, list[Row]] = {split: [] for split in plan.shards}
    estimates: dict[str, float] = defaultdict(float)
    labels: dict[str | None, set[bytes]] = defaultdict(set)
    bad: list[BadRow] = []
    read, whole = 0, True
    texts, label = columns.read, columns.place("label")
    for number, piece in enumerate(pieces):
        counts: dict[str, int] = defaultdict(int)
        size, share, seen, scale = 0, limit * piece.size / total, labels[piece.split], 1.0
        for row in source.read(piece):
            if size >= share and (len(seen) > 1 or label is None or number < last[piece.split]):
                whole, scale = False, max(piece.size / max(size, 1), 1.0)
                break
            read += 1
            if isinstance(row, BadRow):
                bad.append(row)
                size += len(row.row)
                continue
            split, _ = plan.shard_of(row_digest(row[:texts]), piece.split)
            counts[split] += 1
            if size < share or label is None or row[label] not in seen:
                rows[split].append(row)
            if label is not None:
                seen.add(row[label])
            size += sum(map(len, row)) + len(row)   # A separator or line end behind each value.
        for split, count in counts.items():
            estimates[split] += count * scale
    return Sample(rows, {split: round(estimates[split]) for split in rows}, bad, read, whole)
