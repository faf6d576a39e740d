"""Rows of CSV files, case by case, with exact rows and line numbers."""

import gzip
import itertools
import tracemalloc

import pytest

from components.rows import BadRow
from components.source_csv import CsvSource
from components.sources import data_fingerprint
from modules.errors import TextrailError


def source(path, **keys):
    return CsvSource({"source": "csv", "path": str(path), "text": "text", "label": "label", **keys})


def read(path, **keys):
    csv = source(path, **keys)
    return [row for piece in csv.pieces() for row in csv.read(piece)]


@pytest.fixture
def rows(tmp_path):
    """Writes bytes to a file and reads its rows; a bad row as (line, last line, reason, beginning)."""
    def write_and_read(content: bytes, name="rows.csv", **keys):
        path = tmp_path / name
        path.write_bytes(content)
        found = read(path, **keys)
        assert all(row.file == str(path) for row in found if isinstance(row, BadRow))
        return [tuple(row[1:5]) if isinstance(row, BadRow) else row for row in found]
    return write_and_read


def test_rfc_4180(rows):
    assert rows(b'id,text,label\r\n1,plain,pos\r\n2,"a, ""b""",neg\r\n3,"two\r\nlines\nand three",pos\r\n') == [
        (b"plain", b"pos"), (b'a, "b"', b"neg"), (b"two\r\nlines\nand three", b"pos")]


def test_lone_carriage_return_inside_quotes_is_text(rows):
    assert rows(b'text,label\n"a\rb",pos\n') == [(b"a\rb", b"pos")]


def test_carriage_return_outside_quotes_is_a_bad_row(rows):
    assert rows(b"text,label\na\rb,pos\nc,neg\n") == [
        (2, 2, "a carriage return outside quotes", "a\rb,pos"), (b"c", b"neg")]


def test_byte_order_mark_and_no_line_end_at_the_end(rows):
    assert rows(b'\xef\xbb\xbf"text",label\nfine,pos') == [(b"fine", b"pos")]


@pytest.mark.parametrize("name", ["rows.csv.gz", "rows.csv"])
def test_gzip_is_known_by_content(rows, name):
    assert rows(gzip.compress(b'text,label\n"a\nb",pos\n'), name) == [(b"a\nb", b"pos")]


def test_broken_gzip(rows):
    with pytest.raises(TextrailError, match=r"complete gzip file at .*rows.csv.gz.*breaks off"):
        rows(gzip.compress(b"text,label\n" + bytes(range(32, 127)) * 9)[:-12], "rows.csv.gz")


def test_other_delimiters(rows):
    assert rows(b"text\tlabel\na, b\tpos\n", "rows.tsv") == [(b"a, b", b"pos")]
    assert rows(b"text;label\na, b;pos\n", delimiter=";") == [(b"a, b", b"pos")]
    assert rows(b"text\tlabel\na, b\tpos\n", delimiter="tab") == [(b"a, b", b"pos")]


def test_no_quoting_takes_quotes_as_they_are(rows):
    assert rows(b'label\ttext\npos\t"half a quote\r\nneg\t\'s " \\ \r .\n', "rows.tsv", quoting="none") == [
        (b'"half a quote', b"pos"), (b"'s \" \\ \r .", b"neg")]


def test_pairs(rows):
    assert rows(b"text,other,label\na,b,same\na,,other\n", text_pair="other") == [
        (b"a", b"b", b"same"), (3, 3, "empty text in 'other'", "a,,other")]


def test_bad_rows_carry_their_lines(rows):
    content = (b'text,label\n'             # 1
               b'"two\nlines",pos\n'       # 2, 3
               b'no label,\n'              # 4
               b' \xc2\xa0,neg\n'          # 5
               b'"three\n\nlines"\n'       # 6 to 8
               b'\n'                       # 9: nothing is not a row
               b'a,b,c\n'                  # 10
               b'caf\xe9,pos\n'            # 11
               b'x\0y,pos\n'               # 12
               b'"closed" early,pos\n'     # 13
               b'good,neg\n'               # 14
               b'"open,pos\n')             # 15
    assert rows(content) == [
        (b"two\nlines", b"pos"),
        (4, 4, "no label in 'label'", "no label,"),
        (5, 5, "empty text in 'text'", " \xa0,neg"),
        (6, 8, "1 columns where the header has 2", '"three'),
        (10, 10, "3 columns where the header has 2", "a,b,c"),
        (11, 11, "invalid UTF-8 in 'text'", "caf\\xe9,pos"),
        (12, 12, "NUL byte in 'text'", "x\0y,pos"),
        (13, 13, "text after a closing quote (a quote inside quotes is written twice)", '"closed" early,pos'),
        (b"good", b"neg"),
        (15, 15, "a quote that is never closed", '"open,pos')]


def test_a_bad_row_of_several_lines_names_them_all():
    assert str(BadRow("a.csv", 6, 8, "1 columns where the header has 2", '"three')) == (
        "a.csv, lines 6 to 8: 1 columns where the header has 2: '\"three'")
    assert str(BadRow("a.csv", 6, 6, "no label in 'label'", "x,")) == "a.csv, line 6: no label in 'label': 'x,'"


@pytest.mark.parametrize(("end", "last", "reason"), [
    (b"", 1002, "a quote that is never closed"),
    (b'"fine",pos\n', 1003, "text after a closing quote (a quote inside quotes is written twice)"),
])
def test_a_quote_that_swallows_rows_stops_the_reading(rows, end, last, reason):
    with pytest.raises(TextrailError) as caught:
        rows(b'text,label\n"open,pos\n' + b"row,pos\n" * 1000 + end)
    assert caught.value.expected.startswith("rows with quotes that match in ")
    assert caught.value.received == f"lines 2 to {last} as one row, beginning '\"open,pos': {reason}"
    assert "data.quoting=none" in caught.value.fix


def test_only_wanted_columns_are_judged(rows):
    assert rows(b"id,text,label\n\xff,fine,pos\n") == [(b"fine", b"pos")]


def test_quote_that_would_swallow_the_file(rows, monkeypatch):
    monkeypatch.setattr("components.source_csv.MAX_FIELD", 100)
    with pytest.raises(TextrailError, match=r"lines 2 to 14 as one row, .*: a quote that is not closed within 100 ch"):
        rows(b'text,label\n"open,pos\n' + b"row,pos\n" * 30)


def test_no_line_ends(rows, monkeypatch):
    monkeypatch.setattr("components.source_csv.MAX_FIELD", 100)
    with pytest.raises(TextrailError, match=r"text with line ends in .*rows.csv; received 100 bytes without one"):
        rows(b"text,label\n" + b"x" * 200)


def test_missing_column_names_those_found_and_the_nearest(rows):
    with pytest.raises(TextrailError, match=r"one column 'text' in .*rows.csv; received the columns 'id', 'texts', "
                                            r"'label' \(nearest is 'texts'\)"):
        rows(b"id,texts,label\n1,a,pos\n")


def test_column_named_twice(rows):
    with pytest.raises(TextrailError, match=r"one column 'text' .*\(several of that name\)"):
        rows(b"text,text,label\n1,a,pos\n")


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf"])
def test_empty_file(rows, content):
    with pytest.raises(TextrailError, match=r"a header row in .*received an empty file"):
        rows(content)


def test_utf_16(rows):
    with pytest.raises(TextrailError, match=r"UTF-8 in .*received UTF-16"):
        rows("text,label\na,pos\n".encode("utf-16"))


def test_pattern_and_splits_become_pieces(tmp_path):
    for name in ("b.csv", "a.csv", "c.txt", "v[1].csv"):
        (tmp_path / name).write_text("text,label\n")
    assert [piece.where for piece in source(tmp_path / "?.csv").pieces()] == [
        (str(tmp_path / "a.csv"),), (str(tmp_path / "b.csv"),)]
    path = {"validation": str(tmp_path / "v[1].csv"), "train": str(tmp_path / "?.csv")}
    data = {"path": path, "text": "text", "label": "label"}
    assert [(piece.split, piece.size) for piece in CsvSource(data).pieces()] == [
        ("train", 11), ("train", 11), ("validation", 11)]


def test_missing_file_names_the_nearest(tmp_path):
    (tmp_path / "reviews.csv").write_text("")
    with pytest.raises(TextrailError, match=r"no 'review.csv' in .*, nearest is 'reviews.csv'. Correct data.path"):
        source(tmp_path / "review.csv").pieces()
    with pytest.raises(TextrailError, match=r"no file matching '\*\.tsv' in "):
        source(tmp_path / "*.tsv").pieces()
    with pytest.raises(TextrailError, match=r"no 'absent' in "):
        source(tmp_path / "absent" / "further" / "x.csv").pieces()
    with pytest.raises(TextrailError, match=r"received a folder \(its files are .*/\*\)"):
        source(tmp_path).pieces()


def test_one_file_in_two_splits_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\n")
    (tmp_path / "link.csv").symlink_to(tmp_path / "a.csv")
    for other in ("a.csv", "link.csv", "*.csv"):
        path = {"train": str(tmp_path / "a.csv"), "validation": str(tmp_path / other)}
        with pytest.raises(TextrailError, match=r"one file as train: .*a\.csv and validation: .*\.csv"):
            data_fingerprint({"source": "csv", "path": path, "text": "text", "label": "label"})


def test_fingerprint_follows_the_content(tmp_path):
    path = tmp_path / "a.csv"
    data = {"source": "csv", "path": str(tmp_path / "*.csv"), "text": "text", "label": "label"}
    path.write_text("text,label\na,pos\n")
    first = data_fingerprint(data)
    path.write_text("text,label\na,pos\n")   # written again, unchanged
    assert data_fingerprint(data) == first
    path.write_text("text,label\na,neg\n")
    changed = data_fingerprint(data)
    (tmp_path / "b.csv").write_text("text,label\n")
    assert len({first, changed, data_fingerprint(data)}) == 3


def test_fingerprint_of_a_large_file_sees_its_ends(tmp_path, monkeypatch):
    monkeypatch.setattr("components.files.WHOLE_BYTES", 10)
    monkeypatch.setattr("components.files.END_BYTES", 4)
    data = {"source": "csv", "path": str(tmp_path / "a.csv"), "text": "text", "label": "label"}
    prints = set()
    for content in (b"start......end", b"Start......end", b"start......enD"):
        (tmp_path / "a.csv").write_bytes(content)
        prints.add(data_fingerprint(data))
    assert len(prints) == 3


def test_reading_takes_no_more_memory_for_a_longer_file(tmp_path):
    block = b"".join(b'"a review, number %d,\nof a film",pos\n' % i for i in range(10_000))
    path = tmp_path / "long.csv"
    path.write_bytes(b"text,label\n" + block * 10)   # 4 MB
    csv = source(path)
    reading = csv.read(csv.pieces()[0])
    tracemalloc.start()
    count = sum(1 for _ in itertools.islice(reading, 25_000))
    _, early = tracemalloc.get_traced_memory()
    count += sum(1 for _ in reading)
    _, late = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 100_000
    assert late < early + 50_000   # bytes


def test_imdb_has_every_review(shared_data):
    found = read(shared_data / "data/imdb/train.csv.gz", text="review", label="sentiment")
    assert len(found) == 25_000
    assert {row[1] for row in found} == {b"positive", b"negative"}


def test_glue_file(shared_data):
    found = read(shared_data / "data/mrpc/validation.tsv", text="sentence1", text_pair="sentence2", quoting="none")
    assert len(found) == 408 and not any(isinstance(row, BadRow) for row in found)


def test_glue_layout_as_it_is(rows):
    """Byte order mark, names with # and spaces, no quoting: each line is a row, whatever its quotes."""
    content = ('\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n'
               '1\t702876\t702977\tHe said , " Yes .\t" Yes , " he said .\r\n'
               '0\t21\t22\t"Open\tnever closed"\r\n'
               '1\t31\t32\tIt \'s 5 \\ 6 , ok\t""\r\n').encode()
    assert rows(content, "msr_paraphrase_train.tsv", quoting="none", text="#1 String", text_pair="#2 String",
                label="Quality", label_names={"0": "not_equivalent", "1": "equivalent"}) == [
        (b'He said , " Yes .', b'" Yes , " he said .', b"equivalent"),
        (b'"Open', b'never closed"', b"not_equivalent"), (b"It 's 5 \\ 6 , ok", b'""', b"equivalent")]


def test_labels_get_their_names(rows):
    assert rows(b"text,label\nfine,1\ndull,neg\nodd,2\n", label_names={"0": "neg", "1": "pos"}) == [
        (b"fine", b"pos"), (b"dull", b"neg"), (4, 4, "'2' in 'label', which data.label_names does not name", "odd,2")]


def test_a_file_without_a_header_and_a_target_instead_of_a_label(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text('o gato\tthe cat\tseen\n"sim"\t yes \t\na\tb\nc\t\tseen\n')
    found = [tuple(row[1:5]) if isinstance(row, BadRow) else row for row in read(
        path, columns=["pt", "en", "kind"], text="en", target="pt", label=None, slice="kind", quoting="none")]
    assert found == [(b"the cat", b"o gato", b"seen"), (2, 2, "no slice in 'kind'", '"sim"\t yes \t'),
                     (3, 3, "2 columns where data.columns has 3", "a\tb"),
                     (4, 4, "empty text in 'en'", "c\t\tseen")]
