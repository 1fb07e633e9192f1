"""Read the weights in any checkpoint file with timm's names or Google's, and its own metadata."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipeline.checkpoints.metadata import CheckpointInfo, info_from_metadata
from pipeline.checkpoints.training import info_from_script
from pipeline.untrusted.state_dict import State, open_checkpoint, suffix_of


def read_weights(
    path: Path, source: str, *, head: bool = True
) -> tuple[Mapping[str, State], CheckpointInfo]:
    """Return state dicts by their place in the file, and what the file says about itself.

    Google's have timm's names; others those of the file (:mod:`pipeline.checkpoints.fitting`).
    ``head`` refuses a file of Google's without a classification head.

    Raises:
        InputError: not a format that is read, damaged, or more in it than weights.
    """
    if suffix_of(path) == ".npz":
        from pipeline.checkpoints import google_npz

        state, info = google_npz.read(path, source, head=head)
        return {"": state}, info
    opened = open_checkpoint(path, source)
    info = info_from_metadata(opened.metadata, source)
    return opened.states, info.merged_with(info_from_script(opened.about, source))
