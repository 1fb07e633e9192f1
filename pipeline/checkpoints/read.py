"""Read the weights in any checkpoint file with timm's names or Google's, and its own metadata."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.checkpoints.metadata import CheckpointInfo, info_from_metadata
from pipeline.untrusted.state_dict import open_checkpoint

if TYPE_CHECKING:
    import torch


def read_weights(
    path: Path, source: str, *, head: bool = True
) -> tuple[dict[str, torch.Tensor], CheckpointInfo]:
    """Return weights by name (Google's by timm's names), and what the file says about itself.

    ``head`` refuses a file of Google's without a classification head.

    Raises:
        InputError: not a format that is read, damaged, or more in it than weights.
    """
    if path.suffix.lower() == ".npz":
        from pipeline.checkpoints import google_npz

        return google_npz.read(path, source, head=head)
    state, metadata = open_checkpoint(path, source)
    return state, info_from_metadata(metadata, source)
