from __future__ import annotations

import errno
import os

import pytest

from pipeline import errors
from pipeline.errors import exit_on_error


def run(error: BaseException, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    with pytest.raises(SystemExit) as caught, exit_on_error():
        raise error
    out, err = capsys.readouterr()
    assert out == ""
    return int(str(caught.value.code)), err


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (errors.ParamsError, 2),
        (errors.InputError, 2),
        (errors.IntegrityError, 2),
        (errors.NetworkError, 2),
        (errors.GateError, 1),
    ],
)
def test_an_expected_error_is_one_message_and_its_status(
    kind: type[errors.EdgeVitError], status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(kind("what to do"), capsys) == (status, "edge-vit: what to do\n")


def test_a_full_disk_is_one_message_that_says_what_to_do(
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "artifacts/x")
    assert run(error, capsys) == (
        2,
        "edge-vit: No space left on device (artifacts/x); "
        "free some space and run the same command again\n",
    )


def test_a_missing_permission_names_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    error = PermissionError(errno.EACCES, os.strerror(errno.EACCES), "artifacts")
    assert run(error, capsys) == (2, "edge-vit: Permission denied (artifacts)\n")


def test_an_interrupt_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    status, message = run(KeyboardInterrupt(), capsys)
    assert (status, "run the same command again" in message) == (130, True)


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError), exit_on_error():
        raise ZeroDivisionError


def test_success_exits_with_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with exit_on_error():
        pass
    assert capsys.readouterr() == ("", "")


def test_a_message_never_controls_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    status, message = run(errors.InputError("a\x1b[2J\rb\nadd this line"), capsys)
    assert (status, message) == (2, "edge-vit: a\\x1b[2J\\rb\nadd this line\n")


def test_what_a_file_says_is_shown_short_and_on_one_line() -> None:
    assert errors.shown("head\n\x00") == "head\\n\\x00"
    assert errors.shown("a" * 100, limit=3) == "aaa..."
