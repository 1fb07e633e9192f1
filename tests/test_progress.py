"""Bars on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest

from pipeline import progress as module
from pipeline.progress import progress, progress_steps


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def wait(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let time pass: for tqdm, and for the lines of a log."""
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr("tqdm.std.time", lambda: now[0])
    monkeypatch.setattr(module, "_last_line", now[0])

    def passes(seconds: float) -> None:
        now[0] += seconds

    return passes


def test_a_terminal_has_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    assert list(progress(range(3), desc="parity", unit="image")) == [0, 1, 2]
    assert "parity: 100%" in stream.getvalue()
    assert "3/3" in stream.getvalue()


def test_a_log_has_a_line_each_half_minute(
    capsys: pytest.CaptureFixture[str], wait: Callable[[float], None]
) -> None:
    for _ in progress(range(100), desc="parity", unit="image"):
        wait(1)
    assert capsys.readouterr().err.splitlines() == [
        "parity: 30 of 100 (30%), 01:10 left",
        "parity: 60 of 100 (60%), 00:40 left",
        "parity: 90 of 100 (90%), 00:10 left",
    ]


def test_a_short_task_writes_nothing_into_a_log(
    capsys: pytest.CaptureFixture[str], wait: Callable[[float], None]
) -> None:
    for _ in progress(range(100), desc="parity", unit="image"):
        wait(0.29)
    assert capsys.readouterr().err == ""


def test_tasks_share_the_half_minute(
    capsys: pytest.CaptureFixture[str], wait: Callable[[float], None]
) -> None:
    for name in ("one", "two", "three"):
        for _ in progress(range(20), desc=name, unit="image"):
            wait(1)
    assert [line.split(":")[0] for line in capsys.readouterr().err.splitlines()] == ["two", "three"]


def test_what_has_no_total_says_how_much_was_done(
    capsys: pytest.CaptureFixture[str], wait: Callable[[float], None]
) -> None:
    with progress(desc="weights", unit="B", unit_scale=True) as bar:
        wait(31)
        bar.update(2_000_000)
    assert capsys.readouterr().err == "weights: 2.00M B\n"


def test_steps_are_named_as_they_begin(
    capsys: pytest.CaptureFixture[str], wait: Callable[[float], None]
) -> None:
    with progress_steps("export", 3) as step:
        for name in ("trace", "round", "write"):
            step(name)
            wait(40)
    assert capsys.readouterr().err.splitlines() == [
        "export: 1 of 3 (33%), 01:20 left, round",
        "export: 2 of 3 (67%), 00:40 left, write",
        "export: 3 of 3 (100%), 00:00 left, write",
    ]


def test_steps_fill_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    with progress_steps("export", 2) as step:
        step("trace")
        step("write")
    assert "2/2" in stream.getvalue()
    assert "write" in stream.getvalue()
