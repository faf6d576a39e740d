"""The page of a pretrained encoder: masked texts in, words with bars out, in a real browser."""

import pytest

from benchmarks.serve import running
from pipelines import workspace
from pipelines.serving.examples import examples, with_mask
from tests.mask_filler import make_mask_filler
from tests.pipelines.serving.test_server import ask, open_page, started, wait_for, write_rows

BRIDGE = "The old bridge was [MASK] by a queen in 1850."
DOCUMENTS = ["Yes. The old bridge was opened by a queen in 1850. It fell.", "Too short. " * 200,
             "The <b>old</b> tower has always been stronger than the others."]


@pytest.fixture(scope="module")
def words(tmp_path_factory, tiny_encoder):
    """A server of an encoder that says "good", "great" or "bad"."""
    folder = tmp_path_factory.mktemp("words")
    make_mask_filler(folder / "pushed/1", tiny_encoder)
    started(folder, "words", folder / "pushed")
    write_rows(workspace.Workspace("words", folder / "words"), [{"text": text} for text in DOCUMENTS])
    with running("words", folder) as server:
        yield server, folder


def test_sentences_with_a_mask_are_examples(words):
    assert with_mask("") == with_mask("a b c d e f g h i j.") == ""
    paths = workspace.Workspace("words", words[1] / "words")
    assert paths.artifacts("gs://mine/runs") == "gs://mine/runs/words"
    assert examples(paths.artifacts(None), ["text"], None, masked=True) == [
        [BRIDGE], ["The <b>old</b> tower has always [MASK] stronger than the others."]]


def test_requests_with_any_number_of_masks(words):
    status, answer = ask(words[0], "/words:predict", {"instances": ["a [MASK] [MASK] film", "a film"]})
    assert status == 200
    assert [row["counts"] for row in answer["predictions"]] == [2, 0]
    assert answer["predictions"][0]["words"] == [["good", "great", "bad"]] * 2


def test_a_person_fills_masks_on_the_page(words):
    with open_page(words[0]) as page:
        text, filled = page.locator("#text-0 textarea"), page.locator("#filled .filled")
        page.get_by_role("button", name=BRIDGE).click()
        wait_for(lambda: text.input_value() == BRIDGE)
        page.get_by_role("button", name="Fill in").click()
        filled.wait_for()
        assert filled.inner_text() == BRIDGE.replace("[MASK]", "good")
        assert page.locator("#filled mark").all_inner_texts() == ["good"]
        assert [" ".join(row.split()) for row in page.locator(".masks tr").all_inner_texts()] == [
            "good 50.0%", "great 25.0%", "bad 12.5%"]

        text.fill("so <i>[MASK]</i> and [MASK]")
        page.get_by_role("button", name="Fill in").click()
        page.locator(".masks caption").get_by_text("[MASK] 2").wait_for()
        assert filled.inner_text() == "so <i>good</i> and good"
        assert page.locator(".masks table").count() == 2

        text.fill("a good film")
        page.get_by_role("button", name="Fill in").click()
        page.get_by_role("alert").get_by_text("The text is without [MASK]: write it in the place of").wait_for()
        assert page.locator("#filled mark").count() == 0
        text.fill("so [MASK], the [MASK] of it")
        page.get_by_role("button", name="Fill in").click()
        filled.wait_for()
