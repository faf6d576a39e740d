"""TensorFlow Serving's REST API: https://www.tensorflow.org/tfx/serving/api_rest."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable, Coroutine
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipelines.serving.errors import RestError, invalid
from pipelines.serving.tensors import Request as Asked
from pipelines.serving.tensors import read_columns, read_request, write_response
from pipelines.serving.watching import Served, Watcher

VERSION = r"(?:/versions/(?P<version>\d{1,18})|/labels/(?P<label>[^/:]+))?"
PREDICT = re.compile(rf"/v1/models/(?P<name>[^/:]+){VERSION}:(?P<method>classify|regress|predict)", re.IGNORECASE)
LOOK = re.compile(rf"/v1/models(?:/(?P<name>[^/:]+))?{VERSION}(?P<metadata>/metadata)?", re.IGNORECASE)
JSON = "application/json"
# A body this many times too large is still read to its end, and thrown away, so that its client gets to the answer.
DRAINED = 16
# Requests of that size together may be read and answered at a time: bounds the memory.
TOGETHER = 16
BODY_SECONDS = 60
# Bytes of a body, numbers and strings of an answer that take milliseconds to read and to write.
LARGE_BODY, LARGE_ANSWER = 65_536, 20_000
LOGGER = logging.getLogger("textrail.serving")


class RestApi:
    """Answers for one model.

    Args:
        watcher: the model.
    """

    def __init__(self, watcher: Watcher):
        self._watcher = watcher

    def route(self) -> Route:
        """Everything below /v1/: what is no path of the API is told so in its form."""
        return Route("/v1/{rest:path}", _ApiEndpoint(self._answer))

    async def _answer(self, request: Request) -> Response:
        # The path as it was sent: %3A in a name is no colon.
        path = request.scope.get("raw_path", request.url.path.encode()).decode("latin-1").partition("?")[0]
        if request.method == "POST" and (match := PREDICT.fullmatch(path)):
            return await self._predict(request, match)
        if request.method == "GET" and (match := LOOK.fullmatch(path)):
            if not match["name"]:
                raise invalid("Missing model name in request.")
            return self._metadata(match) if match["metadata"] else self._status(match)
        raise invalid(f"Malformed request: {request.method} {path}")

    async def _predict(self, request: Request, match: re.Match[str]) -> Response:
        self._check(match, "Servable not found for request: {}")
        try:
            body = await asyncio.wait_for(request.body(), BODY_SECONDS)
        except asyncio.TimeoutError:
            raise RestError(HTTPStatus.REQUEST_TIMEOUT, f"expected a body within {BODY_SECONDS} s; received a part of "
                                                        "it. Send it faster.") from None
        with self._watcher.use(self._number(match)) as served:
            if (method := match["method"].lower()) != "predict":
                raise invalid(f"Expected {'classification' if method == 'classify' else 'regression'} signature "
                              f"method_name to be tensorflow/serving/{method}. Was: tensorflow/serving/predict")
            asked, columns = await _beside(len(body) > LARGE_BODY, _read, body, served)
            outputs = await _unless_gone(request.receive, served.ask(asked.signature, columns))
        numbers = sum(values.size for values in outputs.values())
        return Response(await _beside(numbers > LARGE_ANSWER, write_response, outputs, asked.by_row), media_type=JSON)

    def _status(self, match: re.Match[str]) -> Response:
        name, number = unquote(match["name"]), self._number(match)
        self._check(match, f"Could not find any versions of model {name}")
        states = sorted(self._watcher.states.items(), reverse=True)
        if number is not None:
            states = [(found, state) for found, state in states if found == number]
            if not states:
                raise RestError(HTTPStatus.NOT_FOUND, f"Could not find version {number} of model {name}")
        return _json({"model_version_status": [
            {"version": str(found), "state": state.name,
             "status": {"error_code": "UNKNOWN" if state.error else "OK", "error_message": state.error}}
            for found, state in states]})

    def _metadata(self, match: re.Match[str]) -> Response:
        self._check(match, "Servable not found for request: {}")
        with self._watcher.use(self._number(match)) as served:
            return _json({"model_spec": {"name": self._watcher.name, "signature_name": "",
                                         "version": str(served.model.number)},
                          "metadata": {"signature_def": {"signature_def": served.model.signature_def}}})

    @staticmethod
    def _number(match: re.Match[str]) -> int | None:
        """The version that a path names, none if it names none."""
        return int(match["version"]) if match["version"] else None

    def _check(self, match: re.Match[str], absent: str) -> None:
        """Refuses a path that names another model, or a label, of which there are none.

        Args:
            match: of the path.
            absent: what is said of another model; `{}` stands for what was asked for.
        """
        name, number = unquote(match["name"]), self._number(match)
        if name != self._watcher.name:
            asked = f"Latest({name})" if number is None else f"Specific({name}, {number})"
            raise RestError(HTTPStatus.NOT_FOUND, absent.format(asked))
        if match["label"]:
            raise invalid(f"Unrecognized servable version label: {unquote(match['label'])}")


def _read(body: bytes, served: Served) -> tuple[Asked, dict[str, list[bytes]]]:
    """What a request asks, and its rows by column."""
    asked = read_request(body)
    return asked, read_columns(asked, served.inputs(asked.signature))


async def _beside(in_thread: bool, function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function: where it takes long, in a thread, while the event loop goes on with other requests."""
    return await asyncio.to_thread(function, *arguments) if in_thread else function(*arguments)


async def _unless_gone(receive: Receive, answer: Coroutine[Any, Any, Any]) -> Any:
    """An answer, given up when its client hangs up, so that nobody's rows are computed for nobody.

    Raises:
        ClientDisconnect: nobody is there to be told.
    """
    answering, leaving = asyncio.ensure_future(answer), asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            raise ClientDisconnect
        return answering.result()
    finally:
        for task in (answering, leaving):
            task.cancel()   # which changes nothing of what is done


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class _ApiEndpoint:
    """An ASGI app, so that starlette asks it for every method; what goes wrong is told as JSON."""

    def __init__(self, answer: Callable[[Request], Awaitable[Response]]):
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            response = await self._answer(Request(scope, receive))
        except RestError as error:
            response = error_response(error.status, error.message)
        except ClientDisconnect:
            return
        except HTTPException:   # of `BodyLimit`
            raise
        except Exception as error:
            LOGGER.exception("%s %s", scope["method"], scope["path"])
            response = error_response(HTTPStatus.INTERNAL_SERVER_ERROR,
                                      f"{type(error).__name__}: {error}. The server's log has the traceback.")
        await response(scope, receive, send)


def error_response(status: int, message: str) -> Response:
    """An error as TensorFlow Serving tells it."""
    return _json({"error": message}, status)


def _json(value: Any, status: int = HTTPStatus.OK) -> Response:
    return Response(json.dumps(value, ensure_ascii=False, indent=1), status, media_type=JSON)


class BodyLimit:
    """Refuses a request with a large body, before any of it is kept, and what all bodies together have too much.

    Args:
        app: what answers the others.
        most: bytes of a body.
    """

    def __init__(self, app: ASGIApp, most: int):
        self._app, self._most = app, most
        self._held = 0   # bytes of the requests that are being read or answered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
        if length.isdigit() and int(length) > self._most:
            if int(length) <= DRAINED * self._most:
                await _drain(receive)
            response = error_response(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, self._sentence(f"{int(length):,} bytes"))
            await response(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            size = len(message.get("body", b""))
            received += size
            self._held += size
            if received > self._most:
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, self._sentence("more, in chunks"))
            if self._held > TOGETHER * self._most:
                raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, f"The requests that are being answered have more "
                                    f"than {TOGETHER * self._most:,} bytes together. Try again.")
            return message

        try:
            await self._app(scope, counted, send)
        finally:
            self._held -= received

    def _sentence(self, received: str) -> str:
        return (f"expected a body of at most {self._most:,} bytes; received {received}. Send fewer rows at a time, or "
                "start the server with a larger --max-request-mb.")


async def _drain(receive: Receive) -> None:
    while (message := await receive())["type"] == "http.request" and message.get("more_body"):
        pass
