"""Records as TensorFlow writes them, whole and damaged in every way."""

import bz2
import gzip
import hashlib
import tracemalloc
import zlib

import pytest
import tensorflow as tf
import zstandard

from components.tfrecords import is_compressed, read_records
from modules.errors import TextrailError

RECORDS = [b"", b"one", b"\0" * 300, b"last"]
OFFSETS = [0, 16, 35, 351]
WAYS = {"plain": bytes, "gzip": gzip.compress, "zlib": zlib.compress, "bzip2": bz2.compress,
        "Zstandard": zstandard.compress}


@pytest.fixture
def content(tmp_path) -> bytes:
    """What TensorFlow writes for RECORDS."""
    with tf.io.TFRecordWriter(str(tmp_path / "written")) as writer:
        for record in RECORDS:
            writer.write(record)
    return (tmp_path / "written").read_bytes()


def read(path, content: bytes, digest=None) -> list[tuple]:
    path.write_bytes(content)
    return [tuple(record) for record in read_records(str(path), digest)]


@pytest.mark.parametrize("way", WAYS)
def test_compression_is_known_by_content(tmp_path, content, way):
    digest = hashlib.sha256()
    stored = WAYS[way](content)
    assert read(tmp_path / "x", stored, digest) == list(zip(range(4), OFFSETS, RECORDS, strict=True))
    assert is_compressed(str(tmp_path / "x")) == (way != "plain")
    assert digest.hexdigest() == hashlib.sha256(stored).hexdigest()


@pytest.mark.parametrize("way", ["GZIP", "ZLIB"])
def test_what_tensorflow_compresses(tmp_path, way):
    path = str(tmp_path / "x")
    with tf.io.TFRecordWriter(path, way) as writer:
        writer.write(b"one")
    assert [record.data for record in read_records(path)] == [b"one"]


def test_a_length_that_looks_like_a_magic_is_a_length(tmp_path):
    with tf.io.TFRecordWriter(str(tmp_path / "x")) as writer:
        writer.write(b"a" * 0x088b1f)   # its length is stored as 1f 8b 08
    assert [len(record.data) for record in read_records(str(tmp_path / "x"))] == [0x088b1f]


@pytest.mark.parametrize("way", WAYS)
def test_an_empty_file_and_streams_behind_each_other(tmp_path, content, way):
    assert read(tmp_path / "x", b"") == []
    assert read(tmp_path / "x", WAYS[way](b"")) == []
    assert [record[2] for record in read(tmp_path / "x", WAYS[way](content) * 2)] == RECORDS * 2


@pytest.mark.parametrize("way", WAYS)
def test_cut_off_at_any_byte_is_never_a_whole(tmp_path, content, way):
    stored = WAYS[way](content)
    ends = {0, *OFFSETS, len(content)} if way == "plain" else {0, len(stored)}   # of records, which nothing can tell
    for end in range(len(stored)):
        if end not in ends:
            with pytest.raises(TextrailError, match=r"whole TFRecords in .*/x; received "):
                read(tmp_path / "x", stored[:end])


@pytest.mark.parametrize("way", WAYS)
def test_any_changed_byte_is_found(tmp_path, content, way):
    stored = WAYS[way](content)
    for place in range(len(stored)):
        damaged = bytearray(stored)
        damaged[place] ^= 0x55
        try:
            found = [record[2] for record in read(tmp_path / "x", bytes(damaged))]
        except TextrailError:
            continue
        assert found == RECORDS and way != "plain"   # a compressed file's header has bytes that mean nothing


@pytest.mark.parametrize("change, sentence", [
    (lambda b: b[:40], "a file that breaks off: record 2, at byte 35"),
    (lambda b: b[:100], "a file that breaks off: record 2, at byte 35"),
    (lambda b: b[:36] + b"\x07" + b[37:], "a length whose checksum is wrong: record 2, at byte 35"),
    (lambda b: b[:60] + b"\x07" + b[61:], "a record whose checksum is wrong: record 2, at byte 35"),
])
def test_damage_is_named_with_record_and_byte(tmp_path, content, change, sentence):
    with pytest.raises(TextrailError) as caught:
        read(tmp_path / "x", change(content))
    assert caught.value.received == sentence
    assert caught.value.fix.startswith("Copy or write the file again; after the damage there is no telling where")
    with pytest.raises(TextrailError) as caught:
        read(tmp_path / "x", gzip.compress(change(content)))
    assert caught.value.received == sentence + " of the data that gzip holds"


def test_a_broken_gzip_and_another_kind_of_file(tmp_path, content):
    with pytest.raises(TextrailError, match=r"a gzip file that is cut off: record 4, at byte 371 of the data that"):
        read(tmp_path / "x", gzip.compress(content)[:-4])
    with pytest.raises(TextrailError, match=r"a gzip file that is damaged \(.*Is it a file of TFRecords\?"):
        read(tmp_path / "x", b"\x1f\x8b" + bytes(20))
    with pytest.raises(TextrailError, match=r"a length whose checksum is wrong: record 0, at byte 0\. Is it a file of"):
        read(tmp_path / "x", b"text,label\nfine,pos\n")


def test_memory_does_not_grow_with_the_file(tmp_path):
    path = str(tmp_path / "x")
    with tf.io.TFRecordWriter(path, "GZIP") as writer:
        for _ in range(400):
            writer.write(bytes(100_000))   # 40 MB
    tracemalloc.start()
    assert sum(len(record.data) for record in read_records(path)) == 40_000_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16_000_000
