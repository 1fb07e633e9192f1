"""Processes that share each batch: gradients are averaged, so all take the same step.

On a CPU several processes of one thread train faster than one of several threads: a small
transformer's operators are too short for threads to meet at the end of each.
"""

from __future__ import annotations

import os
import pickle
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pipeline.errors import EdgeVitError
from pipeline.files import write_bytes
from pipeline.finetune.data import Draw


@dataclass(frozen=True)
class ProcessGroup:
    """This process among those that train together; alone by default."""

    rank: int = 0  # of this process, from 0
    size: int = 1  # number of processes

    @property
    def is_main(self) -> bool:
        """Whether this process shows progress, validates and writes."""
        return self.rank == 0

    def shard(self, draw: Draw) -> Draw:
        """Return this process's part of a batch; each must get at least one image."""
        if self.size == 1:
            return draw
        indices = draw.indices[self.rank :: self.size]
        return Draw(indices or draw.indices[:1], draw.seed * self.size + self.rank)

    def average(self, model: nn.Module) -> None:
        """Replace gradients by their mean over all processes."""
        if self.size == 1:
            return
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        torch.distributed.all_reduce(flat)
        flat /= self.size
        parts = flat.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))


def run_together(size: int, work: Callable[..., None], *arguments: Any) -> None:
    """Call ``work(*arguments, group=...)`` in ``size`` processes; one failing ends all.

    Raises:
        EdgeVitError: the one that a process raised, as if there were no processes.
    """
    if size == 1:
        work(*arguments, group=ProcessGroup())
        return
    from torch.multiprocessing.spawn import ProcessException, spawn

    with tempfile.TemporaryDirectory() as folder:
        try:
            spawn(_run_member, (size, folder, work, arguments), nprocs=size, join=True)
        except ProcessException:
            for error_file in Path(folder).glob("*.error"):
                raise pickle.loads(error_file.read_bytes()) from None
            raise


def _run_member(
    rank: int, size: int, folder: str, work: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=size
    )
    try:
        work(*arguments, group=ProcessGroup(rank, size))
    except EdgeVitError as error:
        # Written by this very run, so that reading it back runs no foreign code.
        write_bytes(Path(folder) / f"{rank}.error", pickle.dumps(error))
        sys.exit(1)
    finally:
        torch.distributed.destroy_process_group()
