"""Admission control: limits on bodies that arrive and on requests that wait or run."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager

from starlette.exceptions import HTTPException

HELD_BODIES = 16  # as many bodies of full size may arrive at once
WAIT_SECONDS = 20.0  # for a worker; by then a client has better been told to come back
DRAINED_BODIES = 4  # so many more are read and discarded, so that the client sees the reason


class Admission:
    """Counts what is in flight; refuses at once what exceeds the limits.

    ``workers`` requests run, up to ``queue`` wait, and one more is refused with 503 and the time
    after which to try again. Bodies are limited while they arrive: each by a deadline, all
    together by a number of bytes.
    """

    def __init__(
        self, workers: int, queue: int, *, max_body_bytes: int, body_seconds: float
    ) -> None:
        self.workers, self.queue = workers, queue
        self.in_flight = 0
        self._max_body_bytes, self._body_seconds = max_body_bytes, body_seconds
        self._held_bytes = 0
        self._seconds_each = 0.1  # smoothed time of one request in a worker

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Hold a slot while a request waits and runs.

        Raises:
            HTTPException: 503, there is none free.
        """
        if self.in_flight >= self.workers + self.queue:
            raise busy("all workers are busy and the queue is full", self.wait_seconds())
        self.in_flight += 1
        started, ahead = time.monotonic(), max(1.0, self.in_flight / self.workers)
        try:
            yield
        finally:
            self.in_flight -= 1
            took = (time.monotonic() - started) / ahead
            self._seconds_each += 0.1 * (took - self._seconds_each)

    def wait_seconds(self) -> int:
        """Return after how many seconds a slot should be free, at least 1."""
        return max(1, math.ceil(self.in_flight * self._seconds_each / self.workers))

    async def body(self, headers: Mapping[str, str], stream: AsyncIterator[bytes]) -> bytes:
        """Read a request's body.

        Raises:
            HTTPException: 400 it is empty, 408 it comes too slowly, 413 it is too large, 503 too
                many bytes of others are arriving.
        """
        announced = _announced(headers)
        refusal = self._refusal(announced, 0)
        if refusal and ("expect" in headers or announced > DRAINED_BODIES * self._max_body_bytes):
            raise _closing(refusal)
        body, size = bytearray(), 0
        try:
            async with asyncio.timeout(self._body_seconds):
                async for chunk in stream:
                    size += len(chunk)
                    refusal = refusal or self._refusal(size, len(chunk))
                    if refusal is None:
                        body += chunk
                        self._held_bytes += len(chunk)
                    elif size > DRAINED_BODIES * self._max_body_bytes:
                        break
        except TimeoutError:
            refusal = HTTPException(408, f"the body took longer than {self._body_seconds:g} s")
        finally:
            self._held_bytes -= len(body)
        if refusal:
            raise _closing(refusal)
        if not body:
            raise HTTPException(400, "the body is empty; send an encoded image")
        return bytes(body)

    def _refusal(self, size: int, arrived: int) -> HTTPException | None:
        if size > self._max_body_bytes:
            limit = f"{self._max_body_bytes / 1e6:g} MB"
            return HTTPException(413, f"the body is larger than {limit}")
        if self._held_bytes + arrived > HELD_BODIES * self._max_body_bytes:
            return busy("too many large requests are arriving", self.wait_seconds())
        return None


def busy(reason: str, seconds: int) -> HTTPException:
    """Return the refusal 503, with the seconds after which to try again."""
    return HTTPException(503, reason, {"Retry-After": str(seconds)})


def _announced(headers: Mapping[str, str]) -> int:
    length = headers.get("content-length", "0")
    return int(length) if length.isdecimal() and len(length) < 19 else 0


def _closing(refusal: HTTPException) -> HTTPException:
    """Return a refusal that closes the connection, since the rest of the body is not read."""
    refusal.headers = {**(refusal.headers or {}), "Connection": "close"}
    return refusal
