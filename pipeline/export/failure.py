"""What to say where a library cannot make a file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pipeline.contract.contract import Contract
from pipeline.errors import EdgeVitError, InputError, shown
from pipeline.formats import BUILT_IN, FORMATS

# How PyTorch, ONNX and ExecuTorch name an operator in their messages.
OPERATOR = re.compile(
    r"(?<![\w.])(?:(?:aten|prims?|quantized\w*|torchvision|onnx|ai\.onnx|com\.microsoft)::\w+(?:\.\w+)?"
    r"|(?:aten|prims)\.\w+(?:\.\w+)?)"
)
LONGEST = 300  # characters of a library's own words


@contextmanager
def exporting(key: str, formats: Sequence[str], contract: Contract) -> Iterator[None]:
    """Turn what a library raises while it makes the file of format ``key`` into one sentence.

    Raises:
        InputError: names the format, the architecture, the operator where the library does, and
            the ``formats`` that go on without it.
    """
    try:
        yield
    except (EdgeVitError, OSError, MemoryError):
        raise  # not about what the format can express
    except Exception as error:  # exporters raise anything
        words = " ".join(str(error).split())
        operator = OPERATOR.search(" ".join(_messages(error)))
        where = f" because of operator {operator[0]}" if operator else ""
        rest = [k for k in formats if k != key] or [k for k in BUILT_IN if k != key]
        raise InputError(
            f"no {FORMATS[key].suffix} can be made of {contract.checkpoint.architecture}{where} "
            f"({type(error).__name__}: {shown(words, LONGEST)}); to go on without this format, set "
            f"`formats: [{', '.join(rest)}]` in params.yaml"
        ) from None


def _messages(error: BaseException) -> Iterator[str]:
    """What an error says, and what those say that it came from."""
    at: BaseException | None = error
    while at is not None:
        yield str(at)
        at = at.__cause__ or at.__context__
