"""Read the weights in any checkpoint file with timm's names or Google's, and its own metadata."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pipeline.checkpoints import torchvision_format
from pipeline.checkpoints.metadata import CheckpointInfo, info_from_metadata
from pipeline.checkpoints.training import info_from_script
from pipeline.untrusted.state_dict import State, open_checkpoint, suffix_of


def read_weights(
    path: Path, source: str, *, head: bool = True
) -> tuple[Mapping[str, State], CheckpointInfo]:
    """Return state dicts by their place in the file, and what the file says about itself.

    Google's and torchvision's have timm's names; others those of the file, for
    :mod:`pipeline.checkpoints.fitting`. ``head`` refuses Google's without a classification head.

    Raises:
        InputError: not a format that is read, damaged, or more in it than weights.
    """
    if suffix_of(path) == ".npz":
        from pipeline.checkpoints import google_npz

        state, info = google_npz.read(path, source, head=head)
        return {"": state}, info
    opened = open_checkpoint(path, source)
    info = info_from_metadata(opened.metadata, source)
    info = info.merged_with(info_from_script(opened.about, source))
    states: dict[str, State] = {}
    for place, state in opened.states.items():
        if (prefix := torchvision_format.prefix_of(state)) is not None:
            info = info.merged_with(torchvision_format.checkpoint_info(state, prefix))
            state = torchvision_format.to_timm(state, prefix)
        states[place] = state
    return states, info
