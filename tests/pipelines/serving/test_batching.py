"""Who shares a call, and who gets which part of its answer."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pipelines.serving.batching import Batcher, Limits
from pipelines.serving.errors import RestError


class Lengths:
    """Answers with the length of each text; waits for `go` and keeps what it was asked; refuses "bad"."""

    def __init__(self):
        self.calls, self.go = [], threading.Event()
        self.go.set()

    def __call__(self, columns):
        self.calls.append(columns["text"])
        assert self.go.wait(10)
        if b"bad" in columns["text"]:
            raise RestError(400, "a bad text")
        return {"length": np.array([len(text) for text in columns["text"]])}


def run(body, limits=Limits()):  # noqa: B008  # frozen
    """Runs `body(batcher, lengths)` in an event loop."""
    lengths = Lengths()

    async def main():
        with ThreadPoolExecutor(limits.calls) as threads:
            batcher = Batcher(lengths, limits, threads)
            try:
                return await asyncio.wait_for(body(batcher, lengths), 20)
            finally:
                lengths.go.set()
                await batcher.close()

    return asyncio.run(main())


def ask(batcher, *texts):
    return asyncio.ensure_future(batcher.ask({"text": [text.encode() for text in texts]}))


async def answers(*asked):
    return [outputs["length"].tolist() for outputs in await asyncio.gather(*asked)]


def test_requests_that_come_together_share_a_call_and_get_their_own_rows():
    async def body(batcher, lengths):
        assert await answers(ask(batcher, "a"), ask(batcher, "bb", "ccc"), ask(batcher, "")) == [[1], [2, 3], [0]]
        assert lengths.calls == [[b"a", b"bb", b"ccc", b""]]

    run(body, Limits(max_batch=8, max_wait=0.2))


def test_a_full_batch_does_not_wait_and_what_is_over_comes_next():
    async def body(batcher, lengths):
        began = asyncio.get_running_loop().time()
        first = [ask(batcher, "a", "b"), ask(batcher, "c", "d"), ask(batcher, "e", "f")]
        assert await answers(*first[:2]) == [[1, 1], [1, 1]]
        assert asyncio.get_running_loop().time() - began < 5
        assert lengths.calls[0] == [b"a", b"b", b"c", b"d"]
        first[2].cancel()

    run(body, Limits(max_batch=4, max_wait=30))


def test_what_comes_while_the_model_computes_waits_no_longer_than_that():
    async def body(batcher, lengths):
        lengths.go.clear()
        first = ask(batcher, "a")
        while not lengths.calls:
            await asyncio.sleep(0.01)
        later = [ask(batcher, "bb"), ask(batcher, "ccc")]
        await asyncio.sleep(0.05)
        lengths.go.set()
        assert await answers(first, *later) == [[1], [2], [3]]
        assert lengths.calls == [[b"a"], [b"bb", b"ccc"]]

    run(body, Limits(max_batch=8, max_wait=0.02))


def test_without_sharing_each_request_has_its_call_and_a_large_one_too():
    async def body(batcher, lengths):
        assert await answers(ask(batcher, "a"), ask(batcher, "b", "c"), ask(batcher, "d")) == [[1], [1, 1], [1]]
        assert lengths.calls == [[b"a"], [b"b", b"c"], [b"d"]]

    run(body, Limits(max_batch=1, max_wait=0))


def test_one_bad_request_spoils_no_other():
    async def body(batcher, lengths):
        asked = [ask(batcher, "a"), ask(batcher, "bad"), ask(batcher, "cc")]
        found = await asyncio.gather(*asked, return_exceptions=True)
        assert [outputs["length"].tolist() for outputs in (found[0], found[2])] == [[1], [2]]
        assert isinstance(found[1], RestError)
        assert lengths.calls[0] == [b"a", b"bad", b"cc"]

    run(body, Limits(max_wait=0.1))


def test_too_many_waiting_rows_are_refused_and_those_who_left_are_not_computed():
    async def body(batcher, lengths):
        lengths.go.clear()
        first = ask(batcher, "a")
        while not lengths.calls:
            await asyncio.sleep(0.01)
        left, kept = ask(batcher, "b"), ask(batcher, "c", "c")
        await asyncio.sleep(0)
        left.cancel()
        with pytest.raises(RestError) as caught:
            await ask(batcher, "d", "e")
        assert (caught.value.status, caught.value.message) == (
            503, "The batch scheduling queue to which this task was submitted is full")
        lengths.go.set()
        assert await answers(first, kept) == [[1], [1, 1]]
        assert lengths.calls == [[b"a"], [b"c", b"c"]]

    run(body, Limits(max_wait=0, max_waiting=3))


def test_those_who_left_make_room_and_are_not_waited_for():
    async def body(batcher, lengths):
        lengths.go.clear()
        first = ask(batcher, "a")
        while not lengths.calls:
            await asyncio.sleep(0.01)
        left = [ask(batcher, "b", "c"), ask(batcher, "d")]
        await asyncio.sleep(0)
        for request in left:
            request.cancel()
        await asyncio.sleep(0)
        later = ask(batcher, "e", "f", "g")   # refused if those three rows still counted
        lengths.go.set()
        assert await answers(first, later) == [[1], [1, 1, 1]]
        assert lengths.calls == [[b"a"], [b"e", b"f", b"g"]]

    run(body, Limits(max_wait=0, max_waiting=3))


def test_more_rows_than_may_ever_wait_are_the_clients_fault():
    async def body(batcher, lengths):
        with pytest.raises(RestError) as caught:
            await ask(batcher, *"abcd")
        assert (caught.value.status, caught.value.message) == (
            400, "Task size 4 is larger than maximum input batch size 3")

    run(body, Limits(max_waiting=3))


def test_a_batcher_closes_while_a_request_is_arriving_and_leaving():
    async def body(batcher, lengths):
        await asyncio.sleep(0.01)   # The lane waits for a request, one comes and goes, and the lane is to end at once.
        request = ask(batcher, "a")
        await asyncio.sleep(0)
        request.cancel()
        await batcher.close()
        assert lengths.calls == []

    run(body, Limits(max_wait=30))
