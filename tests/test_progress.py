"""Bars on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest

from pipeline import progress as module
from pipeline.progress import note, progress


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


def test_before_the_first_item_a_log_has_no_line(
    capsys: pytest.CaptureFixture[str], wait: Callable[[float], None]
) -> None:
    wait(60)
    bar = progress(total=10, desc="latency", unit="run")
    wait(60)
    bar.update()
    bar.close()
    assert capsys.readouterr().err.splitlines()[:1] == ["latency: 1 of 10 (10%), 09:00 left"]


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


def test_a_terminal_shows_each_step(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    note("export: tracing")
    note("export: writing")
    assert stream.getvalue() == "export: tracing\nexport: writing\n"


def test_a_log_shows_a_step_each_half_minute(
    capsys: pytest.CaptureFixture[str], wait: Callable[[float], None]
) -> None:
    for name in ("trace", "round", "quantize", "write"):
        note(f"export: {name}")
        wait(20)
    assert capsys.readouterr().err == "export: quantize\n"
