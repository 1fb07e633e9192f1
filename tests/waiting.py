"""Wait for what another process or thread does."""

from __future__ import annotations

import time
from collections.abc import Callable


def until(reached: Callable[[], bool]) -> None:
    """Return once ``reached`` says so; an AssertionError after three minutes."""
    for _ in range(18_000):
        if reached():
            return
        time.sleep(0.01)
    raise AssertionError("the other process did not get there within three minutes")
