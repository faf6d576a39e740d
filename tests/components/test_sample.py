import pytest

from components.rows import wanted
from components.sample import take_sample
from components.source_csv import CsvSource
from components.splits_writer import SHARD_BYTES, Plan, row_digest

COLUMNS = wanted({"text": "text", "label": "label"})
SHARES = {"train": 0.5, "validation": 0.5, "test": 0.0}


def source(path) -> CsvSource:
    return CsvSource({"path": path, "text": "text", "label": "label"})


def write(path, labels: str, text: str = "a text of thirty characters ok"):
    path.write_text("text,label\n" + "".join(f"{text} {i:03d},{label}\n" for i, label in enumerate(labels)))
    return str(path)


def test_a_small_data_set_is_read_whole_and_split_as_a_run_splits_it(tmp_path):
    path = write(tmp_path / "rows.csv", "pn" * 50)
    found = take_sample(source(path), COLUMNS, SHARES)
    assert (found.whole, found.read, found.bad) == (True, 100, [])
    assert found.estimates == {"train": len(found.rows["train"]), "validation": 100 - len(found.rows["train"])}
    assert found.rows["train"] and found.rows["validation"]
    plan = Plan(source(path).pieces(), SHARES, SHARD_BYTES)
    assert all(plan.shard_of(row_digest(row[:1]), None)[0] == split
               for split, rows in found.rows.items() for row in rows)


def test_of_a_large_one_the_first_rows_of_each_piece_are_read_and_the_rest_is_estimated(tmp_path):
    paths = {"train": write(tmp_path / "train.csv", "pn" * 300), "validation": write(tmp_path / "val.csv", "pn" * 100)}
    found = take_sample(source(paths), COLUMNS, {}, limit=4000)
    assert not found.whole
    # 3,000 and 1,000 bytes of text, at 37 bytes a row: each row is counted once the ones before left room for it.
    assert {split: len(rows) for split, rows in found.rows.items()} == {"train": 82, "validation": 28}
    assert found.read == 110
    assert found.estimates == pytest.approx({"train": 600, "validation": 200}, rel=0.02)


def test_rows_sorted_by_label_are_read_on_to_the_second_label_without_keeping_them(tmp_path):
    found = take_sample(source(write(tmp_path / "rows.csv", "p" * 200 + "n" * 300)), COLUMNS, {"train": 1.0}, limit=370)
    assert not found.whole and found.read == 201
    assert [row[-1] for row in found.rows["train"]] == [b"p"] * 10 + [b"n"]
    assert found.estimates["train"] == pytest.approx(500, rel=0.02)


def test_bad_rows_are_kept_apart(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("text,label\nfine,p\n,n\nbad,n\n")
    found = take_sample(source(str(path)), COLUMNS, {"train": 1.0})
    assert found.rows == {"train": [(b"fine", b"p"), (b"bad", b"n")]}
    assert (found.read, [str(row) for row in found.bad]) == (3, [f"{path}, line 3: empty text in 'text': ',n'"])
