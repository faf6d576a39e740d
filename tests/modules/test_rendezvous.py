"""Processes of a training that find each other: who comes, who does not, who cannot, and who is gone."""

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from modules import rendezvous
from modules.errors import TextrailError
from modules.rendezvous import Place, Watch, come, gather, place, send_away

CARD = {"tensorflow": "2.16.2", "code": "abc"}


@pytest.fixture
def places() -> list[Place]:
    """Three processes on this machine."""
    hosts = []
    for _ in range(3):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            hosts.append(f"localhost:{free.getsockname()[1]}")
    return [Place(number, tuple(hosts)) for number in range(3)]


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(rendezvous, "KNOCK_SECONDS", 0.01)


def told(call, *arguments, **options) -> str:
    with pytest.raises(TextrailError) as caught:
        call(*arguments, **options)
    return str(caught.value)


def refuses(training) -> None:
    raise TextrailError("the encoder at /there", "nothing", "Share it.")


def meet(places, seen=None):
    """The connections of the first process, by number, and those of the others to it."""
    with ThreadPoolExecutor() as pool:
        others = [pool.submit(come, one, CARD, 20, (seen if seen is not None else []).append) for one in places[1:]]
        return gather(places[0], CARD, {"run_fn": "mine"}, 20), [one.result() for one in others]


def test_all_hear_what_to_train_and_part_when_all_are_done(places):
    heard: list = []
    gathered, came = meet(places, heard)
    assert heard == [{"run_fn": "mine"}] * 2 and sorted(gathered) == [1, 2]
    with socket.create_server(("", int(places[0].hosts[0].rpartition(":")[2]))):
        pass   # The address is free for TensorFlow, though connections to it are open.
    lost: list = []
    watches = [Watch(places[0], gathered, lost.append), *(
        Watch(here, {0: one}, lost.append) for here, one in zip(places[1:], came, strict=True))]
    with ThreadPoolExecutor() as pool:
        list(pool.map(Watch.finish, watches))
    assert lost == []


def test_who_does_not_come_is_named(places):
    with ThreadPoolExecutor() as pool:
        waits = pool.submit(told, come, places[1], CARD, 20, print)
        said = told(gather, places[0], CARD, {}, 0.5)
        assert said.startswith(f"expected all 3 processes of TF_CONFIG within 0.00833 min; received nothing of process "
                               f"2 ({places[0].hosts[2]}). Start `textrail train-worker` there")
        assert f"nothing of process 2 ({places[0].hosts[2]})" in waits.result()
    assert told(come, places[1], CARD, 0.1, print).startswith(
        f"expected a run whose Trainer waits at {places[0].hosts[0]} within 0.00167 min; received none (")


def test_who_waits_hears_that_there_is_nothing_to_train(places):
    with ThreadPoolExecutor() as pool:
        waits = [pool.submit(come, one, CARD, 20, print) for one in places[1:]]
        began = time.monotonic()
        send_away(places[0])
        assert time.monotonic() - began < rendezvous.LEAVE_SECONDS, "it does not wait for more than all"
        assert [one.result() for one in waits] == [None, None]


def test_a_run_that_nobody_waits_for_is_not_held_up(places, monkeypatch):
    monkeypatch.setattr(rendezvous, "LEAVE_SECONDS", 0.1)
    send_away(places[0])
    with socket.create_server(("", int(places[0].hosts[0].rpartition(":")[2]))):
        send_away(places[0])


@pytest.mark.parametrize("card, second, said", [
    (CARD | {"tensorflow": "2.17.0"}, None, "as in the run; received 2.17.0. Start `textrail train-worker` from this "
     "project's environment."), (CARD, "b:2", ", b:2 in process 1. Name the same hosts in all.")])
def test_others_are_refused_on_both_sides(places, card, second, said):
    other = Place(1, (places[0].hosts[0], second)) if second else places[1]
    with ThreadPoolExecutor() as pool:
        waits = pool.submit(told, come, other, card, 20, print)
        assert told(gather, places[0], CARD, {}, 20).endswith(said)
        assert waits.result().endswith(said)


def test_who_cannot_train_says_why_to_all(places):
    with ThreadPoolExecutor() as pool:
        able, unable = (pool.submit(told, come, places[number], CARD, 20, hear)
                        for number, hear in ((1, print), (2, refuses)))
        said = told(gather, places[0], CARD, {"run_fn": "mine"}, 20)
        assert said == (f"expected the encoder at /there; received nothing, in process 2 ({places[0].hosts[2]}). Share "
                        "it.")
        assert "in process 2" in able.result() and unable.result().startswith("expected the encoder at /there")


def test_who_does_not_say_whether_it_can_train_is_named(places, monkeypatch):
    monkeypatch.setattr(rendezvous, "ANSWER_SECONDS", 1)
    with ThreadPoolExecutor() as pool:
        silent = pool.submit(told, come, Place(1, places[1].hosts[:2]), CARD, 20, lambda _: threading.Event().wait(2))
        assert told(gather, Place(0, places[0].hosts[:2]), CARD, {"run_fn": "mine"}, 20).startswith(
            "expected all processes to say within 1 s whether they can train; received nothing, in process 1 (")
        assert silent.result().startswith("expected all processes to say within 1 s whether they can train; rec")


def test_strangers_are_passed_over_and_who_is_started_anew_is_taken(places):
    def strange() -> None:
        for words in (b"GET / HTTP/1.0\r\n\r\n", b'{"number": 7}\n', b'{"number": "1"}\n', b"[]\n"):
            rendezvous._reach(places[1], float("inf"), 0)._socket.sendall(words)
        first = rendezvous._reach(places[1], float("inf"), 0)
        first.send({"number": 1, "hosts": places[1].hosts, "card": CARD})
        assert first.receive(20) is None

    with ThreadPoolExecutor() as pool:
        strangers, found = pool.submit(strange), pool.submit(gather, places[0], CARD, {"run_fn": "mine"}, 20)
        second = pool.submit(lambda: (threading.Event().wait(0.5), come(places[1], CARD, 20, print)))
        strangers.result()
        come(places[2], CARD, 20, print)
        assert sorted(found.result()) == [1, 2] and second.result()


def test_who_is_gone_is_noticed_at_once(places):
    gathered, came = meet(places)
    lost, is_lost = [], threading.Event()
    Watch(places[0], gathered, lambda error: (lost.append(str(error)), is_lost.set()))
    came[1].close()
    assert is_lost.wait(10)
    assert lost[0].startswith("expected all processes of the training until its end; received the end of process 2 (")
    assert "start `textrail train-worker` where it ended, and call the run again" in lost[0]


def test_an_error_reaches_the_others(places):
    gathered, came = meet(places)
    lost, is_lost = [], threading.Event()
    Watch(places[1], {0: came[0]}, lambda error: (lost.append(str(error)), is_lost.set()))
    Watch(places[0], gathered, print).tell(TextrailError("a finite loss", "nan", "Lower it."))
    assert is_lost.wait(10)
    assert lost[0] == f"expected a finite loss; received nan, in process 0 ({places[0].hosts[0]}). Lower it."


@pytest.mark.parametrize("config", ["", "{", '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
                                    '{"cluster": {"worker": ["a:1"]}, "task": {"type": "ps", "index": 0}}',
                                    '{"cluster": {"worker": ["a"]}, "task": {"type": "worker", "index": 0}}'])
def test_a_cluster_that_is_none_is_refused(monkeypatch, config):
    monkeypatch.setenv("TF_CONFIG", config)
    assert "Set it for every process" in told(place)


def test_the_chief_comes_first(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": {"chief": ["a:1"], "worker": ["b:1", "c:1"]},
                                                "task": {"type": "worker", "index": 1}}))
    assert place() == Place(2, ("a:1", "b:1", "c:1"))
