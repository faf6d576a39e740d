"""Rows of tf.Examples in TFRecord files, case by case."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

from components.rows import BadRow
from components.source_tfrecord import TfrecordSource
from components.sources import data_fingerprint, make_source
from components.tfrecord_folder import FORMAT
from modules.errors import TextrailError


def feature(value) -> tf.train.Feature:
    values = value if isinstance(value, list) else [value]
    kind = type(values[0]) if values else bytes
    if kind is int:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
    if kind is float:
        return tf.train.Feature(float_list=tf.train.FloatList(value=values))
    values = [value.encode() if isinstance(value, str) else value for value in values]
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))


def example(**features) -> bytes:
    message = tf.train.Example(features=tf.train.Features(
        feature={name: feature(value) for name, value in features.items()}))
    return message.SerializeToString(deterministic=True)


def write(path: Path, *records: bytes, compression: str = "") -> Path:
    with tf.io.TFRecordWriter(str(path), compression) as writer:
        for record in records:
            writer.write(record)
    return path


def settings(path, **keys) -> dict:
    return {"source": "tfrecord", "path": path if isinstance(path, dict) else str(path), "text": "text",
            "label": "label", **keys}


def read(path, **keys) -> list:
    source = make_source(settings(path, **keys))
    return [row for piece in source.pieces() for row in source.read(piece)]


FINE = example(text="fine", label="pos", stars=5)


def test_texts_and_integer_labels(tmp_path):
    path = write(tmp_path / "x.tfrecord", FINE, example(text="déjà vu", label=0), example(text="a", label=-1))
    assert read(path) == [(b"fine", b"pos"), ("déjà vu".encode(), b"0"), (b"a", b"-1")]
    # A piece a file; without splits a hash decides.
    assert make_source(settings(path)).pieces() == [(None, path.stat().st_size, (str(path), None))]


def test_labels_get_their_names_and_pairs_two_texts(tmp_path):
    path = write(tmp_path / "x", *(example(one="a", two="b", label=label) for label in (1, 0, -1)))
    rows = read(path, text="one", text_pair="two", label_names={"0": "different", "1": "same"})
    assert rows[:2] == [(b"a", b"b", b"same"), (b"a", b"b", b"different")]
    assert rows[2].reason == "'-1' in 'label', which data.label_names does not name"


@pytest.mark.parametrize("record, reason, shown", [
    (example(text="", label="pos"), "empty text in 'text'", "text:  | label: pos"),
    (example(text=" \n", label="pos"), "empty text in 'text'", "text:  \n | label: pos"),
    (example(label="pos"), "empty text in 'text'", "text:  | label: pos"),
    (example(text=[], label="pos"), "empty text in 'text'", "text:  | label: pos"),
    (example(text="a"), "no label in 'label'", "text: a | label: "),
    (example(text=["a", "b"], label="pos"), "2 values in 'text', where one is needed", "text: a, b | label: pos"),
    (example(text=[7, 8], label="pos"), "2 values in 'text', where one is needed", "text: 7, 8 | label: pos"),
    (example(text=7, label="pos"), "an integer in 'text', where text is needed", "text: 7 | label: pos"),
    (example(text="a", label=0.5), "a float in 'label', where text or an integer is needed", "text: a | label: 0.5"),
    (example(text=b"caf\xe9", label="pos"), "invalid UTF-8 in 'text'", "text: caf\\xe9 | label: pos"),
    (example(text="a\0b", label="pos"), "NUL byte in 'text'", "text: a\0b | label: pos"),
    (b"plain text", "not a serialized tf.Example", "plain text"),
])
def test_bad_rows_name_record_and_byte(tmp_path, record, reason, shown):
    path = write(tmp_path / "x", FINE, record, FINE)
    good, bad, last = read(path)
    assert good == last == (b"fine", b"pos")
    assert bad == BadRow(str(path), 1, 1, reason, shown, len(FINE) + 16)
    assert str(bad) == f"{path}, record 1 at byte {len(FINE) + 16}: {reason}: {shown!r}"


def test_a_wrong_feature_name_is_told_the_nearest(tmp_path):
    path = write(tmp_path / "x", example(review="a", stars=1), example(review="b", sentiment="pos"))
    with pytest.raises(TextrailError) as caught:
        make_source(settings(path, text="reveiw", label="sentiment")).pieces()
    assert str(caught.value) == (f"expected the feature 'reveiw' in the tf.Examples of {path}; received the features "
                                 "'review', 'sentiment', 'stars', nearest is 'review'. Correct data.text or "
                                 "data.label.")
    with pytest.raises(TextrailError, match=r"received records that are no tf\.Examples"):
        make_source(settings(write(tmp_path / "y", b"plain text"))).pieces()
    # A feature is not missing because the first record has no value for it.
    assert read(path, text="review", label="sentiment")[1] == (b"b", b"pos")


def test_splits_by_file(tmp_path):
    for name in ("a1", "a2", "b1"):
        write(tmp_path / name, example(text=name, label="pos"), compression="GZIP" if name == "a1" else "")
    source = make_source(settings({"train": str(tmp_path / "a?"), "validation": str(tmp_path / "b1")}))
    assert [(piece.split, [row[0] for row in source.read(piece)]) for piece in source.pieces()] == [
        ("train", [b"a1"]), ("train", [b"a2"]), ("validation", [b"b1"])]
    assert source.pieces()[0].size == 4 * (tmp_path / "a1").stat().st_size   # estimated from compression
    with pytest.raises(TextrailError, match="splits without common files"):
        make_source(settings({"train": str(tmp_path / "a?"), "validation": str(tmp_path / "a1")})).pieces()
    with pytest.raises(TextrailError, match=r"no 'c' in .*Correct data\.path"):
        make_source(settings(tmp_path / "c")).pieces()


def test_files_without_records_are_fine(tmp_path):
    write(tmp_path / "x-0")
    write(tmp_path / "x-1", FINE)
    write(tmp_path / "x-2", compression="GZIP")
    assert read(tmp_path / "x-?") == [(b"fine", b"pos")]


def test_a_damaged_file_is_an_error_and_not_a_bad_row(tmp_path):
    path = write(tmp_path / "x", *[FINE] * 300)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(TextrailError, match=rf"breaks off: record 299, at byte {299 * (len(FINE) + 16)}\."):
        read(path, bad_rows="skip")
    path.write_bytes(gzip.compress(write(path, *[FINE] * 300).read_bytes())[:-9])
    with pytest.raises(TextrailError, match="a gzip file that is cut off"):
        read(path)


def test_fingerprint_follows_content_and_needs_no_tensorflow(tmp_path):
    path = write(tmp_path / "x", FINE)
    before = data_fingerprint(settings(path))
    assert data_fingerprint(settings(path)) == before
    write(path, FINE, FINE)
    assert data_fingerprint(settings(path)) != before
    code = ("import sys; from components.sources import data_fingerprint; "
            f"data_fingerprint({settings(path)!r}); sys.exit('tensorflow' in sys.modules)")
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_folder_without_a_manifest_of_ours(tmp_path):
    with pytest.raises(TextrailError, match=r"received a folder \(its files are"):
        TfrecordSource(settings(tmp_path)).pieces()
    (tmp_path / "manifest.json").write_text(json.dumps({"name": "an app"}))
    with pytest.raises(TextrailError, match=r"a manifest of textrail convert .*another file \('format'\)"):
        TfrecordSource(settings(tmp_path)).fingerprint()
    whole = {"split": "train", "file": "Split-train/x.gz", "rows": 1, "text_bytes": 1, "size": 1, "sha256": ""}
    for wrong in ({"split": "dev"}, {"size": "1"}):
        (tmp_path / "manifest.json").write_text(json.dumps({"format": FORMAT, "shards": [whole | wrong]}))
        with pytest.raises(TextrailError, match=r"a manifest of textrail convert .*another file \(Shard\(split="):
            TfrecordSource(settings(tmp_path)).pieces()
