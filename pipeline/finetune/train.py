"""Stage ``train``: the transformer's weights, and the curve of its training."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import exit_on_error
from pipeline.finetune.params import (
    ARTIFACTS,
    HISTORY_FILE,
    RECORDS,
    TRAIN,
    FinetuneParams,
    load_params,
)
from pipeline.finetune.training import train_together


def train(params: FinetuneParams, artifacts: Path, records: Path) -> None:
    """Train the transformer; write ``train/weights.safetensors``, and ``history.csv`` of records.

    Raises:
        InputError: the teacher was not made yet; or as ``Trainer.fit``.
        ParamsError: the machine lacks what ``run`` asks for.
    """
    out, history = artifacts / TRAIN, records / HISTORY_FILE
    train_together(params.model, params.train, params, out, history, teachers=artifacts)


def main() -> None:
    """Run the stage by ``finetune/params.yaml``."""
    with exit_on_error():
        train(load_params(), ARTIFACTS, RECORDS)


if __name__ == "__main__":
    main()
