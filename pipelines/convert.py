"""`textrail convert`: the rows of a run, or of data files, as shuffled TFRecord shards that are prepared once."""

from __future__ import annotations

import hashlib
import os
import uuid
from typing import Any, NamedTuple

import tensorflow as tf

from components import files, splits_writer
from components.beam_runner import make_pipeline
from components.rows import wanted
from components.sources import make_source
from components.tfrecord_folder import MANIFEST, Shard, manifest_text
from modules.errors import TextrailError
from modules.progress import report
from pipelines import preflight
from pipelines.sections import DataSettings

MEGABYTE = 1 << 20


class Converted(NamedTuple):
    """What `convert` wrote.

    Attributes:
        rows: split → rows.
        skipped: rows that were left out, which `skipped_rows.jsonl` lists.
        shards: number of files.
        data: `data` of the settings that read it back.
    """

    rows: dict[str, int]
    skipped: int
    shards: int
    data: dict[str, Any]


def convert(settings: DataSettings, out: str, shard_mb: int) -> Converted:
    """Writes rows as gzipped TFRecords of tf.Examples, with a manifest of counts and hashes.

    Splits are those that a run would make. Memory holds one shard's text a worker, whatever the size of the data; the
    disk beside `out` holds all text once while the rows are sorted.

    Args:
        settings: what is read, with absolute paths; `seed` decides the order of the rows.
        out: folder that must not exist, or be empty. It appears when everything is in it.
        shard_mb: MB (2^20 bytes) of text aimed at in one shard, before compression.

    Raises:
        TextrailError: `out` holds something, the source is not there, or it has rows that cannot be used.
    """
    if shard_mb < 1:
        raise TextrailError("at least 1 MB in a shard", f"--shard-mb {shard_mb}", "64 suits most data.")
    out = out if files.is_uri(out) else os.path.abspath(os.path.expanduser(out))
    _check_free(out)
    data = settings.data.model_dump(exclude={"schema_file"})
    source, columns = make_source(data), wanted(data)
    made_from = {"data": data, "fingerprint": source.fingerprint()}
    pieces = source.pieces()
    plan = splits_writer.Plan(pieces, data["split"], shard_mb * MEGABYTE, settings.seed)
    place = settings.beam.model_dump()
    if preflight.is_wanted(place):
        report(str(preflight.check(place, out, preflight.data_files(settings.data))), lasting=True)
    beside = os.path.join(os.path.dirname(out), f".{os.path.basename(out)}.{uuid.uuid4().hex[:8]}")
    temp = os.path.join(beside, "temp")
    try:
        with make_pipeline(place, "convert", out) as pipeline:
            splits_writer.write_splits(pipeline, source, columns, pieces, plan, beside, temp)
        counts = splits_writer.finish(beside, temp, plan, skip=data["bad_rows"] == "skip")
        tf.io.gfile.rmtree(temp)
        shards = [_measured(shard, beside) for shard in counts.shards]
        back = {"source": "tfrecord", "path": ".", **dict(zip(columns.roles, columns.names, strict=True))}
        with tf.io.gfile.GFile(os.path.join(beside, MANIFEST), "w") as file:
            file.write(manifest_text(shards, skipped_rows=counts.skipped, seed=settings.seed, data=back,
                                     made_from=made_from))
        if tf.io.gfile.isdir(out):
            tf.io.gfile.rmtree(out)   # It is empty.
        tf.io.gfile.rename(beside, out)
    finally:
        if tf.io.gfile.exists(beside):
            tf.io.gfile.rmtree(beside)
    return Converted(counts.written, counts.skipped, len(shards), back | {"path": out})


def _check_free(out: str) -> None:
    if tf.io.gfile.exists(out) and (not tf.io.gfile.isdir(out) or tf.io.gfile.listdir(out)):
        raise TextrailError(f"nothing, or an empty folder, at {out}",
                            "a folder with files" if tf.io.gfile.isdir(out) else "a file",
                            "Name another folder, or remove that one.")


def _measured(shard: splits_writer.ShardFile, folder: str) -> Shard:
    """A shard with the size and sha256 of its file."""
    digest, size = hashlib.sha256(), 0
    with files.open_file(os.path.join(folder, shard.file)) as stream:
        while block := stream.read(MEGABYTE):
            digest.update(block)
            size += len(block)
    return Shard(*shard, size, digest.hexdigest())
