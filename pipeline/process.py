"""This process: cores, threads, the quantized engine, and how loud libraries are."""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

ENGINE = "qnnpack"


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


@contextmanager
def stderr_unless_error() -> Iterator[None]:
    """Hold back what C++ libraries write to standard error; write it only if the block raises.

    For libraries without a setting for it. It holds for all threads of this process, so keep the
    block short.
    """
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            held.seek(0)
            os.write(stderr, held.read())
            raise
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def in_experiment() -> bool:
    """Whether DVC runs this process for an experiment (`dvc exp run`)."""
    return "DVC_EXP_BASELINE_REV" in os.environ


def cores() -> int:
    """Number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread: how many share a sum decides its last bits, and so a range seen."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def use_qnnpack() -> None:
    """Force the engine: on another one the same file is packed otherwise and answers otherwise."""
    import torch

    torch.backends.quantized.engine = ENGINE


def end_with_parent() -> None:
    """End this process as soon as the one that started it is gone: nobody else would tell it.

    For processes of ``multiprocessing``, as the initializer of a pool.
    """

    def wait() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
