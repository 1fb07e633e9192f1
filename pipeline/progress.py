"""How far a long task is: a bar on a terminal, elsewhere a line now and then.

A log that keeps every redrawn bar is unreadable, and a silent one looks dead. Where standard error
is no terminal (CI, a file, a pipe) this process therefore writes at most one line in 30 seconds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from tqdm import tqdm

SECONDS_BETWEEN_LINES = 30
LINE = "{desc}: {n_fmt} of {total_fmt} ({percentage:.0f}%), {remaining} left{postfix}"
NOTHING_KNOWN = ", ? left"  # of a line before the first item is done
LINE_WITHOUT_TOTAL = "{desc}: {n_fmt} {unit}{postfix}"

_last_line = time.monotonic()  # a task that ends sooner writes no line


def progress(
    items: Iterable[Any] | None = None,
    *,
    desc: str,
    unit: str,
    total: float | None = None,
    **options: Any,
) -> tqdm[Any]:
    """A tqdm bar on standard error that shows ``desc``; iterate over it, or call its `update`.

    ``options`` are tqdm's own, such as ``initial`` and ``unit_scale``.
    """
    from tqdm import tqdm

    stream = sys.stderr
    if stream.isatty():
        shown: dict[str, Any] = {"file": stream, "dynamic_ncols": True}
    else:
        countable = total is not None or hasattr(items, "__len__")
        line = LINE if countable else LINE_WITHOUT_TOTAL
        shown = {"file": _Lines(stream), "bar_format": line, "mininterval": 1, "leave": False}
    return tqdm(items, desc=desc, unit=unit, total=total, **shown, **options)


def note(text: str) -> None:
    """Say which step of a task without a count begins."""
    stream = sys.stderr if sys.stderr.isatty() else _Lines(sys.stderr)
    print(text, file=stream)


class _Lines:
    """Where a bar is redrawn when nobody sees it: some of its states become lines of ``stream``."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> None:
        global _last_line
        line = text.strip()
        if (
            line
            and NOTHING_KNOWN not in line
            and time.monotonic() - _last_line >= SECONDS_BETWEEN_LINES
        ):
            _last_line = time.monotonic()
            self.stream.write(line + "\n")
            self.stream.flush()

    def flush(self) -> None:
        """Each line is flushed as it is written."""
