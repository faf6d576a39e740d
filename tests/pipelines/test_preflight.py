"""The look at the workers, with Beam's own job server in Python and its pool of workers."""

import os
import socket
import threading

import pytest

from modules.errors import TextrailError
from pipelines import preflight
from pipelines.beam_sections import Beam


@pytest.fixture(scope="module")
def job_server(tmp_path_factory):
    """HOST:PORT of a job server that runs pipelines in this process."""
    from apache_beam.runners.portability.local_job_service import LocalJobServicer

    server = LocalJobServicer(str(tmp_path_factory.mktemp("staging")))
    port = server.start_grpc_server(0)
    yield f"localhost:{port}"
    server._server.stop(0)


def flink(endpoint, seconds=600.0, **keys):
    return Beam(runner="flink", job_endpoint=endpoint, preflight_seconds=seconds, **keys).model_dump()


def has_an_address(host: str) -> bool:
    try:
        return bool(socket.gethostbyname(host))
    except OSError:
        return False


def message(*arguments) -> str:
    with pytest.raises(TextrailError) as caught:
        preflight.check(*arguments)
    return str(caught.value)


@pytest.mark.skipif(not has_an_address(socket.getfqdn()),
                    reason="Beam's job server sends workers to this machine by its name, which has no address here")
def test_workers_tell_versions_and_what_they_cannot_read(job_server, tmp_path):
    here = tmp_path / "rows.csv"
    here.write_text("text,label\n")
    seen = preflight.check(flink(job_server), str(tmp_path / "artifacts"), [str(here)])
    assert seen.hosts == [socket.gethostname()]
    assert seen.versions == preflight.worker_probe_here()["versions"]
    assert list((tmp_path / "artifacts").iterdir()) == [], "nothing stays behind"
    missing = str(tmp_path / "gone.csv")
    assert message(flink(job_server), str(tmp_path), [missing]).startswith(
        f"expected a file that the workers on {socket.gethostname()} can read; received {missing}, where they find: ")


def test_nobody_at_the_endpoint(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    assert f"job server of flink at localhost:{port}; received none ([Errno 111]" in message(
        flink(f"localhost:{port}"), str(tmp_path), [])


def test_a_server_that_never_answers_ends_in_time(tmp_path):
    with socket.socket() as silent:
        silent.bind(("localhost", 0))
        silent.listen()
        told = message(flink(f"localhost:{silent.getsockname()[1]}", seconds=3.0), str(tmp_path), [])
    assert "an answer of a worker within 3 s" in told and "none, nor of the job server" in told


def test_workers_that_die_in_silence_end_in_time(job_server, tmp_path, monkeypatch):
    """As a pool does whose `python` has no Beam."""
    from apache_beam.runners.worker.worker_pool_main import BeamFnExternalWorkerPoolServicer

    broken = tmp_path / "bin"
    broken.mkdir()
    (broken / "python").write_text("#!/bin/sh\nexit 1\n")
    (broken / "python").chmod(0o755)
    monkeypatch.setenv("PATH", f"{broken}:{os.environ['PATH']}")
    address, server = BeamFnExternalWorkerPoolServicer.start(use_process=True)
    try:
        told = message(flink(job_server, seconds=8.0, environment="EXTERNAL", worker_pool=address), str(tmp_path), [])
    finally:
        threading.Thread(target=server.stop, args=(0,), daemon=True).start()
    assert f"Is a pool of workers at {address} of each" in told and "`textrail workers`" in told


def test_containers_do_not_see_a_folder_of_this_machine(tmp_path):
    keys = flink("localhost:1", environment="DOCKER", image="registry/textrail:1")
    assert message(keys, str(tmp_path), []).endswith("Set beam.artifacts to a URI such as gs://bucket/runs.")


@pytest.mark.parametrize("change, told", [
    ({"versions": {"Python": "3.9.1"}}, "on the workers on far, as here; received 3.9.1. Start the pool"),
    ({"versions": {"TensorFlow": "2.0"}}, "on the workers on far, as here; received 2.0. Start the pool"),
    ({"versions": {"TensorFlow Text": None}, "problems": ["tensorflow_text cannot be imported (x)"]},
     "received tensorflow_text cannot be imported (x). Start the pool"),
    ({"problems": ["modules.subwords cannot be imported (x)"]},
     "modules of this project on the workers on far; received modules.subwords cannot"),
    ({"code": "other"}, "the same code of textrail on the workers on far as here; received other source files"),
    ({"unseen": {"/root/.preflight-1": "NotFoundError: none"}},
     "a folder for artifacts that the workers on far reach; received /root, where they find: NotFoundError: none"),
    ({"unseen": {"/a.csv": "NotFoundError: none"}}, "can read; received /a.csv, where they find: NotFoundError: none"),
])
def test_what_differs_is_named(change, told):
    here = preflight.worker_probe_here()
    answer = {"host": "far", "problems": [], "unseen": {}, **here} | change
    answer["versions"] = here["versions"] | change.get("versions", {})
    keys = flink("localhost:1", environment="EXTERNAL", worker_pool="localhost:2")
    with pytest.raises(TextrailError) as caught:
        preflight._check_answer(answer, here, "/root", "/root/.preflight-1", keys)
    assert told in str(caught.value)
