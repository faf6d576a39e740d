"""Files of records as TensorFlow writes them, read so that damage never passes for the end.

A record is its length (uint64), the length's checksum (uint32), its bytes and their checksum (uint32), all little
endian; a checksum is a masked CRC-32C (tensorflow/core/lib/io/record_writer.h). Files may be compressed as a whole.
TensorFlow's own reader takes a gzip file that was cut off for one that ends there; this one does not.
"""

from __future__ import annotations

import bz2
import io
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import google_crc32c
import zstandard

from components import files
from modules.errors import TextrailError

BLOCK = 4 << 10    # Bytes uncompressed at a time: of zeros, gzip makes a thousand times as many.
BUFFER = 1 << 20   # Bytes read ahead.
LONGEST = 1 << 31  # Bytes. No protocol buffer is larger; a longer record is a damaged length.
HEADER = struct.Struct("<QI")
CHECKSUM = struct.Struct("<I")


class Record(NamedTuple):
    """One record of a file.

    Attributes:
        number: its place in the file, counted from 0.
        offset: byte where it begins, once the file is uncompressed.
        data: its bytes.
    """

    number: int
    offset: int
    data: bytes


def read_records(path: str, digest: Any = None) -> Iterator[Record]:
    """Every record of a file, holding one at a time. A file of no bytes has no records.

    Args:
        path: of a file, plain or compressed as Beam's reader, hence TFX, takes it (gzip, zlib, bzip2, Zstandard);
            which of them its first bytes tell.
        digest: a hash object that is fed the file as it is stored; complete when the last record was read.

    Raises:
        TextrailError: the file is damaged or cut off, with record and byte.
    """
    with _open(path, digest) as (stream, compression):
        number = offset = 0
        where = f" of the data that {compression} holds" if compression else ""

        def damage(what: str) -> TextrailError:
            fix = "Copy or write the file again; after the damage there is no telling where a record begins."
            if number == 0:
                fix = "Is it a file of TFRecords? If so, copy or write it again."
            return TextrailError(f"whole TFRecords in {path}", f"{what}: record {number}, at byte {offset}{where}", fix)

        try:
            while header := stream.read(HEADER.size):
                if len(header) < HEADER.size:
                    raise damage("a file that breaks off")
                length, checksum = HEADER.unpack(header)
                if not _is_length(header) or length >= LONGEST:
                    raise damage("a length whose checksum is wrong")
                body = stream.read(length + CHECKSUM.size)
                if len(body) < length + CHECKSUM.size:
                    raise damage("a file that breaks off")
                data, checksum = body[:length], CHECKSUM.unpack(body[length:])[0]
                if _masked_crc(data) != checksum:
                    raise damage("a record whose checksum is wrong")
                yield Record(number, offset, data)
                number, offset = number + 1, offset + HEADER.size + len(body)
        except _BrokenError as error:
            raise damage(f"a {compression} file that is {error}") from error


def is_compressed(path: str) -> bool:
    """Whether a file's content, whatever its name, is compressed."""
    with _open(path) as (_, compression):
        return compression is not None


def _masked_crc(data: bytes) -> int:
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xa282ead8) & 0xffffffff


def _is_length(header: bytes) -> bool:
    """Whether a record's first 12 bytes are a length and its checksum."""
    return len(header) == HEADER.size and _masked_crc(header[:8]) == HEADER.unpack(header)[1]


class _BrokenError(Exception):
    """What is wrong with a compressed file."""


@contextmanager
def _open(path: str, digest: Any = None) -> Iterator[tuple[Any, str | None]]:
    """A file's uncompressed bytes and the name of its compression, none if it has none."""
    with files.open_file(path) as raw:
        source: Any = _Watched(raw, digest) if digest else raw
        stored: Any = io.BufferedReader(source, BUFFER)
        name = _compression(stored.peek(HEADER.size)[:HEADER.size])
        yield (io.BufferedReader(_Inflated(stored, DECOMPRESSORS[name]), BUFFER) if name else stored), name


def _compression(head: bytes) -> str | None:
    """What a file's first 12 bytes say. A length with its checksum comes first, for a length may look like a magic."""
    if _is_length(head):
        return None
    for name, magic in (("gzip", b"\x1f\x8b"), ("bzip2", b"BZh"), ("Zstandard", b"\x28\xb5\x2f\xfd")):
        if head.startswith(magic):
            return name
    is_zlib = len(head) > 1 and head[0] & 15 == zlib.DEFLATED and int.from_bytes(head[:2], "big") % 31 == 0
    return "zlib" if is_zlib else None


DECOMPRESSORS: dict[str, Callable[[], Any]] = {
    "gzip": lambda: zlib.decompressobj(wbits=31), "zlib": zlib.decompressobj, "bzip2": bz2.BZ2Decompressor,
    "Zstandard": lambda: zstandard.ZstdDecompressor().decompressobj()}


class _Inflated(io.RawIOBase):
    """The content of a compressed file, of one stream or several behind each other."""

    def __init__(self, stored: Any, decompressor: Callable[[], Any]):
        self._stored, self._make = stored, decompressor
        self._current, self._left, self._ready = decompressor(), b"", memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            block = self._left or self._stored.read(BLOCK)
            if self._current.eof:
                if not block:
                    return 0
                self._current = self._make()
            elif not block:
                raise _BrokenError("cut off")
            try:
                self._ready = memoryview(self._current.decompress(block))
            except (zlib.error, OSError, zstandard.ZstdError) as error:
                raise _BrokenError(f"damaged ({error})") from error
            self._left = self._current.unused_data if self._current.eof else b""
        count = min(len(buffer), len(self._ready))
        buffer[:count], self._ready = self._ready[:count], self._ready[count:]
        return count


class _Watched(io.RawIOBase):
    """A file that feeds what is read of it to a hash."""

    def __init__(self, raw: Any, digest: Any):
        self._raw, self._digest = raw, digest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = self._raw.read(len(buffer))
        self._digest.update(block)
        buffer[:len(block)] = block
        return len(block)
