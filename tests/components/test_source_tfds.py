"""Rows of data sets that TFDS itself writes here, read as any prepared data set is."""

import json
import os
import shutil

import numpy as np
import pytest

from components.rows import BadRow
from components.sources import data_fingerprint, make_source
from modules.errors import TextrailError

tfds = pytest.importorskip("tensorflow_datasets", reason="tensorflow-datasets is missing: uv sync --extra tfds")

CLASSES = ["neg", "pos"]


class TinyTexts(tfds.core.GeneratorBasedBuilder):
    """30 rows for training and 4 for testing; two configs, of which `clean` has every label and text."""

    VERSION = tfds.core.Version("1.2.0")
    BUILDER_CONFIGS = (
        tfds.core.BuilderConfig(name="clean", description="Every row can be used."),
        tfds.core.BuilderConfig(name="rough", description="Row 1 has no label, row 2 no text."),
    )

    def _info(self):
        features = {"text": tfds.features.Text(), "label": tfds.features.ClassLabel(names=CLASSES), "stars": np.int64,
                    "scores": tfds.features.Tensor(shape=(2,), dtype=np.float32)}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(30), "test": self._generate_examples(4)}

    def _generate_examples(self, count):
        rough = self.builder_config.name == "rough"
        for i in range(count):
            yield i, {"text": "" if rough and i == 2 else f"text {i} of {count}",
                      "label": -1 if rough and i == 1 else i % 2, "stars": i, "scores": [0, 1]}


def prepare(data_dir, config="clean", shards=3):
    builder = TinyTexts(config=config, data_dir=str(data_dir), file_format="tfrecord")
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(num_shards=shards))


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    prepare(folder)
    return folder


SPLITS = {"train": "train[:20]", "validation": "train[20:]", "test": "test"}


def settings(data_dir, **keys):
    return {"source": "tfds", "name": "tiny_texts/clean", "data_dir": str(data_dir), "text": "text", "label": "label",
            "splits": SPLITS, **keys}


def read(data):
    source = make_source(data)
    rows = {}
    for piece in source.pieces():
        rows.setdefault(piece.split, []).extend(source.read(piece))
    return rows


def test_splits_and_slices(data_dir):
    rows = read(settings(data_dir))
    assert {split: len(found) for split, found in rows.items()} == {"train": 20, "validation": 10, "test": 4}
    expected = {(b"text %d of 30" % i, CLASSES[i % 2].encode()) for i in range(30)}
    assert set(rows["train"]) | set(rows["validation"]) == expected
    assert set(rows["test"]) == {(b"text %d of 4" % i, CLASSES[i % 2].encode()) for i in range(4)}


class TinyTranslations(tfds.core.GeneratorBasedBuilder):
    """20 pairs in the features of `ted_hrlr_translate`: a dict of texts, one a language."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.Translation(languages=["pt", "en"]),
                                     supervised_keys=("pt", "en"))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(16), "validation": self._generate_examples(4)}

    def _generate_examples(self, count):
        for i in range(count):
            yield i, {"pt": f"número {i}", "en": "" if count == 4 and i == 0 else f"number {i}"}


def test_pairs_of_languages(tmp_path):
    TinyTranslations(data_dir=str(tmp_path), file_format="tfrecord").download_and_prepare()
    rows = read({"source": "tfds", "name": "tiny_translations", "data_dir": str(tmp_path), "text": "pt",
                 "target": "en"})
    assert set(rows["train"]) == {(f"número {i}".encode(), b"number %d" % i) for i in range(16)}
    bad = [row for row in rows["validation"] if isinstance(row, BadRow)]
    assert len(rows["validation"]) == 4 and [(row.reason, row.row) for row in bad] == [
        ("empty text in 'en'", "número 0 | ")]


def test_a_piece_a_shard(data_dir):
    pieces = make_source(settings(data_dir)).pieces()
    assert [piece.split for piece in pieces] == ["train"] * 2 + ["validation"] + ["test"] * 3


def test_through_beam(data_dir, tmp_path):
    from tfx.types import standard_artifacts

    from components.example_gen import Executor

    examples = standard_artifacts.Examples()
    examples.uri = str(tmp_path)
    data = settings(data_dir, bad_rows="stop", split={"train": 0.8, "validation": 0.1, "test": 0.1})
    Executor().Do({}, {"examples": [examples]}, {"data": json.dumps(data), "fingerprint": data_fingerprint(data)})
    assert [examples.get_int_custom_property(f"rows_{split}") for split in SPLITS] == [20, 10, 4]


def test_integers_are_labels_by_their_digits(data_dir):
    rows = read(settings(data_dir, label="stars"))
    assert set(rows["test"]) == {(b"text %d of 4" % i, b"%d" % i) for i in range(4)}


def test_fingerprint(data_dir, tmp_path):
    data = settings(data_dir)
    assert data_fingerprint(data) == data_fingerprint(data)
    copy = tmp_path / "copy"
    shutil.copytree(data_dir, copy)
    assert data_fingerprint(settings(copy)) == data_fingerprint(data)
    shard = next(copy.rglob("*train.tfrecord-00000*"))
    content, stat = shard.read_bytes(), shard.stat()
    shard.write_bytes(content[::-1])   # of the same size
    os.utime(shard, (stat.st_atime, stat.st_mtime + 1))
    assert data_fingerprint(settings(copy)) != data_fingerprint(data)
    shard.write_bytes(content)
    os.utime(shard, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert data_fingerprint(settings(copy)) == data_fingerprint(data)


def test_newest_version_default_config_and_version_by_name(data_dir, tmp_path):
    root = tmp_path / "tiny_texts"
    shutil.copytree(data_dir / "tiny_texts", root)
    shutil.copytree(root / "clean" / "1.2.0", root / "clean" / "1.10.0")
    shutil.copytree(root / "clean", root / "rough")

    def folder(name):
        return make_source(settings(tmp_path, name=name))._folder()

    assert folder("tiny_texts/clean") == str(root / "clean" / "1.10.0")
    assert folder("tiny_texts/clean:1.2.0") == str(root / "clean" / "1.2.0")
    (root / ".config" / "metadata.json").write_text(json.dumps({"default_config_name": "clean"}))
    assert folder("tiny_texts") == str(root / "clean" / "1.10.0")
    shutil.rmtree(root / ".config")
    with pytest.raises(TextrailError, match=r"one config of tiny_texts in .*received clean, rough"):
        folder("tiny_texts")


def test_rough_rows_are_named_by_file_and_record(tmp_path):
    prepare(tmp_path, "rough", shards=1)
    data = settings(tmp_path, name="tiny_texts/rough", splits={"train": "train", "validation": "test[:3]"})
    bad = [row for row in read(data)["train"] if isinstance(row, BadRow)]
    assert sorted((row.reason, row.row) for row in bad) == [
        ("empty text in 'text'", " | neg"), ("no label in 'label'", "text 1 of 30 | ")]
    assert {row.file for row in bad} == {
        str(tmp_path / "tiny_texts/rough/1.2.0/tiny_texts-train.tfrecord-00000-of-00001")}
    order = [row.decode() for row in tfds.builder_from_directory(str(tmp_path / "tiny_texts/rough/1.2.0")).as_dataset(
        split="train").map(lambda row: row["text"]).as_numpy_iterator()]
    assert {row.line for row in bad} == {order.index(""), order.index("text 1 of 30")}


def test_downloads_only_when_asked(tmp_path):
    with pytest.raises(TextrailError, match=r"prepared data set at .*tiny_texts/clean; received no 'tiny_texts' in .*"
                                            r"data.download=true"):
        data_fingerprint(settings(tmp_path))
    assert list(tmp_path.iterdir()) == []
    first = data_fingerprint(settings(tmp_path, download=True))
    assert data_fingerprint(settings(tmp_path)) == first


def test_missing_folder_names_the_nearest(data_dir):
    with pytest.raises(TextrailError, match=r"no 'tiny_text' in .*, nearest is 'tiny_texts'"):
        data_fingerprint(settings(data_dir, name="tiny_text"))
    with pytest.raises(TextrailError, match=r"no 'clear' in .*tiny_texts, nearest is 'clean'"):
        data_fingerprint(settings(data_dir, name="tiny_texts/clear"))
    with pytest.raises(TextrailError, match=r"version 9\.0\.0; received other versions only"):
        data_fingerprint(settings(data_dir, name="tiny_texts/clean:9.0.0"))


def test_a_folder_without_a_prepared_data_set(tmp_path):
    (tmp_path / "tiny_texts" / "clean").mkdir(parents=True)
    with pytest.raises(TextrailError, match=r"prepared data set at .*tiny_texts/clean; received none there\. "):
        data_fingerprint(settings(tmp_path))


@pytest.mark.parametrize(("keys", "message"), [
    ({"text": "txt"}, r"the feature 'txt' in tiny_texts/clean/1.2.0; received the features .*, nearest is 'text'"),
    ({"label": "scores"}, r"one string or integer a row in 'scores'"),
    ({"splits": {}}, r"a validation split in .*; received the splits "),
    ({"splits": SPLITS | {"test": "tests"}}, r"a TFDS split in data.splits.test.*received 'tests', nearest is 'test'"),
    ({"splits": SPLITS | {"validation": "train[90%:95%][1]"}}, r"a TFDS split in data.splits.validation"),
    ({"splits": SPLITS | {"validation": "train[15:]"}}, r"splits without common rows .* train: train\[:20\] and "
                                                        r"validation: train\[15:\]"),
])
def test_errors(data_dir, keys, message):
    with pytest.raises(TextrailError, match=message):
        make_source(settings(data_dir, **keys)).pieces()
