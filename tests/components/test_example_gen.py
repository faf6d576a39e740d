"""ExampleGen from file to artifact, through Beam."""

import gzip
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import tensorflow as tf
from tfx.components.util import examples_utils
from tfx.proto import example_gen_pb2
from tfx.types import artifact_utils, standard_artifacts

from components import splits_writer
from components.example_gen import ExampleGen, Executor
from components.sources import data_fingerprint
from modules.errors import TextrailError
from pipelines import pretraining_sections
from pipelines.classification_sections import Data


def settings(path, **keys) -> dict:
    path = {split: str(file) for split, file in path.items()} if isinstance(path, dict) else str(path)
    return Data(source="csv", path=path, **keys).model_dump()


def run(data: dict, folder: Path) -> standard_artifacts.Examples:
    """Executes the component as the launcher does."""
    examples = standard_artifacts.Examples()
    examples.uri = str(folder)
    Executor().Do({}, {"examples": [examples]}, {"data": json.dumps(data), "fingerprint": data_fingerprint(data)})
    return examples


def rows_of(examples, split: str) -> list[dict[str, str]]:
    """The rows of a split as strings, in the order of the shards."""
    files = sorted(tf.io.gfile.glob(f"{examples.uri}/Split-{split}/data_tfrecord-*.gz"))
    features = (tf.train.Example.FromString(record).features.feature for file in files
                for record in tf.data.TFRecordDataset(file, "GZIP").as_numpy_iterator())
    return [{name: feature.bytes_list.value[0].decode() for name, feature in row.items()} for row in features]


@pytest.fixture
def sorted_file(tmp_path) -> Path:
    """600 rows with two lines of text each, all of one label before all of the other."""
    path = tmp_path / "rows.csv"
    path.write_text("text,label\n" + "".join(f'"row {i},\nsaid ""x""",{"neg" if i < 300 else "pos"}\n'
                                             for i in range(600)))
    return path


def test_component_declares_what_tfx_needs():
    component = ExampleGen(data="{}", fingerprint="f")
    assert component.outputs["examples"].type is standard_artifacts.Examples
    assert component.exec_properties == {"data": "{}", "fingerprint": "f"}


def test_one_file_becomes_shuffled_splits(sorted_file, tmp_path):
    examples = run(settings(sorted_file), tmp_path / "out")
    splits = {split: rows_of(examples, split) for split in ("train", "validation", "test")}
    counts = {split: len(rows) for split, rows in splits.items()}
    assert counts == {split: examples.get_int_custom_property(f"rows_{split}") for split in splits}
    assert sum(counts.values()) == 600 and 450 < counts["train"] < 510
    expected = {f'row {i},\nsaid "x"': "neg" if i < 300 else "pos" for i in range(600)}
    assert {row["text"]: row["label"] for rows in splits.values() for row in rows} == expected
    # Half of any stretch has either label, although the file was sorted by it.
    for start in range(0, 400, 100):
        labels = Counter(row["label"] for row in splits["train"][start:start + 100])
        assert 30 <= labels["pos"] <= 70


def test_artifact_says_how_it_is_read(sorted_file, tmp_path):
    examples = run(settings(sorted_file, split={"train": 0.9, "validation": 0.1, "test": 0}), tmp_path / "out")
    assert artifact_utils.decode_split_names(examples.split_names) == ["train", "validation"]
    assert examples_utils.get_payload_format(examples) == example_gen_pb2.FORMAT_TF_EXAMPLE
    assert examples_utils.get_file_format(examples) == "tfrecords_gzip"
    assert examples.get_int_custom_property("skipped_rows") == 0
    assert sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*")) == [
        "Split-train/data_tfrecord-00000-of-00001.gz", "Split-validation/data_tfrecord-00000-of-00001.gz"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["Split-train", "Split-validation"]


def test_many_spills_and_shards_write_the_same_bytes_each_time(sorted_file, tmp_path, monkeypatch):
    monkeypatch.setattr(splits_writer, "SPILL_BYTES", 2_000)
    monkeypatch.setattr(splits_writer, "SHARD_BYTES", 5_000)
    size = sorted_file.stat().st_size
    shards = {"train": -int(-size * 0.8 // 5_000), "validation": 1, "test": 1}
    contents = []
    for attempt in ("first", "second"):
        examples = run(settings(sorted_file), tmp_path / attempt)
        files = sorted((tmp_path / attempt).rglob("*.gz"))
        contents.append([(file.name, gzip.decompress(file.read_bytes())) for file in files])
        assert len(files) == sum(shards.values())
    assert contents[0] == contents[1]
    assert sum(len(rows_of(examples, split)) for split in shards) == 600


def test_files_given_for_splits_are_never_merged(tmp_path):
    for split in ("train", "validation"):
        for part in (1, 2):
            (tmp_path / f"{split}{part}.csv").write_text(f"label,text\na,{split} {part}\nb,same in both\n")
    examples = run(settings({split: tmp_path / f"{split}?.csv" for split in ("train", "validation")}), tmp_path / "out")
    for split in ("train", "validation"):
        assert sorted(row["text"] for row in rows_of(examples, split)) == [
            "same in both", "same in both", f"{split} 1", f"{split} 2"]


@pytest.fixture
def bad_file(tmp_path) -> Path:
    path = tmp_path / "bad.csv"
    path.write_bytes(b"text,label\n" + b"".join(b"fine %d,pos\n" % i for i in range(50))
                     + b"".join(b"no label %d,\n" % i for i in range(12)) + b"caf\xe9,pos\n")
    return path


def test_bad_rows_stop_the_run_by_default(bad_file, tmp_path):
    with pytest.raises(TextrailError) as stopped:
        run(settings(bad_file), tmp_path / "out")
    lines = stopped.value.received.split("\n")
    assert lines[0] == "13 of 63 that cannot:"
    assert lines[1] == f"{bad_file}, line 52: no label in 'label': 'no label 0,'"
    assert len(lines) == 12 and lines[11] == "…"
    assert "data.bad_rows=skip" in stopped.value.fix
    assert not (tmp_path / "out" / "temp").exists()


def test_skipped_rows_are_counted_and_listed(bad_file, tmp_path):
    examples = run(settings(bad_file, bad_rows="skip"), tmp_path / "out")
    assert examples.get_int_custom_property("skipped_rows") == 13
    listed = [json.loads(line) for line in (tmp_path / "out" / "skipped_rows.jsonl").read_text().splitlines()]
    assert [row["line"] for row in listed] == list(range(52, 65))
    assert listed[-1] == {"split": None, "file": str(bad_file), "line": 64, "last_line": 64,
                          "reason": "invalid UTF-8 in 'text'", "row": "caf\\xe9,pos", "offset": None}
    assert splits_writer.read_skipped(examples.uri) == {
        None: {"no label in 'label'": 12, "invalid UTF-8 in 'text'": 1}}
    assert sum(len(rows_of(examples, split)) for split in ("train", "validation", "test")) == 50


def test_skipped_rows_know_their_split(bad_file, tmp_path):
    (tmp_path / "good.csv").write_text("text,label\na,pos\n")
    paths = {"train": tmp_path / "good.csv", "validation": bad_file}
    examples = run(settings(paths, bad_rows="skip"), tmp_path / "out")
    assert {split: reasons.total() for split, reasons in splits_writer.read_skipped(examples.uri).items()} == {
        "validation": 13}


def test_a_quote_that_swallows_rows_stops_the_run_even_with_skip(tmp_path):
    (tmp_path / "rows.csv").write_text('text,label\nfine,pos\n"open,pos\n' + "row,pos\n" * 9)
    with pytest.raises(TextrailError, match=r"received lines 3 to 12 as one row"):
        run(settings(tmp_path / "rows.csv", bad_rows="skip"), tmp_path / "out")


def test_errors_of_a_worker_arrive_as_they_are(tmp_path):
    (tmp_path / "rows.csv").write_text("review,label\na,pos\n")
    with pytest.raises(TextrailError, match=r"^expected one column 'text' in .*; received the columns 'review'"):
        run(settings(tmp_path / "rows.csv"), tmp_path / "out")


def test_split_without_rows(tmp_path):
    (tmp_path / "rows.csv").write_text("text,label\na,pos\n")
    with pytest.raises(TextrailError, match="expected rows in the validation split; received none, of 1 rows read"):
        run(settings(tmp_path / "rows.csv"), tmp_path / "out")
    (tmp_path / "book.txt").write_text("One document.\n\nIts end.\n")
    with pytest.raises(TextrailError, match=r"received none, of 1 rows read.* data\.documents what counts"):
        run(pretraining_sections.Data(path=str(tmp_path / "book.txt")).model_dump(), tmp_path / "out")


def test_documents_go_into_files_of_the_size_that_is_asked_for(tmp_path):
    """Each is what one worker prepares at a time: 3 MB of documents, 2.4 of them for training."""
    line = "A document of a line. " * 50
    (tmp_path / "texts.txt").write_text("".join(f"{i} {line}\n" for i in range(3 * 1024 * 1024 // len(line))))
    for megabytes, files in ((1, 3), (16, 1)):
        data = pretraining_sections.Data(path=f"{tmp_path}/*.txt", documents="line", shard_megabytes=megabytes,
                                         split={"train": 0.8, "validation": 0.1, "test": 0.1}).model_dump()
        examples = run(data, tmp_path / str(megabytes))
        assert len(list((tmp_path / str(megabytes) / "Split-train").glob("data_tfrecord-*.gz"))) == files
        assert rows_of(examples, "test")[0]["text"].endswith(line.strip())


def test_tfx_reads_the_output(sorted_file, tmp_path):
    """Through TFXIO, which StatisticsGen, Transform and Evaluator read with."""
    import apache_beam as beam
    import pyarrow as pa
    from tfx.components.util import tfxio_utils

    examples = run(settings(sorted_file), tmp_path / "out")
    tfxio = tfxio_utils.get_tfxio_factory_from_artifact([examples], telemetry_descriptors=["test"])(
        examples_utils.get_split_file_patterns([examples], "test"))
    expected = sorted(row["text"].encode() for row in rows_of(examples, "test"))

    def check(batches: list[pa.RecordBatch]) -> None:
        table = pa.Table.from_batches(batches)
        assert sorted(table.column_names) == ["label", "text"]
        assert sorted(value[0] for value in table["text"].to_pylist()) == expected

    with beam.Pipeline() as pipeline:
        _ = pipeline | tfxio.BeamSource() | beam.combiners.ToList() | beam.Map(check)


def test_light_parts_import_neither_tensorflow_nor_tfx():
    heavy = ("tensorflow", "tfx", "apache_beam")
    code = f"import sys, components.sources; sys.exit(any(name in sys.modules for name in {heavy}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
