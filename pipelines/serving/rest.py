"""TensorFlow Serving's REST API: https://www.tensorflow.org/tfx/serving/api_rest."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipelines.serving.errors import RestError, invalid
from pipelines.serving.tensors import read_columns, read_request, write_response
from pipelines.serving.watching import Watcher

VERSION = r"(?:/versions/(?P<version>\d+)|/labels/(?P<label>[^/:]+))?"
PREDICT = re.compile(rf"/v1/models/(?P<name>[^/:]+){VERSION}:(?P<method>classify|regress|predict)", re.IGNORECASE)
LOOK = re.compile(rf"/v1/models(?:/(?P<name>[^/:]+))?{VERSION}(?P<metadata>/metadata)?", re.IGNORECASE)
JSON = "application/json"
# A body this many times too large is still read to its end, and thrown away, so that its client gets to the answer.
DRAINED = 16


class RestApi:
    """Answers for one model.

    Args:
        name: of the model, which is the run's.
        watcher: the model.
    """

    def __init__(self, name: str, watcher: Watcher):
        self._name, self._watcher = name, watcher

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
        number = self._number(match, absent="Servable not found for request: {}")
        if match["method"].lower() != "predict":
            method = match["method"].lower()
            raise invalid(f"Expected {'classification' if method == 'classify' else 'regression'} signature "
                          f"method_name to be tensorflow/serving/{method}. Was: tensorflow/serving/predict")
        asked = read_request(await request.body())
        with self._watcher.use(number) as served:
            columns = read_columns(asked, served.model.inputs(asked.signature))
            outputs = await served.ask(asked.signature, columns)
        return Response(write_response(outputs, asked.by_row), media_type=JSON)

    def _status(self, match: re.Match[str]) -> Response:
        name = unquote(match["name"])
        self._number(match, absent=f"Could not find any versions of model {name}", any_version=True)
        states = sorted(self._watcher.states.items(), reverse=True)
        if match["version"]:
            states = [(number, state) for number, state in states if number == int(match["version"])]
            if not states:
                raise RestError(HTTPStatus.NOT_FOUND, f"Could not find version {match['version']} of model {name}")
        return _json({"model_version_status": [
            {"version": str(number), "state": state.name,
             "status": {"error_code": "UNKNOWN" if state.error else "OK", "error_message": state.error}}
            for number, state in states]})

    def _metadata(self, match: re.Match[str]) -> Response:
        number = self._number(match, absent="Servable not found for request: {}")
        with self._watcher.use(number) as served:
            return _json({"model_spec": {"name": self._name, "signature_name": "", "version": str(served.model.number)},
                          "metadata": {"signature_def": {"signature_def": served.model.signature_def}}})

    def _number(self, match: re.Match[str], absent: str, any_version: bool = False) -> int | None:
        """The version that a path names, none if it names none.

        Args:
            match: of the path.
            absent: what is said of a model or a version that is not served; `{}` stands for what was asked for.
            any_version: whether versions that are not served will do.

        Raises:
            RestError: another model, another version, or a label, of which there are none.
        """
        name, number = unquote(match["name"]), int(match["version"]) if match["version"] else None
        asked = f"Latest({name})" if number is None else f"Specific({name}, {number})"
        if name != self._name:
            raise RestError(HTTPStatus.NOT_FOUND, absent.format(asked))
        if match["label"]:
            raise invalid(f"Unrecognized servable version label: {unquote(match['label'])}")
        if not any_version:
            try:
                with self._watcher.use(number):
                    pass
            except RestError as error:
                raise RestError(error.status, absent.format(asked)) from error
        return number


class _ApiEndpoint:
    """An ASGI app, so that starlette asks it for every method; what goes wrong is told as JSON."""

    def __init__(self, answer: Callable[[Request], Awaitable[Response]]):
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            response = await self._answer(Request(scope, receive))
        except RestError as error:
            response = error_response(error.status, error.message)
        await response(scope, receive, send)


def error_response(status: int, message: str) -> Response:
    """An error as TensorFlow Serving tells it."""
    return _json({"error": message}, status)


def _json(value: Any, status: int = HTTPStatus.OK) -> Response:
    return Response(json.dumps(value, ensure_ascii=False, indent=1), status, media_type=JSON)


class BodyLimit:
    """Refuses requests with a large body, before any of it is kept.

    Args:
        app: what answers the others.
        most: bytes.
    """

    def __init__(self, app: ASGIApp, most: int):
        self._app, self._most = app, most

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
            received += len(message.get("body", b""))
            if received > self._most:
                raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, self._sentence("more, in chunks"))
            return message

        await self._app(scope, counted, send)

    def _sentence(self, received: str) -> str:
        return (f"expected a body of at most {self._most:,} bytes; received {received}. Send fewer rows at a time, or "
                "start the server with a larger --max-request-mb.")


async def _drain(receive: Receive) -> None:
    while (message := await receive())["type"] == "http.request" and message.get("more_body"):
        pass
