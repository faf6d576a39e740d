"""`textrail serve` as its clients and a person at the page meet it: a process of its own, real HTTP, a real browser."""

import base64
import http.client
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmarks.serve import load, running
from pipelines import cli, workspace
from tests.browser import opened
from tests.word_translator import MAX_SOURCE_TOKENS, WORDS, make_word_translator

WHOLE = {"translation": "the cat", "score": -0.02, "translations": ["the cat"], "scores": [-0.02], "truncated": False}
WAIT_MS = 1500   # Of the server of pairs: long enough to be told to stop meanwhile.
LONG = "o gato " * MAX_SOURCE_TOKENS


def started(folder: Path, run: str, destination: Path) -> None:
    """What a run leaves behind that serving looks for."""
    paths = workspace.Workspace(run, folder / run)
    paths.folder.mkdir(parents=True)
    paths.metadata.touch()
    paths.settings.write_text(json.dumps({"push": {"destination": str(destination)}}))


def write_rows(paths: workspace.Workspace, rows: list[dict[str, str]]) -> None:
    """The test split of a run's data."""
    import tensorflow as tf

    folder = paths.pipeline_root / "ExampleGen/examples/1/Split-test"
    folder.mkdir(parents=True)
    with tf.io.TFRecordWriter(str(folder / "data_tfrecord-00000-of-00001.gz"), "GZIP") as writer:
        for row in rows:
            features = {name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[text.encode()]))
                        for name, text in row.items()}
            writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())


def make_pair_classifier(folder: Path) -> None:
    """A model that is three quarters sure of `<same>` where both texts are equal, and of `other` elsewhere."""
    import tensorflow as tf

    module = tf.Module()

    def answer(first, second):
        scores = tf.where((first == second)[:, None], [[0.75, 0.25]], [[0.25, 0.75]])
        classes = tf.tile([["<same>", "other"]], [tf.size(first), 1])
        return {"label": tf.where(first == second, "<same>", "other"), "score": tf.reduce_max(scores, axis=1),
                "scores": scores, "classes": classes}

    module.answer = tf.function(answer, input_signature=[tf.TensorSpec([None], tf.string, "first"),
                                                         tf.TensorSpec([None], tf.string, "second")])
    tf.saved_model.save(module, str(folder), {"serving_default": module.answer.get_concrete_function()})
    (folder / "assets.extra").mkdir()
    (folder / "assets.extra/textrail.json").write_text(json.dumps({
        "shape": "classification", "text": "first", "text_pair": "second", "label": "kind",
        "inputs": ["first", "second"], "classes": ["<same>", "other"], "metrics": {"accuracy": 0.9}}))


@pytest.fixture(scope="module")
def translator(tmp_path_factory):
    """A server of version 1 of a translator, with its push destination."""
    folder = tmp_path_factory.mktemp("translator")
    make_word_translator(folder / "pushed/1", n_best=1)
    started(folder, "words", folder / "pushed")
    write_rows(workspace.Workspace("words", folder / "words"), [
        {"pt": text, "en": "…"} for text in ("o gato dorme", " ", "<b>o</b> gato", "o gato dorme", "x" * 400)])
    with running("words", folder, "--max-request-mb", "0.01") as server:
        yield server, folder / "pushed"


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """A server of a classifier of pairs."""
    folder = tmp_path_factory.mktemp("pairs")
    make_pair_classifier(folder / "pushed/7")
    started(folder, "pairs", folder / "pushed")
    with running("pairs", folder, "--max-wait-ms", str(WAIT_MS)) as server:
        yield server


def ask(server, path, body=None, headers=None):
    """Status and JSON of an answer: to a GET, or to a POST of `body`."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(f"http://{server.host}:{server.port}/v1/models{path}", data, headers or {})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        assert error.headers["content-type"] == "application/json"
        return error.code, json.load(error)


def test_status_and_metadata_are_tensorflow_servings(translator):
    server, _ = translator
    assert server.host == "127.0.0.1"
    available = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    for path in ("/words", "/words/versions/1"):
        assert ask(server, path) == (200, {"model_version_status": [available]})
    status, metadata = ask(server, "/words/metadata")
    assert (status, metadata["model_spec"]) == (200, {"name": "words", "signature_name": "", "version": "1"})
    signatures = metadata["metadata"]["signature_def"]["signature_def"]
    assert {"serving_default", "examples", "transform_features", "attention"} <= set(signatures)
    assert signatures["serving_default"]["inputs"] == {"pt": {
        "dtype": "DT_STRING", "name": "serving_default_pt:0",
        "tensor_shape": {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False}}}
    assert signatures["serving_default"]["method_name"] == "tensorflow/serving/predict"


def test_rows_columns_bytes_and_signatures(translator):
    server, _ = translator
    assert ask(server, "/words:predict", {"instances": ["o gato"]}) == (200, {"predictions": [WHOLE]})
    assert ask(server, "/words/versions/1:predict", {"inputs": {"pt": ["o gato"]}}) == (
        200, {"outputs": {name: [value] for name, value in WHOLE.items()}})
    encoded = {"b64": base64.b64encode(b"o gato").decode()}
    assert ask(server, "/words:predict", {"instances": [{"pt": "o"}, {"pt": encoded}]})[1]["predictions"][1] == WHOLE
    import tensorflow as tf

    example = tf.train.Example(features=tf.train.Features(feature={
        "pt": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"o gato"]))})).SerializeToString()
    body = {"signature_name": "examples", "instances": [{"b64": base64.b64encode(example).decode()}]}
    assert ask(server, "/words:predict", body) == (200, {"predictions": [WHOLE]})
    _, answer = ask(server, "/words:predict", {"signature_name": "attention", "instances": ["o gato", "o"]})
    assert [row["source_tokens"] for row in answer["predictions"]] == [["o", "gato"], ["o", "[PAD]"]]


@pytest.mark.parametrize(("path", "body", "status", "message"), [
    ("/nobody:predict", {"instances": ["a"]}, 404, "Servable not found for request: Latest(nobody)"),
    ("/words/versions/9:predict", {"instances": ["a"]}, 404, "Servable not found for request: Specific(words, 9)"),
    ("/nobody", None, 404, "Could not find any versions of model nobody"),
    ("/words/versions/9", None, 404, "Could not find version 9 of model words"),
    ("/words/labels/stable", None, 400, "Unrecognized servable version label: stable"),
    ("", None, 400, "Missing model name in request."),
    ("/words", {"instances": ["a"]}, 400, "Malformed request: POST /v1/models/words"),
    ("/words:explain", {"instances": ["a"]}, 400, "Malformed request: POST /v1/models/words:explain"),
    ("/words:classify", {"examples": []}, 400, "Expected classification signature method_name to be "
     "tensorflow/serving/classify. Was: tensorflow/serving/predict"),
    ("/words:predict", {"instances": ["a"], "signature_name": "x"}, 400,
     'Serving signature name: "x" not found in signature def'),
    ("/words:predict", {"instances": ["a"], "signature_name": "__saved_model_init_op"}, 400,
     'Serving signature name: "__saved_model_init_op" not found in signature def'),
    ("/words/versions/" + "9" * 5000, None, 400, "Malformed request: GET /v1/models/words/versions/" + "9" * 5000),
    ("/words:predict", b"{", 400, "JSON Parse error: Expecting property name enclosed in double quotes at offset: 1"),
    ("/words:predict", {"instances": ["a" * 10_486]}, 413, "expected a body of at most 10,485 bytes; received 10,505 "
     "bytes. Send fewer rows at a time, or start the server with a larger --max-request-mb."),
])
def test_errors_are_sentences_in_tensorflow_servings_form(translator, path, body, status, message):
    assert ask(translator[0], path, body) == (status, {"error": message})


def test_a_body_in_chunks_is_limited_and_what_the_model_refuses_is_the_clients_fault(translator):
    server, _ = translator
    connection = http.client.HTTPConnection(server.host, server.port, timeout=60)
    connection.request("POST", "/v1/models/words:predict", iter([b"a" * 6000] * 2), encode_chunked=True,
                       headers={"Transfer-Encoding": "chunked"})
    response = connection.getresponse()
    assert (response.status, json.load(response)["error"].partition(";")[2].partition(".")[0]) == (
        413, " received more, in chunks")
    status, answer = ask(server, "/words:predict", {"signature_name": "examples", "instances": ["no example"]})
    assert status == 400
    assert "Could not parse example input" in answer["error"]


def test_many_clients_get_their_own_answers(translator):
    server, _ = translator
    sources = [f"{a} {b} {c}" for a in WORDS for b in WORDS for c in ("gato", "x")][:120]
    with ThreadPoolExecutor(32) as clients:
        found = list(clients.map(lambda text: ask(server, "/words:predict", {"inputs": [text]}), sources))
    said = [answer["outputs"]["translation"][0] for _, answer in found]
    expected = [" ".join(WORDS.get(word, word) for word in text.split()) for text in sources]
    assert said == [text.replace(" .", ".") for text in expected]


def test_a_new_version_is_picked_up_and_a_broken_one_is_not(translator):
    server, destination = translator
    body = json.dumps({"instances": ["o gato"]}).encode()
    found = []
    asking = threading.Thread(target=lambda: found.append(load(server, "words", [body], 4, 8)))
    asking.start()
    make_word_translator(destination / "hidden", words=WORDS | {"gato": "tomcat"}, n_best=1)
    os.rename(destination / "hidden", destination / "2")
    wait_for(lambda: ask(server, "/words:predict", {"inputs": ["o gato"]})[1]["outputs"]["translation"] == [
        "the tomcat"])
    asking.join()
    assert found[0].errors == []
    assert len(found[0].waited) > 20
    wait_for(lambda: states(server) == {"2": "AVAILABLE", "1": "END"})
    assert ask(server, "/words/versions/1:predict", {"inputs": ["o"]})[0] == 404
    (destination / "3").mkdir()
    (destination / "3/saved_model.pb").write_text("broken")
    wait_for(lambda: states(server) == {"3": "END", "2": "AVAILABLE", "1": "END"})
    assert ask(server, "/words:predict", {"inputs": ["o gato"]})[1]["outputs"]["translation"] == ["the tomcat"]
    assert "expected a model of this project" in ask(server, "/words")[1]["model_version_status"][0]["status"][
        "error_message"]
    told = "version 3 is not served, 2 is served on; it is tried again in 60 s: expected "
    assert any(line.startswith(told) for line in server.lines)
    shutil.rmtree(destination / "3")


def states(server):
    return {one["version"]: one["state"] for one in ask(server, "/words")[1]["model_version_status"]}


def wait_for(holds, seconds=60):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.2)


def test_a_taken_port_and_a_run_without_model_are_told(tmp_path, monkeypatch, capfd):
    make_word_translator(tmp_path / "pushed/1", n_best=1)
    started(tmp_path, "words", tmp_path / "pushed")
    started(tmp_path, "nothing", tmp_path / "nowhere")
    monkeypatch.setenv("TEXTRAIL_WORKSPACE", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert cli.main(["serve", "words", "--port", str(port)]) == 2
    error = capfd.readouterr().err
    assert re.fullmatch(f"textrail: expected a free port {port} at 127.0.0.1; received .*Address already in use. "
                        "Choose another one with --port, or an address of this machine with --host.\n", error)
    assert cli.main(["serve", "nothing"]) == 2
    assert f"expected a pushed model in {tmp_path}/nowhere; received none." in capfd.readouterr().err
    assert cli.main(["serve", "words", "--max-batch", "0"]) == 2
    assert capfd.readouterr().err == ("textrail: expected --max-batch of at least 1; received 0. Leave it out for the "
                                      "default.\n")


def open_page(server):
    """The page in a browser; see `opened`."""
    if not importlib.util.find_spec("gradio"):
        pytest.skip("no Gradio, which the page is made with: the extra `playground`")
    return opened(f"http://{server.host}:{server.port}/")


def test_a_person_translates_on_the_page(translator):
    with open_page(translator[0]) as page:
        page.get_by_role("heading", name="words").wait_for()   # Texts written before the page lives are lost.
        text, answered = page.locator("#text-0 textarea"), page.locator("#status .answered")
        said = page.locator("#translation textarea")
        page.get_by_role("button", name="<b>o</b> gato").click()
        wait_for(lambda: text.input_value() == "<b>o</b> gato")
        # Of the data, blank, long and equal rows are no examples.
        assert page.get_by_role("button", name="o gato dorme").count() == 1
        page.get_by_role("button", name="Translate").click()
        answered.wait_for()
        assert re.fullmatch(r"version \d answered in \d+ ms", answered.inner_text())
        assert said.input_value().startswith("<b>o</b> ")
        page.locator(".attention tbody th").get_by_text("<b>o</b>").wait_for()
        assert page.locator(".attention td[title]").count() == 4

        text.fill(" \n")
        page.get_by_role("button", name="Translate").click()
        page.get_by_role("alert").get_by_text("Expected a text in pt; received nothing. Write one.").wait_for()
        assert said.input_value() == ""

        text.fill(LONG)
        page.get_by_role("button", name="Translate").click()
        page.get_by_role("alert").get_by_text(
            f"The text is longer than the {MAX_SOURCE_TOKENS} tokens that the model reads").wait_for()
        assert said.input_value().startswith("the ")


def test_a_person_compares_two_texts_on_the_page(pairs):
    body = {"instances": [{"first": "a", "second": "a"}, {"first": "a", "second": "b"}]}
    assert [row["label"] for row in ask(pairs, "/pairs:predict", body)[1]["predictions"]] == ["<same>", "other"]
    with open_page(pairs) as page:
        page.get_by_role("heading", name="pairs").wait_for()
        for place in (0, 1):
            page.locator(f"#text-{place} textarea").fill("we left <i>early</i>")
        page.get_by_role("button", name="Compare").click()
        page.locator("#status .answered").wait_for()
        bars = page.locator(".confidence-set")
        assert [" ".join(bar.split()) for bar in bars.all_inner_texts()] == ["<same> 75%", "other 25%"]
        page.locator("#text-1 textarea").fill("")
        page.get_by_role("button", name="Compare").click()
        page.get_by_role("alert").get_by_text("Expected a text in second; received nothing.").wait_for()


def test_the_end_answers_what_has_begun_and_waits_for_no_open_page(pairs):
    body = {"instances": [{"first": "a", "second": "a"}]}
    with open_page(pairs) as page, ThreadPoolExecutor(1) as client:
        page.get_by_role("button", name="Compare").wait_for()
        asked = client.submit(ask, pairs, "/pairs:predict", body)
        time.sleep(WAIT_MS / 3000)   # It is now waiting for others to share the call with.
        began = time.monotonic()
        pairs.process.send_signal(signal.SIGTERM)
        status, answer = asked.result()
        assert (status, answer["predictions"][0]["label"]) == (200, "<same>")
        wait_for(lambda: pairs.lines[-1] == "stopped", seconds=15)
        assert time.monotonic() - began < 15
        page.close()   # It complains that nobody answers.
    assert pairs.process.wait(60) == 0
