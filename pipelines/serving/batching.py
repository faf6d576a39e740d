"""Requests that come at the same time share a call of the model."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from http import HTTPStatus
from typing import Any, NamedTuple

import numpy as np

from pipelines.serving.errors import RestError

Columns = Mapping[str, Sequence[bytes]]
Outputs = dict[str, np.ndarray]


class Limits(NamedTuple):
    """How calls are made of requests.

    Attributes:
        max_batch: rows of the requests that share a call; 1 shares none. A request with more rows has its own.
        max_wait: seconds that a request waits for others while nothing is being computed.
        calls: at a time.
        max_waiting: rows that may wait; requests beyond are refused.
    """

    max_batch: int = 32
    max_wait: float = 0.002
    calls: int = 1
    max_waiting: int = 4096


class _Waiting(NamedTuple):
    columns: Columns
    rows: int
    since: float
    answer: asyncio.Future[Outputs]


class Batcher:
    """Answers requests for one signature. Lives in the event loop in which it was made.

    Args:
        call: asks the model; runs in a thread.
        limits: of its calls.
        threads: where it runs.
    """

    def __init__(self, call: Callable[[Columns], Outputs], limits: Limits, threads: Executor):
        self._call, self._limits, self._threads = call, limits, threads
        self._waiting: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()
        self._collecting = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._lanes = [self._loop.create_task(self._lane()) for _ in range(limits.calls)]

    async def ask(self, columns: Columns) -> Outputs:
        """The model's answer to the rows of a request.

        Raises:
            RestError: the model refuses them, or too many requests are waiting.
        """
        rows = len(next(iter(columns.values())))
        if self._waiting and self._rows() + rows > self._limits.max_waiting:
            raise RestError(HTTPStatus.SERVICE_UNAVAILABLE,
                            "The batch scheduling queue to which this task was submitted is full")
        answer: asyncio.Future[Outputs] = self._loop.create_future()
        self._waiting.append(_Waiting(columns, rows, self._loop.time(), answer))
        self._arrived.set()
        return await answer

    async def close(self) -> None:
        """Ends the lanes; nothing may be waiting."""
        for lane in self._lanes:
            lane.cancel()
        await asyncio.gather(*self._lanes, return_exceptions=True)

    def _rows(self) -> int:
        return sum(waiting.rows for waiting in self._waiting)

    async def _lane(self) -> None:
        """Calls the model again and again. While one lane collects requests, the others compute."""
        while True:
            async with self._collecting:
                batch = await self._collect()
            await self._answer(batch)

    async def _collect(self) -> list[_Waiting]:
        """The requests of the next call: those that waited while the last was computed need not wait any longer."""
        while not self._waiting:
            await self._next()
        deadline = self._waiting[0].since + self._limits.max_wait
        while self._rows() < self._limits.max_batch and (left := deadline - self._loop.time()) > 0:
            await self._next(left)
        batch = [self._waiting.popleft()]
        rows = batch[0].rows
        while self._waiting and rows + self._waiting[0].rows <= self._limits.max_batch:
            batch.append(self._waiting.popleft())
            rows += batch[-1].rows
        return batch

    async def _next(self, timeout: float | None = None) -> None:
        self._arrived.clear()
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._arrived.wait(), timeout)

    async def _answer(self, batch: Sequence[_Waiting]) -> None:
        batch = [request for request in batch if not request.answer.done()]   # those whose client has gone
        if not batch:
            return
        try:
            outputs = await self._ask([request.columns for request in batch])
        except Exception as error:
            if len(batch) == 1:
                _tell(batch[0], error=error)
                return
            for request in batch:   # Of those that share a call, one may be what the model refuses.
                await self._answer([request])
            return
        start = 0
        for request in batch:
            end = start + request.rows
            _tell(request, {name: values[start:end] for name, values in outputs.items()})
            start = end

    async def _ask(self, requests: Sequence[Columns]) -> Outputs:
        together = {name: [text for columns in requests for text in columns[name]] for name in requests[0]}
        return await self._loop.run_in_executor(self._threads, self._call, together)


def _tell(request: _Waiting, outputs: Any = None, error: Exception | None = None) -> None:
    if request.answer.done():
        return
    if error is None:
        request.answer.set_result(outputs)
    else:
        request.answer.set_exception(error)
