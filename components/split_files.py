"""The files that `data.path` names, each with the split that its rows belong to."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable

from components import files
from components.rows import SPLITS
from modules.errors import TextrailError

GZIP_FACTOR = 4   # Text is about this much larger than its gzip.
TELLING = 64 << 20   # Bytes of a gzip file whose text is sure to be below 4 GB, where its last bytes can tell the size.

SplitFile = tuple["str | None", files.File]   # The split is None where a hash of each row decides.


def find_split_files(path: str | dict[str, str]) -> list[SplitFile]:
    """The files of `data.path`: one pattern, or one for each split.

    Raises:
        TextrailError: no file matches, or one belongs to two splits.
    """
    patterns: dict[str | None, str] = (
        {split: path[split] for split in SPLITS if split in path} if isinstance(path, dict) else {None: path})
    found = []
    for split, pattern in patterns.items():
        matches = files.find(pattern)
        if not matches:
            key = f"data.path.{split}" if split else "data.path"
            raise TextrailError(f"a file at {pattern}", files.describe_missing(pattern), f"Correct {key}.")
        found += [(split, file) for file in matches]
    _check_disjoint(found)
    return found


def split_fingerprint(path: str | dict[str, str]) -> str:
    """Hex digest of the splits, paths and contents of the files of `data.path`; raises as `find_split_files`."""
    digest, found = hashlib.sha256(), find_split_files(path)
    whole = files.WHOLE_BYTES if sum(file.size for _, file in found) <= files.ALL_BYTES else 0
    for split, file in found:
        digest.update(f"{split} {file.path} {files.content_hash(file, whole)}\n".encode())
    return digest.hexdigest()


def text_size(file: files.File) -> int:
    """Bytes of text in a file, plain or gzipped: of a gzipped one what its last four bytes say, or an estimate."""
    if not file.path.endswith(".gz"):
        return file.size
    told = 0
    if 4 <= file.size <= TELLING:
        with files.open_file(file.path) as stream:
            stream.seek(file.size - 4)
            told = int.from_bytes(stream.read(4), "little")
    return told if told >= file.size else file.size * GZIP_FACTOR   # Of several streams the last one tells.


def _check_disjoint(found: Iterable[SplitFile]) -> None:
    """Refuses a file, links followed, that belongs to two splits."""
    owners: dict[str, tuple[str | None, str]] = {}
    for split, file in found:
        resolved = file.path if files.is_uri(file.path) else os.path.realpath(file.path)
        owner, path = owners.setdefault(resolved, (split, file.path))
        if owner != split:
            raise TextrailError("splits without common files in data.path",
                                f"one file as {owner}: {path} and {split}: {file.path}",
                                "A row in two splits makes the metrics look better than they are; give each split "
                                "its own files, or data.path one file for textrail to split.")
