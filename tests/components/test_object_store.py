"""A store that has objects and no folders, behind TFX's fileio, and what is pushed to it."""

import uuid

import fsspec
import pytest
from tfx.dsl.io import fileio

from components import object_store
from components.pusher import delete_old, push
from components.versions import read_manifest, served_version, versions

object_store.register("memory://", "memory")


@pytest.fixture
def folder() -> str:
    return f"memory://{uuid.uuid4().hex}"


def write(path: str, text: str = "x") -> None:
    with fileio.open(path, "w") as file:
        file.write(text)


def test_files_are_found_as_in_folders(folder):
    write(f"{folder}/a/one", "1")
    write(f"{folder}/a/b/two")
    assert fileio.isdir(folder) and fileio.isdir(f"{folder}/a/b") and not fileio.isdir(f"{folder}/none")
    assert fileio.listdir(f"{folder}/a") == ["b", "one"] and fileio.listdir(f"{folder}/none") == []
    assert fileio.glob(f"{folder}/a/o*") == [f"{folder}/a/one"]
    assert [(top, sorted(files)) for top, _, files in fileio.walk(f"{folder}/a")] == [
        (f"{folder}/a", ["one"]), (f"{folder}/a/b", ["two"])]
    with fileio.open(f"{folder}/a/one") as file:
        assert file.read() == "1"
    with pytest.raises(fileio.NotFoundError):
        fileio.open(f"{folder}/none")
    fileio.rmtree(f"{folder}/a/b")
    assert fileio.listdir(f"{folder}/a") == ["one"]


def test_what_is_there_is_not_replaced(folder):
    write(f"{folder}/one")
    write(f"{folder}/two")
    for replace in (fileio.copy, fileio.rename):
        with pytest.raises(OSError, match="is there already"):
            replace(f"{folder}/one", f"{folder}/two")


def test_a_model_appears_and_goes_whole(folder, monkeypatch):
    """Whoever looks between two objects sees all files of the model, or no model."""
    for name in ("saved_model.pb", "assets/vocab.txt", "assets.extra/tfhub/saved_model.pb", "variables/index", "zebra"):
        write(f"{folder}/hidden/{name}")
    store, seen = fsspec.filesystem("memory"), []

    def watch(method: str) -> None:
        real = getattr(type(store), method)

        def watched(self, *arguments, **options):
            real(self, *arguments, **options)
            seen.append({place: {path.rpartition(f"/{place}/")[2] for path in store.find(folder)
                                 if f"/{place}/" in path} for place in ("hidden", "7")})

        monkeypatch.setattr(type(store), method, watched)

    for method in ("cp_file", "rm_file"):
        watch(method)
    fileio.rename(f"{folder}/hidden", f"{folder}/7")
    assert len(seen) == 10 and seen[-1]["hidden"] == set()
    for places in seen:
        for files in places.values():
            assert "saved_model.pb" not in files or len(files) == 5


def test_versions_are_pushed_to_a_store(folder, tmp_path):
    model = tmp_path / "model"
    (model / "assets.extra").mkdir(parents=True)
    (model / "saved_model.pb").write_bytes(b"graph")
    (model / "assets.extra" / "textrail.json").write_text('{"shape": "classification"}')
    pushed = [push(str(model), f"{folder}/models", {"recipe": str(number)}) for number in range(3)]
    assert [str(number) for number in versions(f"{folder}/models")] == pushed
    assert served_version(f"{folder}/models") == pushed[-1]
    assert read_manifest(f"{folder}/models/{pushed[-1]}")["recipe"] == "2"
    delete_old(f"{folder}/models", keep=1)
    assert versions(f"{folder}/models") == [int(pushed[-1])]
    assert fileio.listdir(f"{folder}/models") == [pushed[-1]]
