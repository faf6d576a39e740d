"""The newest version of a push destination, kept loaded; requests in flight are answered by the one they began with."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from typing import NamedTuple

from components.versions import served_version
from modules.errors import TextrailError
from pipelines.serving.batching import Batcher, Columns, Limits, Outputs
from pipelines.serving.errors import RestError
from pipelines.serving.model import Model

POLL_SECONDS = 1.0   # As TensorFlow Serving's.
LOGGER = logging.getLogger("textrail.serving")


class State(NamedTuple):
    """Of a version, in TensorFlow Serving's words.

    Attributes:
        name: LOADING, AVAILABLE, UNLOADING or END.
        error: why it could not be loaded; empty if it could.
    """

    name: str
    error: str = ""


class Served:
    """A loaded version with the requests that it is answering.

    Args:
        model: the version.
        limits: of its calls.
        threads: where it computes.
    """

    def __init__(self, model: Model, limits: Limits, threads: ThreadPoolExecutor):
        self.model, self._limits, self._threads = model, limits, threads
        self._batchers: dict[str, Batcher] = {}
        self._users = 0
        self._unused = asyncio.Event()
        self._unused.set()

    @contextmanager
    def used(self) -> Iterator[Served]:
        """Keeps the version for as long as the block lasts."""
        self._users += 1
        self._unused.clear()
        try:
            yield self
        finally:
            self._users -= 1
            if not self._users:
                self._unused.set()

    async def ask(self, signature: str, columns: Columns) -> Outputs:
        """The model's answer; see `Model.ask`. Rows of several requests share a call where that changes no answer."""
        call = partial(self.model.ask, signature)
        if not self.model.is_shareable(signature):
            return await asyncio.get_running_loop().run_in_executor(self._threads, call, columns)
        if signature not in self._batchers:
            self._batchers[signature] = Batcher(call, self._limits, self._threads)
        return await self._batchers[signature].ask(columns)

    async def close(self) -> None:
        """Waits for the last answer, then ends."""
        await self._unused.wait()
        for batcher in self._batchers.values():
            await batcher.close()


class Watcher:
    """Serves the newest version of a destination.

    Args:
        destination: folder or URI of the versions.
        limits: of the calls.
        first: the version that is served from the beginning.
        tell: is told in a sentence when another version is served, or could not be.
    """

    def __init__(self, destination: str, limits: Limits, first: Model, tell: Callable[[str], None]):
        self._destination, self._limits, self._tell = destination, limits, tell
        self._threads = ThreadPoolExecutor(limits.calls, "model")
        # Loading must not wait for answers, nor they for it.
        self._loading = ThreadPoolExecutor(1, "loading")
        self._current = Served(first, limits, self._threads)
        self.states = {first.number: State("AVAILABLE")}
        self._retiring: set[asyncio.Task[None]] = set()

    @contextmanager
    def use(self, number: int | None = None) -> Iterator[Served]:
        """The version served now, kept until the block ends.

        Args:
            number: that must be its own; none takes any.

        Raises:
            RestError: another version is served.
        """
        if number not in (None, self._current.model.number):
            raise RestError(HTTPStatus.NOT_FOUND, str(number))
        with self._current.used() as served:
            yield served

    async def watch(self) -> None:
        """Looks for another version again and again; ends when cancelled."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                await self.look()
            except Exception:   # An object store may be away for a while; what is loaded is served on.
                LOGGER.exception("looking for a new version in %s", self._destination)

    async def look(self) -> None:
        """Loads the newest version if it is not served yet, and retires the one before."""
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._loading, served_version, self._destination)
        number, before = int(found or self._current.model.number), self._current
        if number == before.model.number or self.states.get(number, State("")).error:
            return
        began = time.monotonic()
        self.states[number] = State("LOADING")
        try:
            model = await loop.run_in_executor(self._loading, Model, os.path.join(self._destination, str(number)))
        except Exception as error:
            LOGGER.exception("loading version %s", number)
            self.states[number] = State("END", str(error))
            self._tell(f"version {number} is not served, {before.model.number} is served on: {_sentence(error)}")
            return
        self._current = Served(model, self._limits, self._threads)
        self.states[number] = State("AVAILABLE")
        self._tell(f"version {number} is served, loaded in {time.monotonic() - began:.1f} s; {before.model.number} "
                   "answers what it has begun")
        task = loop.create_task(self._retire(before))
        self._retiring.add(task)   # The event loop itself keeps tasks weakly.
        task.add_done_callback(self._retiring.discard)

    async def _retire(self, served: Served) -> None:
        number = served.model.number
        self.states[number] = State("UNLOADING")
        await served.close()
        self.states[number] = State("END")

    async def close(self) -> None:
        """Answers what is in flight, then ends."""
        await asyncio.gather(*self._retiring, self._current.close())
        self._threads.shutdown()
        self._loading.shutdown(wait=False, cancel_futures=True)


def _sentence(error: Exception) -> str:
    return str(error) if isinstance(error, TextrailError | RestError) else f"{type(error).__name__}: {error}"
