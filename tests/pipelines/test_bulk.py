"""Bulk prediction through Beam: real models, exact files, order, resuming, and sentences for what cannot be used."""

import csv
import gzip
import json
import shutil

import pytest
import tensorflow as tf

from modules.errors import TextrailError
from pipelines import bulk, bulk_formats, cli, settings
from pipelines.beam_sections import Beam
from pipelines.predict import Dialect
from tests.mask_filler import make_mask_filler
from tests.word_classifier import save_classifier
from tests.word_translator import make_word_translator

HERE = Beam().model_dump()


@pytest.fixture(scope="module")
def pushed(tmp_path_factory):
    """A push destination with a model that takes texts with the word "good" for `pos`."""
    destination = tmp_path_factory.mktemp("pushed")
    save_classifier(destination / "10", ["review"])
    return destination


@pytest.fixture
def small_parts(monkeypatch):
    """Parts of about 8 characters of text."""
    monkeypatch.setattr(bulk, "MEGABYTE", 8)


def predict(pushed, tmp_path, *patterns, dialect=None, **options):
    return bulk.predict_files(str(pushed), "Push one.", [str(tmp_path / pattern) for pattern in patterns],
                              str(tmp_path / "out"), HERE, dialect or Dialect(), **options, part_mb=1)


def names(tmp_path):
    return sorted(path.name for path in (tmp_path / "out").iterdir())


def test_tables_in_parts_whose_names_sort_as_the_rows_stand(pushed, tmp_path, small_parts):
    (tmp_path / "a.csv").write_text('id,review,label\n1,"good, ""very""\ngood",x\n2,dull,y\n3,ok,z\n')
    with gzip.open(tmp_path / "b.csv.gz", "wt") as stream:
        stream.write("review\n" + "so good\n" * 3)
    assert predict(pushed, tmp_path, "*.csv*") == (6, 4, 0, "")
    assert names(tmp_path) == ["manifest.json", "part-00000-000000.csv", "part-00000-000001.csv",
                               "part-00001-000000.csv", "part-00001-000001.csv"]
    rows = []
    for number in (0, 1):
        with open(tmp_path / f"out/part-00000-00000{number}.csv", newline="") as stream:
            header, *found = csv.reader(stream)
        assert header == ["id", "review", "label", "predicted_label", "score", "neg", "pos"]
        rows += found
    assert rows == [["1", 'good, "very"\ngood', "x", "pos", "0.750000", "0.250000", "0.750000"],
                    ["2", "dull", "y", "neg", "0.750000", "0.750000", "0.250000"],
                    ["3", "ok", "z", "neg", "0.750000", "0.750000", "0.250000"]]
    assert (tmp_path / "out/part-00001-000001.csv").read_text() == (
        "review,label,score,neg,pos\nso good,pos,0.750000,0.250000,0.750000\n")
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert manifest["rows"] == 6
    assert manifest["files"] == [{"file": str(tmp_path / "a.csv"), "rows": 3, "parts": 2},
                                 {"file": str(tmp_path / "b.csv.gz"), "rows": 3, "parts": 2}]
    assert predict(pushed, tmp_path, "*.csv*") == (6, 4, 4, ""), "finished: nothing is asked again"


def test_files_without_header_may_be_empty_or_end_early(pushed, tmp_path):
    (tmp_path / "a.csv").write_text("good\ndull\n")
    (tmp_path / "b.csv").write_text("")
    assert predict(pushed, tmp_path, "*.csv", dialect=Dialect(columns=["review", "label"])) == (2, 2, 0, "")
    assert [(tmp_path / f"out/part-0000{file}-000000.csv").read_text() for file in (0, 1)] == [
        "good,pos,0.750000,0.250000,0.750000\ndull,neg,0.750000,0.750000,0.250000\n", ""]


def test_lines_have_their_file_and_number_for_a_key(pushed, tmp_path):
    (tmp_path / "texts.txt").write_text("good\n\n  \nnaïve “quotes”\r\n", encoding="utf-8")
    assert predict(pushed, tmp_path, "texts.txt") == (2, 1, 0, "")
    lines = (tmp_path / "out/part-00000-000000.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [
        {"file": str(tmp_path / "texts.txt"), "line": 1, "text": "good", "label": "pos", "score": 0.75,
         "scores": {"neg": 0.25, "pos": 0.75}},
        {"file": str(tmp_path / "texts.txt"), "line": 4, "text": "naïve “quotes”", "label": "neg", "score": 0.75,
         "scores": {"neg": 0.75, "pos": 0.25}}]


def example(**features) -> bytes:
    made = tf.train.Example()
    for name, value in features.items():
        made.features.feature[name].bytes_list.value.append(value)
    return made.SerializeToString()


def test_records_keep_their_features(pushed, tmp_path):
    with tf.io.TFRecordWriter(str(tmp_path / "rows.tfrecord")) as writer:
        writer.write(example(review=b"good", label=b"mine"))
        writer.write(example(review=b"dull", id=b"7"))
    assert predict(pushed, tmp_path, "rows.tfrecord").rows == 2
    first, second = (tf.train.Example.FromString(record).features.feature for record in tf.data.TFRecordDataset(
        str(tmp_path / "out/part-00000-000000.tfrecord.gz"), "GZIP").as_numpy_iterator())
    assert (first["label"].bytes_list.value[0], first["predicted_label"].bytes_list.value[0]) == (b"mine", b"pos")
    assert (second["id"].bytes_list.value[0], second["label"].bytes_list.value[0]) == (b"7", b"neg")
    assert second["neg"].float_list.value[0] == 0.75


def test_a_killed_call_is_finished_with_the_model_that_began_it(pushed, tmp_path, small_parts, monkeypatch):
    (tmp_path / "rows.csv").write_text("review\n" + "so good\n" * 6)
    mine, calls = tmp_path / "pushed", []
    shutil.copytree(pushed / "10", mine / "10")

    def breaks(self, path, *arguments):
        calls.append(path)
        if len(calls) == 3:
            raise OSError("the power is gone")
        write(self, path, *arguments)

    with monkeypatch.context() as patch:
        write = bulk_formats.Table.write
        patch.setattr(bulk_formats.Table, "write", breaks)
        with pytest.raises(Exception, match="the power is gone"):
            predict(mine, tmp_path, "rows.csv")
    assert names(tmp_path) == [".parts", "part-00000-000000.csv", "part-00000-000001.csv"]
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("part*")}
    assert len(times) == 2
    shutil.copytree(pushed / "10", mine / "11")
    assert predict(mine, tmp_path, "rows.csv") == (6, 3, 2, "")
    assert json.loads((tmp_path / "out/manifest.json").read_text())["plan"]["model"] == str(mine / "10")
    with pytest.raises(TextrailError, match="received finished ones of "):
        predict(mine, tmp_path, "rows.csv")
    assert times == {path: path.stat().st_mtime_ns for path in times}, "what was there is not written again"
    assert names(tmp_path) == ["manifest.json", *(f"part-00000-00000{part}.csv" for part in range(3))]


def test_what_cannot_be_used_is_a_sentence(pushed, tmp_path):
    def told(*patterns, **options):
        with pytest.raises(TextrailError) as caught:
            predict(pushed, tmp_path, *patterns, **options)
        return str(caught.value)

    assert told("*.csv").startswith(f"expected a file at {tmp_path}/*.csv; received no file matching '*.csv'")
    (tmp_path / "a.csv").write_text("id\n1\n")
    assert "the column 'review', which the model reads, in " in told("a.csv")
    (tmp_path / "a.csv").write_text("review,id\ngood,1\n")
    (tmp_path / "b.csv").write_text("review,id\ngood,1\ndull\n")
    (tmp_path / "c.txt").write_text("good\n")
    assert told("a.csv", "c.txt").startswith("expected files of one kind: .csv, .tsv or .txt")
    assert told("a.csv", "b.csv") == (f"expected CSV in UTF-8; received 1 columns where the header has 2 in {tmp_path}"
                                      "/b.csv, line 3. Correct that row.")
    assert "those of one with another --input. Name another folder" in told("a.csv")
    (tmp_path / "b.csv").write_text("review,id\ngood,1\ndull,2\n")
    assert predict(pushed, tmp_path, "a.csv", "b.csv") == (3, 2, 1, ""), "of a mended file all is answered anew"
    (tmp_path / "b.csv").write_text("review,id\ngood,1\n")
    assert "those of one with another --input, or the files have changed" in told("a.csv", "b.csv")
    (tmp_path / "out").rename(tmp_path / "before")
    (tmp_path / "out").touch()
    assert told("a.csv").startswith(f"expected a folder for --output; received the file {tmp_path}/out. Name another")
    (tmp_path / "out2").mkdir()
    (tmp_path / "out2/mine").touch()
    with pytest.raises(TextrailError, match="received other files, such as mine"):
        bulk.predict_files(str(pushed), "", [str(tmp_path / "a.csv")], str(tmp_path / "out2"), HERE, Dialect())


def test_a_translator_says_what_it_has_not_read(tmp_path):
    make_word_translator(tmp_path / "pushed/1")
    (tmp_path / "in.txt").write_text("o gato\n" + "o " * 60 + "\n")
    done = predict(tmp_path / "pushed", tmp_path, "in.txt")
    said = [json.loads(line) for line in (tmp_path / "out/part-00000-000000.jsonl").read_text().splitlines()]
    assert [one["text"] for one in said] == ["o gato", "o " * 60]
    assert (said[0]["translation"], said[1]["truncated"]) == ("the cat", True)
    assert done.warning.startswith(f"{tmp_path}/in.txt, row 2: the text is longer than the ")


def test_words_for_masks_are_lists_and_each_reason_is_told_once(tmp_path, tiny_encoder, small_parts):
    make_mask_filler(tmp_path / "pushed/1", tiny_encoder, text="text")
    texts = [b"a [MASK] [MASK] film", b"no mask", b"a [MASK]" + b" film" * 20, b"none"]
    with tf.io.TFRecordWriter(str(tmp_path / "rows.tfrecord")) as writer:
        for text in texts:
            writer.write(example(text=text))
    done = predict(tmp_path / "pushed", tmp_path, "rows.tfrecord")
    assert (done.rows, done.parts) == (4, 4)
    said = [tf.train.Example.FromString(record).features.feature for part in range(4)
            for record in tf.data.TFRecordDataset(str(tmp_path / f"out/part-00000-00000{part}.tfrecord.gz"),
                                                  "GZIP").as_numpy_iterator()]
    assert [one["text"].bytes_list.value[0] for one in said] == texts
    assert said[0]["filled"].bytes_list.value[0] == b"a good good film"
    assert list(said[0]["words_2"].bytes_list.value) == [b"great", b"great"]
    assert list(said[0]["probabilities_2"].float_list.value) == pytest.approx([0.25, 0.25], rel=1e-5)
    assert "words" not in said[1]
    rows, reads = f"{tmp_path}/rows.tfrecord, row", "its end is not read"
    assert done.warning == (
        f"{rows} 2 (and 1 more): the text is without [MASK]: write it in the place of each word that the model shall "
        f"tell; {rows} 3: the text is longer than the 14 tokens that the model reads: {reads}")


def test_the_command_goes_where_the_run_went_unless_told_otherwise():
    recorded = Beam(runner="flink", parallelism=3).model_dump()
    assert settings.load_beam(recorded).parallelism == 3
    assert settings.load_beam({}, ["beam.runner=flink"]).runner == "flink"
    with pytest.raises(TextrailError, match=r"no `beam\.job_endpoint` with runner direct"):
        settings.load_beam({"job_endpoint": "localhost:1"}, ["beam.runner=direct"])
    with pytest.raises(TextrailError, match=r"expected --set beam\.KEY=VALUE; received --set training"):
        settings.load_beam({}, ["training.epochs=2"])
    assert cli.main(["predict", "mine", "--input", "x.csv"]) == 2
