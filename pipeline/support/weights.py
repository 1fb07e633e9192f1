"""Read the weights in any checkpoint file of timm's names or Google's, and what it says of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.support.checkpoints import open_checkpoint
from pipeline.support.facts import Facts, facts_of_metadata

if TYPE_CHECKING:
    import torch


def read_weights(
    path: Path, source: str, *, head: bool = True
) -> tuple[dict[str, torch.Tensor], Facts]:
    """Return weights under the names in the file, Google's under timm's, and the file's own facts.

    ``head`` refuses a file of Google's without one.

    Raises:
        InputError: not a format that is read, damaged, or more in it than weights.
    """
    if path.suffix.lower() == ".npz":
        from pipeline.support import google

        return google.read(path, source, head=head)
    state, metadata = open_checkpoint(path, source)
    return state, facts_of_metadata(metadata, source)
