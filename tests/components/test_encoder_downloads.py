"""What is fetched, from where, and what is said where it cannot be; the hub is a small server of this machine."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from components import encoder_downloads
from components.encoder_sources import encoder_fingerprint, read_encoder
from modules.errors import TextrailError

COMMIT, EARLIER = "a" * 40, "b" * 40
HANDLE = "https://tfhub.dev/tensorflow/small_bert/bert_en_uncased_L-2_H-128_A-2/2"
KAGGLE = "https://www.kaggle.com/models/tensorflow/bert/TensorFlow2/bert-en-uncased-l-2/2"
SCRIPT = """
import sys
from components.encoder_sources import encoder_fingerprint, local_folder
try:
    print(local_folder(sys.argv[1]))
    print(encoder_fingerprint(sys.argv[1]))
except Exception as error:
    print(f"{type(error).__name__}: {error}")
"""


class Hub(BaseHTTPRequestHandler):
    """The few addresses of the HuggingFace Hub that fetching a repository needs; files come from `folder`."""

    folder: Path
    asked: list[str]

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.split("?")[0]
        if path in (f"/api/models/owner/tiny/revision/{name}" for name in ("main", COMMIT)):
            files = [{"rfilename": name} for name in self.names()]
            self.answer(json.dumps({"id": "owner/tiny", "sha": COMMIT, "siblings": files}).encode())
        elif path == f"/api/models/owner/tiny/tree/{COMMIT}":
            tree = [{"type": "file", "path": name, "oid": self.etag(name), "size": len(self.content(name))}
                    for name in self.names()]
            self.answer(json.dumps(tree).encode())
        elif match := re.fullmatch(f"/owner/tiny/resolve/(?:main|{COMMIT})/(.+)", path):
            self.asked.append(match[1])
            self.answer(self.content(match[1]), {"X-Repo-Commit": COMMIT, "ETag": f'"{self.etag(match[1])}"'})
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

    def answer(self, content: bytes, headers: dict[str, str] | None = None):
        self.send_response(200)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())

    def content(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def etag(self, name: str) -> str:
        """As the hub has it: the sha256 of large files, git's hash of small ones."""
        return hashlib.new("sha256" if name.endswith("safetensors") else "sha1", self.content(name)).hexdigest()

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(tiny_encoder, tmp_path):
    handler = type("OneHub", (Hub,), {"folder": shutil.copytree(tiny_encoder, tmp_path / "repository"), "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    handler.address = f"http://127.0.0.1:{server.server_port}"
    yield handler
    server.shutdown()
    server.server_close()


def ask(source: str, home: Path, address: str, **environment: str) -> list[str]:
    """What a process that may not reach anything but `address` says of a source."""
    environment = {**os.environ, "HF_HOME": str(home), "HF_ENDPOINT": address, "HF_HUB_DISABLE_XET": "1",
                   "HF_HUB_DISABLE_PROGRESS_BARS": "1", "no_proxy": "127.0.0.1"} | environment
    done = subprocess.run([sys.executable, "-c", SCRIPT, source], env=environment, capture_output=True, text=True,
                          cwd=Path(__file__).parents[2], timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_only_what_is_read_is_fetched_and_the_cache_serves_without_a_network(hub, tmp_path):
    (hub.folder / "pytorch_model.bin").write_bytes(b"not wanted")
    (hub.folder / "README.md").write_text("not wanted")
    home, closed = tmp_path / "home", "http://127.0.0.1:9"
    folder, fingerprint = ask("hf://owner/tiny", home, hub.address)
    assert folder == str(home / "hub/models--owner--tiny/snapshots" / COMMIT)
    assert sorted(os.listdir(folder)) == ["config.json", "model.safetensors", "tokenizer_config.json", "vocab.txt"]
    assert set(hub.asked) == set(os.listdir(folder))
    assert ask("hf://owner/tiny", home, closed) == [folder, fingerprint]
    assert ask("hf://owner/tiny@main", home, closed, HF_HUB_OFFLINE="1") == [folder, fingerprint]
    assert ask(f"hf://owner/tiny@{COMMIT}", home, closed) == [folder, fingerprint]
    (said,) = ask("hf://owner/tiny@v2", home, closed, HF_HUB_OFFLINE="1")
    assert said.startswith("TextrailError: expected hf://owner/tiny at v2, from the hub or whole in the cache")


def test_a_repository_with_nothing_but_a_pickle(hub, tmp_path):
    (hub.folder / "model.safetensors").rename(hub.folder / "pytorch_model.bin")
    (said,) = ask("hf://owner/tiny", tmp_path / "home", hub.address)
    assert "received config.json, pytorch_model.bin, tokenizer_config.json, vocab.txt." in said
    assert "Loading pytorch_model.bin would run code" in said
    assert hub.asked == []


def test_a_repository_that_is_not_there(hub, tmp_path):
    (said,) = ask("hf://owner/tyni", tmp_path / "home", hub.address)
    assert "expected hf://owner/tyni at main, from the hub" in said and "RepositoryNotFoundError" in said


def cached(home: Path, encoder: Path, commit: str) -> Path:
    """A repository as huggingface_hub caches it: files under their hashes, links in a folder of the commit."""
    repository = home / "hub/models--owner--tiny"
    snapshot = repository / "snapshots" / commit
    for folder in (repository / "blobs", repository / "refs", snapshot):
        folder.mkdir(parents=True, exist_ok=True)
    for path in encoder.iterdir():
        blob = repository / "blobs" / hashlib.sha256(path.read_bytes()).hexdigest()
        shutil.copyfile(path, blob)
        (snapshot / path.name).symlink_to(os.path.relpath(blob, snapshot))
    (repository / "refs/main").write_text(commit)
    return snapshot


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """huggingface_hub without a network; it reads the environment when it is imported."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home/hub"))
    return tmp_path / "home"


def test_the_commit_is_the_fingerprint_and_the_name_of_a_cached_file_its_hash(tiny_encoder, offline):
    cached(offline, tiny_encoder, EARLIER)
    before = encoder_fingerprint("hf://owner/tiny")
    assert before == encoder_fingerprint(f"hf://owner/tiny@{EARLIER}") != encoder_fingerprint(f"hf://owner/tiny@{COMMIT}")
    folder = cached(offline, tiny_encoder, COMMIT)
    assert before != encoder_fingerprint("hf://owner/tiny")
    assert read_encoder("hf://owner/tiny").config.hidden_size == 32
    weights = (folder / "model.safetensors").resolve()
    weights.write_bytes(weights.read_bytes()[:-4] + b"bad!")
    with pytest.raises(TextrailError, match=f"with sha256 {weights.name}; received"):
        read_encoder("hf://owner/tiny")


@pytest.mark.parametrize("source", ["hf://tiny", "hf://owner/tiny@", "hf://owner/tiny/model.safetensors"])
def test_a_repository_is_named_with_its_owner(source):
    with pytest.raises(TextrailError, match="hf://owner/name or hf://owner/name@revision"):
        encoder_downloads.fetch(source)


def test_a_handle_in_the_cache_of_tensorflow_hub(tmp_path, monkeypatch):
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path))
    folder = tmp_path / hashlib.sha1(HANDLE.encode()).hexdigest()
    folder.mkdir()
    (folder / "saved_model.pb").touch()
    assert encoder_downloads.fetch(HANDLE) == folder
    assert encoder_fingerprint(HANDLE) != encoder_fingerprint(HANDLE[:-1] + "1")


def test_a_handle_that_is_not_to_be_had(tmp_path, monkeypatch):
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(TextrailError, match=rf"expected {HANDLE}, from the network or in the cache {tmp_path}; "
                       r"received URLError: .*copy the unpacked folder here"):
        encoder_downloads.fetch(HANDLE)


@pytest.mark.parametrize("handle", [
    KAGGLE, "https://kaggle.com/models/tensorflow/bert/frameworks/tensorFlow2/variations/bert-en-uncased-l-2/versions/2"])
def test_a_model_in_the_cache_of_kagglehub(tmp_path, monkeypatch, handle):
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path))
    monkeypatch.setenv("TFHUB_CACHE_DIR", str(tmp_path / "tfhub"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    folder = tmp_path / "models/tensorflow/bert/tensorFlow2/bert-en-uncased-l-2/2"
    folder.mkdir(parents=True)
    with pytest.raises(TextrailError, match="from the network or in the cache"):
        encoder_downloads.fetch(handle)   # half downloaded: kagglehub has not marked it as complete
    Path(f"{folder}.complete").touch()
    assert encoder_downloads.fetch(handle) == folder
