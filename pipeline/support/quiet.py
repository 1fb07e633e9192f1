"""Let libraries be loud only where it helps: exporters warn about their own insides."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings and log messages below an error, of the calls in the block only.

    TorchScript, eager quantization and the Lite interpreter warn that they are deprecated; we know
    (docs/adr/0001). Exporters warn about enums and passes of theirs that no user can change.
    """
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
