"""Stage ``evaluate``: accuracy on the test images of what will be packed, with its interval.

Measured as everything after it measures: the weights rounded to float16 and computed in float32,
the images prepared by timm's own transform.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import InputError, exit_on_error
from pipeline.finetune import places
from pipeline.finetune.params import FinetuneParams, load_params

if TYPE_CHECKING:
    import torch

    from pipeline.core.contract import Preprocessing
    from pipeline.finetune.data import ImageData

BATCH = 50


def evaluate(params: FinetuneParams, artifacts: Path) -> None:
    """Write ``evaluate/metrics.json`` and ``evaluate/confusion.csv``.

    Raises:
        InputError: weights or test images are missing or cannot be used.
    """
    import torch

    from pipeline.core.statistics import wilson
    from pipeline.finetune.machine import Machine
    from pipeline.support.files import write_json, write_text

    machine = Machine.of(params.run)
    data, part, which = _test_images(params)
    model = _model(params, artifacts, len(data.classes)).to(machine.device)
    seen: list[int] = []
    with torch.inference_mode():
        for pixels in _prepared(data, part, preprocessing(params)):
            logits = model(torch.from_numpy(pixels).to(machine.device))
            seen += logits.argmax(1).tolist()
    actual = [int(data.labels[index]) for index in part]
    right = sum(a == b for a, b in zip(actual, seen, strict=True))
    interval = wilson(right, len(part))
    out = artifacts / places.EVALUATE
    metrics = {"top1": right / len(part), "top1_low": interval.low, "top1_high": interval.high}
    write_json(out / places.METRICS_FILE, metrics | {"images": len(part), "measured_on": which})
    names = [_quoted(name) for name in data.classes]
    rows = [f"{names[a]},{names[b]}" for a, b in zip(actual, seen, strict=True)]
    write_text(out / places.CONFUSION_FILE, "\n".join(["actual,predicted", *rows]) + "\n")
    print(
        f"top-1 {metrics['top1']:.2%}, 95% interval {interval.low:.2%} to {interval.high:.2%}, "
        f"on {len(part)} {which} images"
    )


def preprocessing(params: FinetuneParams) -> Preprocessing:
    """Return how images are to be prepared for the trained model."""
    import math

    from pipeline.core.contract import Preprocessing

    size, options = params.train.phases[-1].image_size, params.model
    return Preprocessing(
        size=(size, size),
        resize=math.floor(size / options.crop_pct),
        crop_pct=options.crop_pct,
        crop_mode="center",
        interpolation=options.interpolation,
        mean=options.mean,
        std=options.std,
    )


def packed_state(artifacts: Path) -> dict[str, torch.Tensor]:
    """Return the trained weights as they are packed: float16.

    Raises:
        InputError: they are missing, or one of them is too large for float16.
    """
    from pipeline.support.checkpoints import open_checkpoint

    path = artifacts / places.TRAIN / places.WEIGHTS_FILE
    if not path.is_file():
        raise InputError(f"{path} is missing; run `dvc repro finetune/dvc.yaml` to train it")
    state = {
        key: value.half() if value.is_floating_point() else value
        for key, value in open_checkpoint(path)[0].items()
    }
    bad = [key for key, value in state.items() if not value.isfinite().all()]
    if bad:
        raise InputError(f"{path}: {bad[0]} holds values that float16 cannot; training diverged")
    return state


def _model(params: FinetuneParams, artifacts: Path, classes: int) -> torch.nn.Module:
    from pipeline.finetune import nets

    size = params.train.phases[-1].image_size
    model = nets.build(params.model.architecture, classes, size)
    nets.load(model, packed_state(artifacts), f"{places.TRAIN}/{places.WEIGHTS_FILE}")
    return model.eval()


def _test_images(params: FinetuneParams) -> tuple[ImageData, list[int], str]:
    """Return the data set, which of its images to measure on, and what to call them."""
    from pipeline.finetune.data import load_test, load_train
    from pipeline.finetune.plan import split

    train = load_train(params.data)
    test = load_test(params.data, train.classes)
    if test is not None:
        return test, list(range(len(test))), "test"
    held_out = split(len(train), params.data.validation, params.run.seed)[1]
    return train, held_out.tolist(), "validation"


def _prepared(
    data: ImageData, part: Sequence[int], preparation: Preprocessing
) -> Iterator[NDArray[np.float32]]:
    """Yield batches of model input, float32 [n, 3, H, W]."""
    from tqdm import tqdm

    from pipeline.support.images import geometry, normalize

    move = geometry(preparation)
    with tqdm(total=len(part), unit="image", desc="evaluate") as bar:
        for start in range(0, len(part), BATCH):
            images = [move(data.open(index)) for index in part[start : start + BATCH]]
            yield normalize(np.stack(images), preparation)
            bar.update(len(images))


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\n') else text


def main() -> None:
    with exit_on_error():
        evaluate(load_params(), places.ARTIFACTS)


if __name__ == "__main__":
    main()
