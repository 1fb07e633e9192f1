"""What is taken in at once, without a server around it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message

from pipeline.inference import app
from pipeline.inference.admission import DRAINED_BODIES, HELD_BODIES, Admission
from pipeline.inference.requests import Job
from pipeline.inference.select import Chosen
from pipeline.inference.workers import Limits, Workers


def admission(**changed: float) -> Admission:
    values = {"max_body_bytes": 100, "body_seconds": 5.0} | changed
    return Admission(1, 2, **values)


async def sent(*chunks: bytes, then: asyncio.Event | None = None) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
    if then:
        await then.wait()


def refused(taken: Admission, *chunks: bytes, **headers: str) -> HTTPException:
    with pytest.raises(HTTPException) as caught:
        asyncio.run(taken.body(headers, sent(*chunks)))
    return caught.value


def test_a_body_is_joined_whatever_its_chunks():
    assert asyncio.run(admission().body({}, sent(b"a", b"", b"bc"))) == b"abc"


def test_a_body_is_counted_while_it_arrives_whatever_it_announces():
    for headers in ({}, {"content-length": "3"}, {"content-length": "x"}):
        error = refused(admission(), b"a" * 60, b"b" * 60, **headers)
        assert (error.status_code, error.headers) == (413, {"Connection": "close"})


def test_a_body_announced_as_too_large_is_not_read():
    async def untouched() -> AsyncIterator[bytes]:
        raise AssertionError("read")
        yield b""

    far = str(100 * DRAINED_BODIES + 1)
    for headers in ({"content-length": "101", "expect": "100-continue"}, {"content-length": far}):
        with pytest.raises(HTTPException) as caught:
            asyncio.run(admission().body(headers, untouched()))
        assert caught.value.status_code == 413


def test_a_slow_sender_is_held_to_the_deadline():
    async def slow() -> None:
        await admission(body_seconds=0.05).body({}, sent(b"a", then=asyncio.Event()))

    with pytest.raises(HTTPException) as caught:
        asyncio.run(slow())
    assert caught.value.status_code == 408


def test_bodies_that_arrive_at_once_are_held_to_a_number_of_bytes():
    async def flood() -> tuple[list[object], bytes]:
        taken, end = admission(), asyncio.Event()
        bodies = [
            asyncio.create_task(taken.body({}, sent(b"x" * 100, then=end)))
            for _ in range(HELD_BODIES + 3)
        ]
        await asyncio.sleep(0.05)
        end.set()
        found = await asyncio.gather(*bodies, return_exceptions=True)
        return found, await taken.body({}, sent(b"later"))

    found, later = asyncio.run(flood())
    errors = [error for error in found if isinstance(error, HTTPException)]
    assert [error.status_code for error in errors] == [503] * 3
    assert all("Retry-After" in (error.headers or {}) for error in errors)
    assert later == b"later"


def test_one_more_than_run_and_wait_is_refused_until_a_place_is_free():
    taken = admission()
    with taken.slot(), taken.slot():
        with taken.slot(), pytest.raises(HTTPException) as caught, taken.slot():
            pass
        assert caught.value.status_code == 503
        assert int((caught.value.headers or {})["Retry-After"]) >= 1
        with taken.slot():
            pass
    assert taken.in_flight == 0


def test_a_request_that_waits_too_long_for_a_worker_is_told_to_come_back(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No worker was ever started; the client stays."""
    monkeypatch.setattr(app, "WAIT_SECONDS", 0.05)

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def ask() -> None:
        workers = Workers(tmp_path / "model.onnx", 1, Limits(1, 1, 1.0))
        service = app.Service(Chosen, workers, admission(), lambda: False)  # type: ignore[arg-type]
        await service._ask(Request({"type": "http"}, receive), Job(b"", False))

    with pytest.raises(HTTPException, match=r"no worker was free in 0\.05 s") as caught:
        asyncio.run(ask())
    assert (caught.value.status_code, caught.value.headers) == (503, {"Retry-After": "1"})
