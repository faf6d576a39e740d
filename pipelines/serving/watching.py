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

import tensorflow as tf

from components.versions import versions
from modules.errors import TextrailError
from pipelines.model import Model, in_short
from pipelines.serving.batching import Batcher, Columns, Limits, Outputs
from pipelines.serving.errors import RestError, invalid, of_tensorflow

# All three as TensorFlow Serving has them.
POLL_SECONDS = 1.0
TRIES = 6             # A version may be looked at before all of its files have come.
RETRY_SECONDS = 60.0
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

    def inputs(self, signature: str) -> list[str]:
        """Names of the inputs of a signature.

        Raises:
            RestError: there is no such signature.
        """
        if signature not in self.model.signatures:
            raise invalid(f'Serving signature name: "{signature}" not found in signature def')
        return self.model.inputs(signature)

    async def ask(self, signature: str, columns: Columns) -> Outputs:
        """The model's answer; see `Model.ask`. Rows of several requests share a call where that changes no answer.

        Args:
            signature: one of the model's.
            columns: its inputs.

        Raises:
            RestError: the model refuses the rows, or they are too many.
        """
        if signature not in self._batchers:
            alone = self._limits._replace(max_batch=1, max_wait=0)
            self._batchers[signature] = Batcher(partial(self.model.ask, signature), self._limits
                                                if self.model.is_shareable(signature) else alone, self._threads)
        try:
            return self.model.trimmed(signature, await self._batchers[signature].ask(columns))
        except tf.errors.OpError as error:
            raise of_tensorflow(error.error_code, in_short(error)) from error
        except TextrailError as error:
            raise RestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, str(error)) from error

    async def close(self) -> None:
        """Waits for the last answer, then gives the memory back."""
        await self._unused.wait()
        for batcher in self._batchers.values():
            await batcher.close()
        self.model.close()


class _Failure(NamedTuple):
    """Of a version that does not load.

    Attributes:
        tries: so far.
        again: when it is tried again, in time.monotonic's seconds.
    """

    tries: int
    again: float


class Watcher:
    """Serves the newest version of a destination that loads.

    Args:
        name: of the model, for errors.
        destination: folder or URI of the versions.
        limits: of the calls.
        first: the version that is served from the beginning.
        tell: is told in a sentence when another version is served, or could not be.
    """

    def __init__(self, name: str, destination: str, limits: Limits, first: Model, tell: Callable[[str], None]):
        self.name, self._destination, self._limits, self._tell = name, destination, limits, tell
        self._threads = ThreadPoolExecutor(limits.calls, "model")
        # Loading must not wait for answers, nor they for it.
        self._loading = ThreadPoolExecutor(1, "loading")
        self._current = Served(first, limits, self._threads)
        self.states = {first.number: State("AVAILABLE")}
        self._failures: dict[int, _Failure] = {}
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
            raise RestError(HTTPStatus.NOT_FOUND,
                            f"Servable not found for request: Specific({self.name}, {number})")
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
        """Loads the newest version that can be had if it is not served yet, and retires the one before."""
        found = await asyncio.get_running_loop().run_in_executor(self._loading, versions, self._destination)
        self._failures = {number: failure for number, failure in self._failures.items() if number in found}
        for number in reversed(found):
            if number == self._current.model.number:
                return
            failure = self._failures.get(number, _Failure(0, 0))
            if failure.tries < TRIES and time.monotonic() >= failure.again and await self._load(number, failure.tries):
                return

    async def _load(self, number: int, tries: int) -> bool:
        """Puts a version in the place of the one served now.

        Args:
            number: of the version.
            tries: that it has had.

        Returns:
            Whether it could be loaded.
        """
        began, before = time.monotonic(), self._current
        loop = asyncio.get_running_loop()
        self.states[number] = State("LOADING")
        try:
            model = await loop.run_in_executor(self._loading, Model, os.path.join(self._destination, str(number)))
        except Exception as error:
            LOGGER.exception("loading version %s", number)
            self.states[number] = State("END", str(error))
            self._failures[number] = _Failure(tries + 1, time.monotonic() + RETRY_SECONDS)
            again = f"; it is tried again in {RETRY_SECONDS:.0f} s" if tries + 1 < TRIES else ""
            self._tell(f"version {number} is not served, {before.model.number} is served on{again}: "
                       f"{_sentence(error)}")
            return False
        self._current = Served(model, self._limits, self._threads)
        self.states[number] = State("AVAILABLE")
        self._tell(f"version {number} is served, loaded in {time.monotonic() - began:.1f} s; {before.model.number} "
                   "answers what it has begun")
        task = loop.create_task(self._retire(before))
        self._retiring.add(task)   # The event loop itself keeps tasks weakly.
        task.add_done_callback(self._retiring.discard)
        return True

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
    return str(error) if isinstance(error, TextrailError) else f"{type(error).__name__}: {error}"
