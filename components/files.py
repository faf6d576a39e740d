"""Finding, opening and fingerprinting input files, on this machine or behind a URI.

Local paths need nothing but Python, so that a run whose steps are all cached starts fast; anything with a scheme
(`gs://`, `s3://`, `hdfs://`, …) goes through Beam's file systems, which every Beam worker has.
"""

from __future__ import annotations

import difflib
import glob
import hashlib
import os
from collections.abc import Iterable
from typing import BinaryIO, NamedTuple

WHOLE_BYTES = 256 << 20   # Files up to this size are hashed whole: about 0.3 s.
ALL_BYTES = 8 << 30       # Files that are larger together are not, for that is done in one process.
END_BYTES = 1 << 20       # Of larger ones, this much of either end.


class File(NamedTuple):
    """A file that exists.

    Attributes:
        path: as it is opened.
        size: bytes.
        modified: seconds since 1970, 0 where the file system does not say.
    """

    path: str
    size: int
    modified: float


def is_uri(path: str) -> bool:
    """Whether `path` has a scheme, hence is not a plain local path."""
    return "://" in path


def find(pattern: str) -> list[File]:
    """Files that a path or a glob pattern names, sorted by path; empty where there is none.

    A file that carries the pattern's own characters (`reviews[1].csv`) is taken literally.
    """
    if is_uri(pattern):
        from apache_beam.io.filesystems import FileSystems

        # Beam finds no match in a bucket or folder that is missing, and says so with an empty list.
        found = FileSystems.match([pattern])[0].metadata_list
        files = [File(file.path, file.size_in_bytes, file.last_updated_in_seconds) for file in found]
    else:
        paths = [pattern] if os.path.isfile(pattern) else filter(os.path.isfile, glob.glob(pattern, recursive=True))
        files = [File(path, os.path.getsize(path), os.path.getmtime(path)) for path in paths]
    return sorted(files)


def open_file(path: str) -> BinaryIO:
    """Opens a file for reading bytes as they are stored."""
    if not is_uri(path):
        return open(path, "rb")
    from apache_beam.io.filesystem import CompressionTypes
    from apache_beam.io.filesystems import FileSystems

    return FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)


def content_hash(file: File, whole_bytes: int = WHOLE_BYTES) -> str:
    """Hex sha256 of a file's content; beyond `whole_bytes` of its size, time and both ends, enough to see a change."""
    digest = hashlib.sha256()
    with open_file(file.path) as stream:
        if file.size <= max(whole_bytes, 2 * END_BYTES):
            while block := stream.read(1 << 20):
                digest.update(block)
        else:
            digest.update(f"{file.size} {file.modified}".encode())
            digest.update(stream.read(END_BYTES))
            stream.seek(file.size - END_BYTES)
            digest.update(stream.read(END_BYTES))
    return digest.hexdigest()


def nearest(name: str, known: Iterable[str]) -> str:
    """A clause with the known name that looks most like `name`; empty where none does.

    Example:
        >>> nearest("reveiw", ["review", "sentiment"])
        ", nearest is 'review'"
    """
    close = difflib.get_close_matches(name, list(known), n=1)
    return f", nearest is '{close[0]}'" if close else ""


def describe_missing(path: str) -> str:
    """A clause on why no file was found at a path or pattern: the first missing part and its nearest neighbour."""
    if is_uri(path):
        return f"nothing at {path}"
    if os.path.isdir(path):
        return f"a folder (its files are {os.path.join(path, '*')})"
    folder, name = os.path.split(path.rstrip("/"))
    while folder and not os.path.isdir(folder) and os.path.dirname(folder) != folder:
        folder, name = os.path.split(folder)
    there = sorted(os.listdir(folder)) if os.path.isdir(folder) else []
    what = "no file matching" if glob.has_magic(name) else "no"
    return f"{what} '{name}' in {folder or '.'}{nearest(name, there)}"
