"""Documents of text files, case by case, with exact documents, lines and bytes; and parts that lose none."""

import gzip
import random
import tracemalloc

import pytest

from components import source_text
from components.rows import BadRow
from components.source_text import TextSource
from modules.errors import TextrailError


def read(path, documents="block"):
    source = TextSource({"path": path if isinstance(path, dict) else str(path), "documents": documents})
    return [row for piece in source.pieces() for row in source.read(piece)]


@pytest.fixture
def rows(tmp_path):
    """Writes bytes to a file and reads its documents; an unusable one as (line, reason, beginning)."""
    def write_and_read(content: bytes, documents="block", name="texts.txt"):
        (tmp_path / name).write_bytes(content)
        found = read(tmp_path / name, documents)
        assert all(row.file == str(tmp_path / name) and row.line == row.last_line
                   for row in found if isinstance(row, BadRow))
        return [(row.line, row.reason, row.row) if isinstance(row, BadRow) else row for row in found]
    return write_and_read


TEXT = b"\xef\xbb\xbf\n A title\n\nFirst line,\r\nsecond.\r\n \t\r\n\r\nThe last"


@pytest.mark.parametrize("name", ["texts.txt", "texts.txt.gz", "gzip_without_the_name"])
@pytest.mark.parametrize("documents, expected", [
    ("file", [(b"A title\n\nFirst line,\r\nsecond.\r\n \t\r\n\r\nThe last",)]),
    ("block", [(b"A title",), (b"First line,\r\nsecond.",), (b"The last",)]),
    ("line", [(b"A title",), (b"First line,",), (b"second.",), (b"The last",)])])
def test_documents(rows, name, documents, expected):
    assert rows(TEXT if name.endswith(".txt") else gzip.compress(TEXT), documents, name) == expected


def test_patterns_and_splits(tmp_path):
    for name in ("b.txt", "a.txt", "held.txt", "other.md"):
        (tmp_path / name).write_text(name)
    assert read(tmp_path / "[ab].txt", "file") == [(b"a.txt",), (b"b.txt",)]
    source = TextSource({"path": {"train": f"{tmp_path}/?.txt", "validation": f"{tmp_path}/held.txt"},
                         "documents": "file"})
    assert [(piece.split, piece.size, piece.where) for piece in source.pieces()] == [
        ("train", 10, ((f"{tmp_path}/a.txt", 0, None), (f"{tmp_path}/b.txt", 0, None))),
        ("validation", 8, ((f"{tmp_path}/held.txt", 0, None),))]
    assert len(source.fingerprint()) == 64


@pytest.mark.parametrize("documents", ["block", "line"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_parts_of_a_file_neither_lose_nor_repeat_a_document(tmp_path, monkeypatch, documents, line_end):
    random.seed(3)
    lines = [random.choice(["", "", "a", "word", "two words", "é" * 9]) for _ in range(300)]
    path = tmp_path / "texts.txt"
    path.write_bytes(line_end.join(lines).encode())
    whole = read(path, documents)
    assert len(whole) > 50
    for size in (*range(1, 40), 977):
        monkeypatch.setattr(source_text, "PIECE_BYTES", size)
        assert read(path, documents) == whole, size


def test_a_piece_is_part_of_a_large_file_or_many_small_ones(tmp_path, monkeypatch):
    monkeypatch.setattr(source_text, "PIECE_BYTES", 10)
    for name, size in (("a", 4), ("b", 6), ("c", 1), ("d", 25)):
        (tmp_path / name).write_bytes(b"x" * size)
    source = TextSource({"path": f"{tmp_path}/*", "documents": "line"})
    assert [[(where[0][-1], *where[1:]) for where in piece.where] for piece in source.pieces()] == [
        [("a", 0, None), ("b", 0, None)], [("c", 0, None)], [("d", 0, 10)], [("d", 10, 20)], [("d", 20, None)]]
    whole = TextSource({"path": f"{tmp_path}/*", "documents": "file"}).pieces()
    assert [piece.size for piece in whole] == [10, 1, 25]


def test_the_size_of_gzipped_text_is_that_of_the_text(tmp_path):
    def size(content):
        (tmp_path / "x.gz").write_bytes(content)
        piece, = TextSource({"path": f"{tmp_path}/x.gz", "documents": "line"}).pieces()
        return piece.size

    whole = gzip.compress(b"the film was good\n" * 100)
    assert size(whole) == 1800
    assert size(whole + gzip.compress(b"")) == 4 * (len(whole) + len(gzip.compress(b"")))   # the last stream tells 0


def test_wrong_encoding_tells_line_and_byte(rows):
    content = "fine\n\nein Käfer\nund noch einer\n\nfine".encode("latin-1")
    assert rows(content) == [
        (b"fine",), (3, "invalid UTF-8 at byte 11: 0xe4, 'ä' in Latin-1", r"ein K\xe4fer"), (b"fine",)]
    assert rows(content, "file") == [
        (3, "invalid UTF-8 at byte 11: 0xe4, 'ä' in Latin-1", r"ein K\xe4fer")]
    assert rows(gzip.compress(content), "line")[1][:2] == (3, "invalid UTF-8 at byte 11: 0xe4, 'ä' in Latin-1")


@pytest.mark.parametrize("documents, where", [("line", 3), ("block", 3)])
def test_lines_and_bytes_are_those_of_the_file_in_any_part(tmp_path, monkeypatch, documents, where):
    (tmp_path / "texts.txt").write_bytes(b"fine\n\nK\xe4fer\n\nfine\n")
    for size in range(1, 12):
        monkeypatch.setattr(source_text, "PIECE_BYTES", size)
        bad, = (row for row in read(tmp_path / "texts.txt", documents) if isinstance(row, BadRow))
        assert (bad.line, bad.reason) == (where, "invalid UTF-8 at byte 7: 0xe4, 'ä' in Latin-1")


def test_a_nul_byte_far_into_a_file(rows):
    assert rows(b"x " * 4000 + b"\n\na\0b\n\nfine") == [
        (b"x " * 3999 + b"x",), (3, "a NUL byte at byte 8,003", "a\0b"), (b"fine",)]


def test_lines_of_a_megabyte(rows):
    longest = b"ab cd" * 200_000 + b"\n"
    assert [len(row[0]) for row in rows(longest + b"short", "line")] == [1_000_000, 5]
    too_long = b"ab cd" * 1_000_000
    reason = "a line of more than 1,048,576 bytes, at byte 6"
    assert rows(b"fine\n\n" + too_long + b"\nfine", "line") == [(b"fine",), (3, reason, "ab cd" * 16), (b"fine",)]
    assert rows(b"fine\n\nin\n" + too_long + b"\n\nfine", "block") == [
        (b"fine",), (4, reason[:-1] + "9", "in"), (b"fine",)]


def test_a_document_of_many_megabytes(rows):
    line = b"a line of sixteen" * 60 + b"\n"
    content = line * (source_text.LONGEST_DOCUMENT // len(line) + 1)
    (number, reason, _), = rows(content, "file")
    assert (number, reason) == (
        1, "a document of more than 16,777,216 bytes (data.documents says where one ends)")
    assert [len(row) for row in rows(content + b"\n\nfine", "block")] == [3, 1]


@pytest.mark.parametrize("content, what", [
    (b"%PDF-1.7 ...", "a PDF"), (b"PK\x03\x04word/document.xml", "a zip file, as .docx"),
    (bytes(range(1, 32)) + b"text\0more", "a binary file, with a NUL at byte 35"),
    ("text".encode("utf-16"), "UTF-16"), ("text".encode("utf-16-le"), "a binary file, with a NUL at byte 1")])
def test_files_that_are_no_text(rows, content, what):
    with pytest.raises(TextrailError, match=rf"(plain text \(UTF-8\)|UTF-8) in .*texts.txt; received {what}"):
        rows(content)


def test_broken_gzip(rows):
    with pytest.raises(TextrailError, match=r"complete gzip file at .*texts.txt.gz.*breaks off"):
        rows(gzip.compress(b"a document\n\n" * 99)[:-12], name="texts.txt.gz")


def test_an_empty_corpus(tmp_path, rows):
    with pytest.raises(TextrailError, match=r"expected text at .*texts.txt; received 1 of 0 bytes"):
        rows(b"")
    with pytest.raises(TextrailError, match=r"expected a file at .*none.txt"):
        read(tmp_path / "none.txt")
    assert rows(b" \n\n") == []


def test_an_empty_file_is_told_of_where_files_are_documents(tmp_path):
    for name, content in (("a", b""), ("b", b"\n "), ("c", b"fine")):
        (tmp_path / name).write_bytes(content)
    found = read(tmp_path / "*", "file")
    assert [row.reason if isinstance(row, BadRow) else row for row in found] == [
        "an empty document", "an empty document", (b"fine",)]


def test_memory_does_not_grow_with_the_file(tmp_path):
    path = tmp_path / "texts.txt.gz"
    path.write_bytes(gzip.compress((b"a line of a text " * 50 + b"\n\n") * 20_000, 1))
    source = TextSource({"path": str(path), "documents": "block"})
    tracemalloc.start()
    count = sum(1 for piece in source.pieces() for _ in source.read(piece))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 20_000 and peak < 8 << 20
