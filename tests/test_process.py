"""What libraries write to standard error is held back, unless it explains an error."""

from __future__ import annotations

import os

import pytest

from pipeline.process import stderr_unless_error


def test_lines_are_dropped_where_nothing_fails_and_later_ones_are_not(capfd):
    with stderr_unless_error():
        os.write(2, b"a line of a library\n")
    os.write(2, b"later\n")
    assert capfd.readouterr().err == "later\n"


def test_lines_are_written_where_the_block_raises(capfd):
    @stderr_unless_error()
    def load():
        os.write(2, b"a line of a library\n")
        raise RuntimeError("no such file")

    with pytest.raises(RuntimeError, match="no such file"):
        load()
    assert capfd.readouterr().err == "a line of a library\n"
