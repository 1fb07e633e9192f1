"""Read the weights in any checkpoint file of timm's names or Google's, and what it says of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.checkpoints.metadata import Facts, facts_of_metadata
from pipeline.untrusted.state_dict import open_checkpoint

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
        from pipeline.checkpoints import google_npz

        return google_npz.read(path, source, head=head)
    state, metadata = open_checkpoint(path, source)
    return state, facts_of_metadata(metadata, source)
