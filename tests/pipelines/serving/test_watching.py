"""Which of the versions in a push destination is served."""

import asyncio
import shutil

import pytest

from pipelines.model import Model
from pipelines.serving import watching
from pipelines.serving.batching import Limits
from pipelines.serving.errors import RestError
from tests.word_translator import WORDS, make_word_translator


@pytest.fixture(scope="module")
def versions(tmp_path_factory):
    """Folder with the models 1 to 3, which call a cat by their number."""
    folder = tmp_path_factory.mktemp("versions")
    for number in "123":
        make_word_translator(folder / number, words=WORDS | {"gato": f"cat{number}"}, n_best=1)
    return folder


def watched(versions, destination, body):
    """Runs `body(watcher, said, told)` with version 1 served; `said` asks and `told` has what the watcher tells."""
    shutil.copytree(versions / "1", destination / "1")
    told = []

    async def main():
        watcher = watching.Watcher("words", str(destination), Limits(), Model(str(destination / "1")),
                                   told.append)

        async def said(number=None):
            with watcher.use(number) as served:
                return (await served.ask("serving_default", {"pt": [b"gato"]}))["translation"].tolist()

        await body(watcher, said, told)
        await watcher.close()

    asyncio.run(main())


def test_a_version_whose_files_come_late_is_tried_again_and_another_meanwhile(versions, tmp_path, monkeypatch):
    async def body(watcher, said, told):
        shutil.copytree(versions / "2", tmp_path / "2")
        (tmp_path / "3").mkdir()
        shutil.copy(versions / "3/saved_model.pb", tmp_path / "3")   # An object store shows files as they come.
        await watcher.look()
        assert await said() == [b"cat2"]
        assert {number: state.name for number, state in watcher.states.items()} == {
            1: "END", 2: "AVAILABLE", 3: "END"}
        assert told[0].startswith("version 3 is not served, 1 is served on; it is tried again in 60 s: expected ")
        shutil.copytree(versions / "3", tmp_path / "3", dirs_exist_ok=True)
        await watcher.look()
        assert await said() == [b"cat2"]   # The minute is not over.
        monkeypatch.setattr(watching.time, "monotonic", lambda now=watching.time.monotonic: now() + 61)
        await watcher.look()
        assert await said() == [b"cat3"]
        with pytest.raises(RestError) as caught:
            await said(2)
        assert (caught.value.status, caught.value.message) == (
            404, "Servable not found for request: Specific(words, 2)")

    watched(versions, tmp_path, body)


def test_a_version_that_never_loads_is_left_after_some_tries(versions, tmp_path, monkeypatch):
    monkeypatch.setattr(watching, "RETRY_SECONDS", 0)

    async def body(watcher, said, told):
        (tmp_path / "2").mkdir()
        (tmp_path / "2/saved_model.pb").write_text("broken")
        for _ in range(watching.TRIES + 2):
            await watcher.look()
        assert len(told) == watching.TRIES
        assert "tried again" not in told[-1]
        assert await said() == [b"cat1"]

    watched(versions, tmp_path, body)


def test_the_version_before_is_served_when_the_newest_is_taken_away(versions, tmp_path):
    async def body(watcher, said, told):
        shutil.copytree(versions / "3", tmp_path / "3")
        await watcher.look()
        with watcher.use() as third:
            shutil.rmtree(tmp_path / "3")
            await watcher.look()
            await asyncio.sleep(0)
            assert watcher.states[3].name == "UNLOADING"   # Someone is still at it, and is answered by it.
            assert (await third.ask("serving_default", {"pt": [b"gato"]}))["translation"].tolist() == [b"cat3"]
        assert await said() == [b"cat1"]
        await asyncio.sleep(0.01)
        assert watcher.states[3].name == "END"
        shutil.rmtree(tmp_path / "1")
        await watcher.look()
        assert await said() == [b"cat1"]   # What is loaded is served on.

    watched(versions, tmp_path, body)
