"""A folder of TFRecord shards with a manifest: which rows lie where, and how to tell that they are still the same.

`textrail convert` writes it and `data.source: tfrecord` reads it. Beside `manifest.json` it holds the shards in the
layout of TFX's own examples, `Split-NAME/data_tfrecord-*.gz`, and, if rows were left out, `skipped_rows.jsonl`.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
from typing import Any, NamedTuple

from components import files
from components.rows import SPLITS
from modules.errors import TextrailError

MANIFEST = "manifest.json"
FORMAT = "textrail tfrecords 1"
FIX = "Copy the folder again, or write it again with textrail convert."


class Shard(NamedTuple):
    """One file of such a folder.

    Attributes:
        split: train, validation or test.
        file: its path inside the folder.
        rows: how many records it has.
        text_bytes: of its records, uncompressed.
        size: of the file, in bytes.
        sha256: of the file, in hexadecimal digits.
    """

    split: str
    file: str
    rows: int
    text_bytes: int
    size: int
    sha256: str


def manifest_text(shards: list[Shard], **about: Any) -> str:
    """The content of `manifest.json`.

    Args:
        shards: all of them.
        **about: what else is told, as JSON can hold it.
    """
    rows: dict[str, int] = {}
    for shard in shards:
        rows[shard.split] = rows.get(shard.split, 0) + shard.rows
    content = {"format": FORMAT, "rows": rows, **about, "shards": [shard._asdict() for shard in shards]}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def manifest_of(folder: str) -> str | None:
    """Path of the folder's manifest; none if it has none, or is no folder."""
    path = os.path.join(folder, MANIFEST)
    return path if files.find(path if files.is_uri(path) else glob.escape(path)) else None


def read_shards(manifest: str) -> tuple[list[Shard], str]:
    """What a manifest lists, checked as far as that costs no reading of the shards.

    Args:
        manifest: path of `manifest.json`.

    Returns:
        The shards, their files as paths that can be opened, and the manifest's sha256, which stands for all they hold.

    Raises:
        TextrailError: it is not such a manifest, or a shard is missing or of another size.
    """
    with files.open_file(manifest) as stream:
        content = stream.read()
    try:
        described = json.loads(content)
        if described["format"] != FORMAT:
            raise ValueError(described["format"])
        shards = [Shard(**shard) for shard in described["shards"]]
        if wrong := [shard for shard in shards if shard.split not in SPLITS or not isinstance(shard.size, int)]:
            raise ValueError(wrong[0])
    except (ValueError, KeyError, TypeError) as error:
        raise TextrailError(f"a manifest of textrail convert ({FORMAT!r}) in {manifest}", f"another file ({error})",
                            "Name the data files themselves in data.path.") from None
    folder = os.path.dirname(manifest)
    pattern = os.path.join(folder if files.is_uri(folder) else glob.escape(folder), "Split-*", "*")
    sizes = {os.path.relpath(file.path, folder): file.size for file in files.find(pattern)}
    for shard in shards:
        if sizes.get(shard.file) != shard.size:
            found = f"one of {sizes[shard.file]:,}" if shard.file in sizes else "none"
            raise TextrailError(f"a file of {shard.size:,} bytes at {os.path.join(folder, shard.file)}, as "
                                f"{MANIFEST} there says", found, FIX)
    paths = [shard._replace(file=os.path.join(folder, shard.file)) for shard in shards]
    return paths, hashlib.sha256(content).hexdigest()
