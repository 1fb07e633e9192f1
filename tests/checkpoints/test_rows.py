from __future__ import annotations

from pathlib import Path

import pytest

from tests.checkpoints.rows import ROWS, Row, run


def _named(row: Row) -> object:
    return pytest.param(row, id=f"{row.name}, {row.how}", marks=[pytest.mark.slow] * row.slow)


@pytest.mark.parametrize("row", [_named(row) for row in ROWS])
def test_a_checkpoint_becomes_a_candidate(row: Row, tmp_path: Path) -> None:
    assert run(row, tmp_path).refused == ()
