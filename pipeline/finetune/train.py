"""Stage ``train``: the transformer's weights and the course of training."""

from __future__ import annotations

from pathlib import Path

from pipeline.core.errors import exit_on_error
from pipeline.finetune.data import load_train, split
from pipeline.finetune.fit import Trainer
from pipeline.finetune.params import FinetuneParams, load_params

OUT = Path("artifacts/finetune")


def main() -> None:
    with exit_on_error():
        train(load_params(), OUT)


def train(params: FinetuneParams, out: Path) -> None:
    import csv
    from dataclasses import asdict

    from safetensors.torch import save_file

    from pipeline.support.files import atomic

    data = load_train(params.data)
    parts = split(len(data), params.data.validation, params.run.seed)
    trainer = Trainer(params.model, params.train, params.run, data, parts,
                      resume=out / "resume" / "train.pt")
    weights, history = trainer.fit()
    with atomic(out / "train") as new:
        new.mkdir()
        save_file({k: v.contiguous() for k, v in weights.items()}, new / "weights.safetensors")
        with open(new / "history.csv", "w", newline="") as file:
            rows = csv.DictWriter(file, list(asdict(history[0])))
            rows.writeheader()
            rows.writerows(asdict(epoch) for epoch in history)


if __name__ == "__main__":
    main()
