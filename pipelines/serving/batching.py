"""Requests that come at the same time share a call of the model."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from http import HTTPStatus
from typing import NamedTuple

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
        self._waiting: OrderedDict[asyncio.Future[Outputs], _Waiting] = OrderedDict()
        self._rows = 0   # of those that wait
        self._arrived = asyncio.Event()
        self._collecting = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._lanes = [self._loop.create_task(self._lane()) for _ in range(limits.calls)]

    async def ask(self, columns: Columns) -> Outputs:
        """The model's answer to the rows of a request. Who is cancelled while waiting is not computed.

        Raises:
            RestError: too many rows in the request, or in those that wait before it.
            Exception: what the model raises.
        """
        rows = len(next(iter(columns.values())))
        if rows > self._limits.max_waiting:
            raise RestError(HTTPStatus.BAD_REQUEST, f"Task size {rows} is larger than maximum input batch size "
                                                    f"{self._limits.max_waiting}")
        if self._rows + rows > self._limits.max_waiting:
            raise RestError(HTTPStatus.SERVICE_UNAVAILABLE,
                            "The batch scheduling queue to which this task was submitted is full")
        request = _Waiting(columns, rows, self._loop.time(), self._loop.create_future())
        self._waiting[request.answer] = request
        self._rows += rows
        self._arrived.set()
        try:
            return await request.answer
        finally:
            self._take(request)   # It still waits if its client has gone.

    async def close(self) -> None:
        """Ends the lanes; nothing may be waiting."""
        for lane in self._lanes:
            lane.cancel()
        await asyncio.gather(*self._lanes, return_exceptions=True)

    def _take(self, request: _Waiting) -> _Waiting:
        """Removes a request from those that wait, if it is still among them."""
        if self._waiting.pop(request.answer, None):
            self._rows -= request.rows
        return request

    async def _lane(self) -> None:
        """Calls the model again and again. While one lane collects requests, the others compute."""
        while True:
            async with self._collecting:
                batch = await self._collect()
            await self._answer(batch)

    async def _collect(self) -> list[_Waiting]:
        """The requests of the next call: those that waited while the last was computed need not wait any longer."""
        while self._rows < self._limits.max_batch and not self._is_due():
            await self._next()
        batch = [self._take(self._first())]
        rows = batch[0].rows
        while self._waiting and rows + self._first().rows <= self._limits.max_batch:
            batch.append(self._take(self._first()))
            rows += batch[-1].rows
        return batch

    def _first(self) -> _Waiting:
        return next(iter(self._waiting.values()))

    def _is_due(self) -> bool:
        return bool(self._waiting) and self._loop.time() >= self._first().since + self._limits.max_wait

    async def _next(self) -> None:
        """Waits for a request, or until the first has waited long enough."""
        self._arrived.clear()
        # A timer and no asyncio.wait_for, which in Python 3.10 may lose the cancellation that ends a lane.
        due = self._loop.call_at(self._first().since + self._limits.max_wait, self._arrived.set) \
            if self._waiting else None
        try:
            await self._arrived.wait()
        finally:
            if due:
                due.cancel()

    async def _answer(self, batch: Sequence[_Waiting]) -> None:
        try:
            outputs = await self._ask([request.columns for request in batch])
        except Exception as error:
            if len(batch) == 1:
                _tell(batch[0].answer, error=error)
                return
            for request in batch:   # Of those that share a call, one may be what the model refuses.
                if not request.answer.done():
                    await self._answer([request])
            return
        start = 0
        for request in batch:
            end = start + request.rows
            _tell(request.answer, {name: values[start:end] for name, values in outputs.items()})
            start = end

    async def _ask(self, requests: Sequence[Columns]) -> Outputs:
        together = {name: [text for columns in requests for text in columns[name]] for name in requests[0]}
        return await self._loop.run_in_executor(self._threads, self._call, together)


def _tell(answer: asyncio.Future[Outputs], outputs: Outputs | None = None, error: Exception | None = None) -> None:
    if answer.done():   # Its client has gone.
        return
    if error is None:
        answer.set_result(outputs or {})
    else:
        answer.set_exception(error)
