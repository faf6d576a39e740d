"""A run's pushed model on a port: the REST API, the page, new versions as they come, and an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib.util
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable
from types import FrameType
from typing import NamedTuple

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from components.versions import served_version
from modules.errors import TextrailError
from pipelines.model import Model
from pipelines.serving.batching import Limits
from pipelines.serving.rest import BodyLimit, RestApi, error_response
from pipelines.serving.watching import Watcher
from pipelines.workspace import Workspace

# Requests in flight get this long to be answered when the server is told to stop.
SHUTDOWN_SECONDS = 30
NO_GRADIO = "it needs Gradio, which `uv sync --frozen --inexact --extra playground` adds"
LOGGER = logging.getLogger("textrail.serving")
Tell = Callable[[str], None]


class Place(NamedTuple):
    """Where and how a server answers.

    Attributes:
        host: address it binds to.
        port: its port; 0 takes a free one.
        most_bytes: of a request's body.
        limits: of the model's calls.
        with_page: whether there is a page beside the API.
    """

    host: str
    port: int
    most_bytes: int
    limits: Limits
    with_page: bool = True


def serve(paths: Workspace, place: Place, fix: str, tell: Tell) -> None:
    """Serves until SIGTERM or Ctrl-C, then answers what is in flight and returns.

    Args:
        paths: of the run.
        place: where.
        fix: what to do when nothing was pushed, for the error.
        tell: is told, in a sentence each, where the server is and what becomes of it.

    Raises:
        TextrailError: the port is taken, or there is no pushed model that loads.
    """
    _log_with_times()
    destination = paths.destination()
    version = served_version(destination)
    if version is None:
        raise TextrailError(f"a pushed model in {destination}", "none", fix)
    with _bound(place.host, place.port) as listener:
        first = Model(os.path.join(destination, version))
        with contextlib.suppress(KeyboardInterrupt):   # uvicorn raises the signal anew when it is done
            asyncio.run(_serve(paths, place, listener, first, destination, tell))
    tell("stopped")


async def _serve(paths: Workspace, place: Place, listener: socket.socket, first: Model, destination: str, tell: Tell
                 ) -> None:
    def told(line: str) -> None:
        LOGGER.info(line)
        tell(line)

    watcher = Watcher(paths.run, destination, place.limits, first, told)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        watching = asyncio.create_task(watcher.watch())
        try:
            yield
        finally:
            watching.cancel()
            await watcher.close()

    app = Starlette(routes=[RestApi(watcher).route()], lifespan=lifespan,
                    exception_handlers={HTTPException: _as_json})
    close_pages = _add_page(app, paths, watcher, place, told)
    config = uvicorn.Config(BodyLimit(app, place.most_bytes), log_config=None, access_log=False, server_header=False,
                            timeout_graceful_shutdown=SHUTDOWN_SECONDS)
    host, port = listener.getsockname()[:2]
    origin = f"http://{f'[{host}]' if ':' in host else host}:{port}"

    def started() -> None:
        told(f"version {first.number} of {paths.run} is served at {origin}/v1/models/{paths.run}:predict")
        if close_pages:
            told(f"page: {origin}/")

    # What is loaded stays. The collector would look at all of it, in pauses between answers and for seconds at the end.
    gc.freeze()
    await _Server(config, started, close_pages or (lambda: None)).serve([listener])


class _Server(uvicorn.Server):
    """A server that says when it answers, and ends what open pages hold open, for which it would wait otherwise."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None], before_exit: Callable[[], None]):
        super().__init__(config)
        self._started, self._before_exit = started, before_exit

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        except OSError as error:   # Who bound at the same time was first to listen.
            await self.lifespan.shutdown()
            host, port = sockets[0].getsockname()[:2] if sockets else ("", 0)
            raise _taken(host, port, error) from error
        if self.started:
            self._started()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._before_exit()
        super().handle_exit(sig, frame)


def _add_page(app: Starlette, paths: Workspace, watcher: Watcher, place: Place, tell: Tell
              ) -> Callable[[], None] | None:
    """Adds the page if it is wanted and can be had, otherwise what there is instead."""
    if not place.with_page or not importlib.util.find_spec("gradio"):
        reason = NO_GRADIO if place.with_page else "the server was started with --no-page"
        if place.with_page:
            tell(f"no page: {reason}")
        sentence = f"No page: {reason}. The API answers below /v1/models/{paths.run}.\n"
        app.router.routes.append(Route("/", lambda _: PlainTextResponse(sentence)))
        return None
    from pipelines.serving import playground
    from pipelines.serving.examples import examples

    with watcher.use() as served:
        model = served.model
    made = paths.artifacts(paths.recorded("beam").get("artifacts"))
    rows = examples(made, model.columns, model.manifest.get("label"), masked=model.manifest["shape"] == "pretraining")
    return playground.mount(app, playground.build(paths.run, watcher, rows), place.most_bytes)


def _bound(host: str, port: int) -> socket.socket:
    """A socket at an address; bound before anything is loaded, so that a taken port is told at once."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except (OSError, OverflowError) as error:
        raise _taken(host, port, error) from error
    return bound


def _taken(host: str, port: int, error: Exception) -> TextrailError:
    return TextrailError(f"a free port {port} at {host}", str(error),
                         "Choose another one with --port, or an address of this machine with --host.")


def _log_with_times() -> None:
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True)
    for name in ("textrail", "uvicorn"):
        logging.getLogger(name).setLevel(logging.INFO)


async def _as_json(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return error_response(error.status_code, error.detail)
