"""Stage ``pack``: float16 safetensors that say what they are; equal weights are equal bytes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import exit_on_error
from pipeline.finetune.evaluate import packed_state, preprocessing
from pipeline.finetune.params import (
    ARTIFACTS,
    PACKED,
    TRAIN,
    WEIGHTS_FILE,
    FinetuneParams,
    load_params,
)

if TYPE_CHECKING:
    from pipeline.contract.contract import Preprocessing


def pack(params: FinetuneParams, artifacts: Path) -> Path:
    """Write ``packed/ARCHITECTURE.finetuned.safetensors``; return its path.

    ``model.checkpoint`` of the main pipeline takes this file: its metadata holds architecture,
    labels and preprocessing.

    Raises:
        InputError: the trained weights are missing or do not fit float16.
    """
    from safetensors.torch import save

    from pipeline.files import atomic, sha256_file
    from pipeline.finetune.data import load_train

    trained = artifacts / TRAIN / WEIGHTS_FILE
    state = {key: value.contiguous() for key, value in sorted(packed_state(trained).items())}
    classes = load_train(params.data).classes
    description = metadata(params.model.architecture, classes, preprocessing(params))
    folder = artifacts / PACKED
    name = f"{params.model.architecture}.finetuned.safetensors"
    with atomic(folder) as new:
        new.mkdir()
        (new / name).write_bytes(save(state, description))
    print(f"{folder / name}: SHA-256 {sha256_file(folder / name)}")
    return folder / name


def metadata(architecture: str, labels: Sequence[str], prepared: Preprocessing) -> dict[str, str]:
    """Return the metadata of a safetensors file that :func:`info_from_metadata` reads."""
    from pipeline.checkpoints.metadata import METADATA_KEY

    description = {
        "architecture": architecture,
        "labels": list(labels),
        "input_size": [3, *prepared.size],
        "crop_pct": prepared.crop_pct,
        "interpolation": prepared.interpolation,
        "mean": list(prepared.mean),
        "std": list(prepared.std),
    }
    # One key: safetensors writes several in an order that changes from run to run.
    return {METADATA_KEY: json.dumps(description, sort_keys=True, separators=(",", ":"))}


def main() -> None:
    """Run the stage by ``finetune/params.yaml``."""
    with exit_on_error():
        pack(load_params(), ARTIFACTS)


if __name__ == "__main__":
    main()
