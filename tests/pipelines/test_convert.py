"""Rows that go out as TFRecords and come in again are the same rows, and a damaged folder never passes for a whole."""

import gzip
import hashlib
import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from tfx.types import standard_artifacts

from components import example_gen, splits_writer
from components.sources import data_fingerprint, make_source
from modules.errors import TextrailError
from pipelines import cli, convert, sections, settings

SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def csv_file(tmp_path_factory) -> Path:
    """400 rows, sorted by label, some texts twice."""
    path = tmp_path_factory.mktemp("rows") / "mine.csv"
    path.write_text("id,review,kind\n" + "".join(
        f'{i},"film {i % 390}, ""good""\nor so",{"neg" if i < 200 else "pos"}\n' for i in range(400)))
    return path


def load(path, *overrides):
    return settings.load_data(str(path), ["data.text=review", "data.label=kind", *overrides])


@pytest.fixture(scope="module")
def converted(csv_file, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("out") / "records"
    write(load(csv_file), out)
    return out


@pytest.fixture
def copied(converted, tmp_path) -> Path:
    """A copy of the folder, to be damaged."""
    return Path(shutil.copytree(converted, tmp_path / "copy"))


def write(data: sections.DataSettings, out: Path, shard_mb: int = 64) -> convert.Converted:
    return convert.convert(data, str(out), shard_mb)


def back(path) -> dict:
    return load(path, "data.source=tfrecord", f"data.path={path}").data.model_dump(exclude={"schema_file"})


def read(data: dict) -> dict[str, list]:
    source, rows = make_source(data), {}
    for piece in source.pieces():
        rows.setdefault(piece.split, []).extend(source.read(piece))
    return rows


def ingested(data: dict, folder: Path) -> dict[str, bytes]:
    """What ExampleGen writes: file → its uncompressed content."""
    examples = standard_artifacts.Examples()
    examples.uri = str(folder)
    example_gen.Executor().Do({}, {"examples": [examples]},
                              {"data": json.dumps(data), "fingerprint": data_fingerprint(data)})
    return {file.relative_to(folder).as_posix(): gzip.decompress(file.read_bytes()) for file in folder.rglob("*.gz")}


def test_a_run_gets_the_same_examples_either_way(csv_file, converted, tmp_path):
    direct = ingested(load(csv_file).data.model_dump(exclude={"schema_file"}), tmp_path / "direct")
    through = ingested(back(converted), tmp_path / "through")
    assert through == direct and len(direct) == 3   # same bytes, so the same token ids and everything after


def test_manifest_says_what_is_there(csv_file, converted):
    manifest = json.loads((converted / "manifest.json").read_text())
    rows = read(back(converted))
    assert manifest["rows"] == {split: len(rows[split]) for split in SPLITS} and sum(map(len, rows.values())) == 400
    assert manifest["skipped_rows"] == 0 and manifest["seed"] == 42
    assert manifest["data"] == {"source": "tfrecord", "path": ".", "text": "review", "label": "kind"}
    assert manifest["made_from"]["fingerprint"] == data_fingerprint(load(csv_file).data.model_dump())
    for shard in manifest["shards"]:
        content = (converted / shard["file"]).read_bytes()
        assert (shard["size"], shard["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
        assert shard["text_bytes"] == len(gzip.decompress(content)) - 16 * shard["rows"]
    assert sorted(path.name for path in converted.iterdir()) == [
        "Split-test", "Split-train", "Split-validation", "manifest.json"]
    assert [path.name for path in converted.parent.iterdir()] == ["records"]


def test_shards_are_small_and_the_order_is_the_seeds(csv_file, tmp_path, monkeypatch):
    monkeypatch.setattr(convert, "MEGABYTE", 2_000)
    monkeypatch.setattr(splits_writer, "SPILL_BYTES", 1_000)   # what memory holds while reading
    shown = {}
    for name, seed in (("a", 42), ("b", 42), ("c", 7)):
        done = write(load(csv_file, f"seed={seed}"), tmp_path / name, shard_mb=2)
        shown[name] = read(back(tmp_path / name))
        shards = json.loads((tmp_path / name / "manifest.json").read_text())["shards"]
        assert done.shards == len(shards) == 5
        assert max(shard["text_bytes"] for shard in shards) < 2 * 4_000   # what memory holds while writing
    assert (tmp_path / "a/manifest.json").read_bytes() == (tmp_path / "b/manifest.json").read_bytes()
    assert shown["c"] != shown["a"]
    for split in SPLITS:
        assert Counter(shown["c"][split]) == Counter(shown["a"][split])   # another order, the same splits
    labels = [row[1] for row in shown["a"]["train"]]
    assert 30 < labels[:100].count(b"pos") < 70


def test_tfds_and_tfrecords_are_converted_too(converted, tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets", reason="tensorflow-datasets is missing: uv sync --extra tfds")

    class Two(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(
                {"review": tfds.features.Text(), "kind": tfds.features.ClassLabel(names=["neg", "pos"])}))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples(6), "validation": self._generate_examples(2)}

        def _generate_examples(self, count):
            yield from ((i, {"review": f"text {i} of {count}", "kind": i % 2}) for i in range(count))

    Two(data_dir=str(tmp_path / "tfds"), file_format="tfrecord").download_and_prepare()
    run = tmp_path / "two.yaml"
    run.write_text("data: {source: tfds, name: two, data_dir: tfds, text: review, label: kind}\n")
    write(settings.load_data(str(run)), tmp_path / "two")
    rows = read(back(tmp_path / "two"))
    assert {split: len(found) for split, found in rows.items()} == {"train": 6, "validation": 2}
    assert sorted(rows["validation"]) == [(b"text 0 of 2", b"neg"), (b"text 1 of 2", b"pos")]

    write(load(converted), tmp_path / "again")
    assert {split: sorted(found) for split, found in read(back(tmp_path / "again")).items()} == {
        split: sorted(found) for split, found in read(back(converted)).items()}


def test_bad_rows_stop_or_are_listed(tmp_path):
    path = tmp_path / "bad.csv"
    path.write_text("review,kind\n" + "".join(f"row {i},pos\n" for i in range(60)) + "no label,\n")
    with pytest.raises(TextrailError, match=r"1 of 61 that cannot:\n.*bad\.csv, line 62: no label in 'kind'"):
        write(load(path), tmp_path / "out")
    assert [file.name for file in tmp_path.iterdir()] == ["bad.csv"]   # nothing half-written
    assert write(load(path, "data.bad_rows=skip"), tmp_path / "out").skipped == 1
    assert json.loads((tmp_path / "out/manifest.json").read_text())["skipped_rows"] == 1
    assert json.loads((tmp_path / "out/skipped_rows.jsonl").read_text())["line"] == 62
    assert sum(map(len, read(back(tmp_path / "out")).values())) == 60


@pytest.mark.parametrize("damage, sentence", [
    (lambda file: file.unlink(), r"expected a file of [\d,]+ bytes at .*, as manifest\.json there says; received none"),
    (lambda file: file.write_bytes(file.read_bytes()[:-1]), r"received one of [\d,]+\. Copy the folder again, or"),
])
def test_a_shard_of_another_size_is_seen_before_anything_runs(copied, damage, sentence):
    damage(copied / "Split-train/data_tfrecord-00000-of-00001.gz")
    for ask in (make_source(back(copied)).fingerprint, make_source(back(copied)).pieces):
        with pytest.raises(TextrailError, match=sentence):
            ask()


def test_a_shard_of_another_content_is_seen_while_reading(copied):
    fingerprint = data_fingerprint(back(copied))
    file = copied / "Split-train/data_tfrecord-00000-of-00001.gz"
    content = file.read_bytes()
    file.write_bytes(content[:4] + b"\1" + content[5:])   # only gzip's time stamp: all records are fine
    assert data_fingerprint(back(copied)) == fingerprint   # cheap: of the manifest
    with pytest.raises(TextrailError, match=r"with the sha256 [0-9a-f]{64}, as manifest\.json there says; received"):
        read(back(copied))
    file.write_bytes(content[:300] + bytes(1) + content[301:])
    with pytest.raises(TextrailError, match=r"a gzip file that is damaged .*record \d+, at byte \d+ of the data"):
        read(back(copied))


def test_the_folder_may_move(copied, converted):
    assert data_fingerprint(back(copied)) == data_fingerprint(back(converted))


def test_command(csv_file, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["convert", str(csv_file), "out", "--set", "data.text=review", "--set", "data.label=kind"]
    assert cli.main(command) == 0
    assert capfd.readouterr().out == (
        f"rows: train 307, validation 50, test 43; skipped 0; 3 files in {tmp_path}/out. Settings that read them:\n\n"
        f"shape: classification\ndata:\n  source: tfrecord\n  path: {tmp_path}/out\n  text: review\n  label: kind\n\n")
    assert cli.main(command) == 2
    assert capfd.readouterr().err == (
        f"textrail: expected nothing, or an empty folder, at {tmp_path}/out; received a folder with files. Name "
        "another folder, or remove that one.\n")
    assert cli.main([*command, "--shard-mb", "0"]) == 2
    assert "at least 1 MB in a shard; received --shard-mb 0" in capfd.readouterr().err
    (tmp_path / "empty").mkdir()
    assert cli.main(["convert", "out", "empty", "--set", "data.text=review", "--set", "data.label=kind"]) == 0


def test_pairs_of_a_translation_keep_target_and_slice(tmp_path):
    (tmp_path / "pairs.tsv").write_text("".join(f"frase {i % 90}\tsentence {i}\tkind {i % 2}\n" for i in range(200)))
    columns = ["data.text=pt", "data.target=en", "data.slice=kind"]
    loaded = settings.load_data(str(tmp_path / "pairs.tsv"), [
        "shape=translation", "data.columns=[pt, en, kind]", *columns])
    done = write(loaded, tmp_path / "out")
    assert done.data == {"source": "tfrecord", "path": str(tmp_path / "out"), "text": "pt", "target": "en",
                         "slice": "kind"}
    again = settings.load_data(str(tmp_path / "out"), ["shape=translation", *columns]).data.model_dump()
    rows = read(again)
    assert sorted(row for found in rows.values() for row in found) == sorted(
        (b"frase %d" % (i % 90), b"sentence %d" % i, b"kind %d" % (i % 2)) for i in range(200))
    # The same text stays in one split, whatever it was translated as.
    texts = [{row[0] for row in found} for found in rows.values()]
    assert sum(map(len, texts)) == len(set.union(*texts)) == 90


def test_a_conversion_that_is_ended_leaves_nothing(tmp_path):
    """SIGTERM, as `kill` and schedulers send it, is an interruption like Ctrl-C."""
    (tmp_path / "many.csv").write_text("text,label\n" + "".join(f"a film {i},{i % 2}\n" for i in range(300_000)))
    process = subprocess.Popen([sys.executable, "-m", "pipelines.cli", "convert", str(tmp_path / "many.csv"),
                                str(tmp_path / "out")], cwd=settings.PROJECT, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while not list(tmp_path.glob(".out.*/temp/*")) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.terminate()
    _, said = process.communicate()
    assert (process.returncode, said) == (130, "textrail: interrupted\n")
    assert [path.name for path in tmp_path.iterdir()] == ["many.csv"]
