"""What the API does with clients that leave, with too much at a time, and with what nobody thought of."""

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from pipelines.serving.batching import Batcher, Limits
from pipelines.serving.rest import TOGETHER, BodyLimit, _ApiEndpoint, _unless_gone

SCOPE = {"type": "http", "method": "POST", "path": "/v1/models/x:predict", "headers": []}


def test_rows_of_a_client_that_has_gone_are_not_computed():
    calls, go = [], threading.Event()

    def call(columns):
        calls.append(columns["text"])
        assert go.wait(10)
        return {"length": np.array([len(text) for text in columns["text"]])}

    async def stays():
        await asyncio.sleep(10)

    async def leaves():
        return {"type": "http.disconnect"}

    async def main():
        with ThreadPoolExecutor(1) as threads:
            batcher = Batcher(call, Limits(max_wait=0), threads)
            first = asyncio.ensure_future(_unless_gone(stays, batcher.ask({"text": [b"a"]})))
            while not calls:
                await asyncio.sleep(0.01)
            with pytest.raises(ClientDisconnect):
                await _unless_gone(leaves, batcher.ask({"text": [b"b"]}))
            go.set()
            assert (await first)["length"].tolist() == [1]
            assert (await _unless_gone(stays, batcher.ask({"text": [b"cc"]})))["length"].tolist() == [2]
            await batcher.close()
        assert calls == [[b"a"], [b"cc"]]

    asyncio.run(main())


def test_all_requests_together_hold_so_many_bytes_and_no_more():
    async def main():
        go = asyncio.Event()

        async def app(scope, receive, send):
            await Request(scope, receive).body()
            await go.wait()

        async def receive():
            return {"type": "http.request", "body": b"x" * 10, "more_body": False}

        limit = BodyLimit(app, 10)
        held = [asyncio.ensure_future(limit(SCOPE, receive, None)) for _ in range(TOGETHER)]
        await asyncio.sleep(0)
        for _ in range(2):   # What is refused holds nothing.
            with pytest.raises(HTTPException) as caught:
                await limit(SCOPE, receive, None)
            assert (caught.value.status_code, caught.value.detail) == (
                503, "The requests that are being answered have more than 160 bytes together. Try again.")
        go.set()
        await asyncio.gather(*held)
        await limit(SCOPE, receive, None)

    asyncio.run(main())


@pytest.mark.parametrize(("outcome", "status", "body"), [
    (ValueError("a bug"), 500, {"error": "ValueError: a bug. The server's log has the traceback."}),
    (ClientDisconnect(), None, None)])
def test_what_nobody_thought_of_is_told_in_the_apis_form(outcome, status, body, caplog):
    sent = []

    async def answer(request) -> Response:
        raise outcome

    async def send(message):
        sent.append(message)

    asyncio.run(_ApiEndpoint(answer)(SCOPE, None, send))
    assert [message["status"] for message in sent[:1]] == [status][:len(sent)]
    assert [json.loads(message["body"]) for message in sent[1:]] == [body][:len(sent)]
    assert ("a bug" in caplog.text) == (status == 500)
