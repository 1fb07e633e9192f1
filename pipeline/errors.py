"""Every error that edge-vit raises on purpose.

EdgeVitError
├── ParamsError      a parameter is missing, misspelt or out of range
├── InputError       a file, folder or model that the user gave cannot be used
├── IntegrityError   bytes are not the bytes that were promised or measured
├── NetworkError     a server cannot be reached or answers wrongly
├── MachineError     the machine ran out of memory, or something killed a process
└── GateError        the evidence does not allow publishing

A message says what happened, in which file or parameter, what was expected and found, and what
to do next. :func:`exit_on_error` turns them into one line on stderr and an exit status.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager


class EdgeVitError(Exception):
    """Base of all errors that edge-vit raises on purpose."""

    exit_status = 2


class ParamsError(EdgeVitError):
    """A parameter is missing, misspelt or out of range."""


class InputError(EdgeVitError):
    """A file, folder or model that the user gave cannot be used."""


class IntegrityError(EdgeVitError):
    """Bytes are not the bytes that were promised or measured."""


class NetworkError(EdgeVitError):
    """A server cannot be reached or answers wrongly."""


class MachineError(EdgeVitError):
    """The machine ran out of memory, or something killed a process."""


class GateError(EdgeVitError):
    """The evidence does not allow publishing."""

    exit_status = 1


def shown(text: object, limit: int = 80) -> str:
    """Return what a file says of itself, for a message: without control characters, and short."""
    words = str(text)
    short = words if len(words) <= limit else f"{words[:limit]}..."
    return _escaped(short)


def first_of(names: Sequence[object], most: int, between: str = ", ") -> str:
    """Return the first names for a sentence, and how many there are beside: "a, b and 4 more"."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return between.join(shown(name, 200) for name in names[:most]) + more


def _escaped(text: str, but: str = "") -> str:
    return "".join(
        c if c.isprintable() or c in but else c.encode("unicode_escape").decode() for c in text
    )


def is_full(error: BaseException) -> bool:
    """Whether the disk, the user's quota or the largest file allowed is what stopped a write."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Print an expected error as one message and leave with its exit status, without a traceback.

    A full disk and a missing permission are reported the same way: the user can fix them.
    """
    try:
        yield
    except EdgeVitError as error:
        print(f"edge-vit: {_escaped(str(error), but=chr(10))}", file=sys.stderr)
        sys.exit(error.exit_status)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        hint = "; free some space and run the same command again" if is_full(error) else ""
        print(f"edge-vit: {error.strerror or error}{where}{hint}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("edge-vit: interrupted; run the same command again to go on", file=sys.stderr)
        sys.exit(130)
