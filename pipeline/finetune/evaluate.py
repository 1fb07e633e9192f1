"""Stage ``evaluate``: accuracy on the test images of what will be packed, with its interval.

Measured as everything after it measures: the weights rounded to float16 and computed in float32,
the images prepared by timm's own transform. Alone it also measures other weights of the same
architecture: ``python -m pipeline.finetune.evaluate --weights FILE --data FOLDER``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError, exit_on_error
from pipeline.finetune.params import (
    ARTIFACTS,
    CONFUSION_FILE,
    METRICS_FILE,
    RECORDS,
    TEACHER,
    TRAIN,
    WEIGHTS_FILE,
    FinetuneParams,
    Model,
    load_params,
)
from pipeline.progress import progress

if TYPE_CHECKING:
    import torch

    from pipeline.contract.contract import Preprocessing
    from pipeline.finetune.data import ImageData

BATCH = 50


@dataclass(frozen=True)
class Measured:
    """A model's answers: the predicted class of each image, beside the true one."""

    classes: tuple[str, ...]
    actual: tuple[int, ...]
    predicted: tuple[int, ...]
    measured_on: str  # "test" or, where there are no test images, "validation"

    @property
    def right(self) -> int:
        """Number of images whose predicted class is the true one."""
        return sum(a == b for a, b in zip(self.actual, self.predicted, strict=True))

    def metrics(self) -> dict[str, Any]:
        """Top-1 with its 95% interval (Wilson), and what it was measured on."""
        from pipeline.metrics.intervals import wilson

        n = len(self.actual)
        interval = wilson(self.right, n)
        return {
            "top1": self.right / n,
            "top1_low": interval.low,
            "top1_high": interval.high,
            "images": n,
            "measured_on": self.measured_on,
        }

    def __str__(self) -> str:
        m = self.metrics()
        return (
            f"top-1 {m['top1']:.2%}, 95% interval {m['top1_low']:.2%} to {m['top1_high']:.2%}, "
            f"on {m['images']} {m['measured_on']} images"
        )


def evaluate(params: FinetuneParams, artifacts: Path, records: Path) -> None:
    """Write ``metrics.json`` and ``confusion.csv`` of records; the former with the teacher's.

    Raises:
        InputError: weights or test images are missing or cannot be used.
    """
    from pipeline.files import read_json, write_json, write_text

    measured = measure(params, artifacts / TRAIN / WEIGHTS_FILE)
    metrics = measured.metrics()
    if params.teacher:
        metrics["teacher"] = read_json(artifacts / TEACHER / METRICS_FILE)
    write_json(records / METRICS_FILE, metrics)
    names = [_quoted(name) for name in measured.classes]
    pairs = zip(measured.actual, measured.predicted, strict=True)
    rows = [f"{names[a]},{names[b]}" for a, b in pairs]
    write_text(records / CONFUSION_FILE, "\n".join(["actual,predicted", *rows]) + "\n")
    print(measured)


def measure(params: FinetuneParams, weights: Path) -> Measured:
    """Classify the test images with the weights of a file, rounded to float16.

    Raises:
        InputError: weights or test images are missing or cannot be used.
    """
    import torch

    from pipeline.finetune.hardware import Machine

    machine = Machine.of(params.run)
    data, part, which = _test_images(params)
    model = _model(params, weights, len(data.classes)).to(machine.device)
    predicted: list[int] = []
    with torch.inference_mode():
        for pixels in _prepared(data, part, preprocessing(params)):
            logits = model(torch.from_numpy(pixels).to(machine.device))
            predicted += logits.argmax(1).tolist()
    actual = tuple(int(data.labels[index]) for index in part)
    return Measured(data.classes, actual, tuple(predicted), which)


def preprocessing(params: FinetuneParams) -> Preprocessing:
    """Return the preprocessing of the trained model."""
    return preprocessing_of(params.train.phases[-1].image_size, params.model)


def preprocessing_of(size: int, options: Model) -> Preprocessing:
    """Return the preprocessing of a model whose last phase had images of ``size`` pixels."""
    import math

    from pipeline.contract.contract import Preprocessing

    return Preprocessing(
        size=(size, size),
        resize=math.floor(size / options.crop_pct),
        crop_pct=options.crop_pct,
        crop_mode="center",
        interpolation=options.interpolation,
        mean=options.mean,
        std=options.std,
    )


def packed_state(path: Path) -> dict[str, torch.Tensor]:
    """Return the weights of a file as they are packed: float16.

    Raises:
        InputError: the file is missing, or one of its values is too large for float16.
    """
    from pipeline.untrusted.state_dict import open_checkpoint

    if not path.is_file():
        raise InputError(f"{path} is missing; run `dvc repro finetune/dvc.yaml` to train it")
    state = {
        key: value.half() if value.is_floating_point() else value
        for key, value in open_checkpoint(path).state.items()
    }
    bad = [key for key, value in state.items() if not value.isfinite().all()]
    if bad:
        raise InputError(f"{path}: {bad[0]} holds values that float16 cannot; training diverged")
    return state


def _model(params: FinetuneParams, weights: Path, classes: int) -> torch.nn.Module:
    from pipeline.finetune import networks

    size = params.train.phases[-1].image_size
    model = networks.build(params.model.architecture, classes, size)
    networks.load(model, packed_state(weights), str(weights))
    return model.eval()


def _test_images(params: FinetuneParams) -> tuple[ImageData, list[int], str]:
    """Return the data set, which of its images to measure on, and what to call them."""
    from pipeline.finetune.data import load_test, load_train
    from pipeline.finetune.schedule import split

    test = load_test(params.data)
    if test is not None:
        return test, list(range(len(test))), "test"
    train = load_train(params.data)
    held_out = split(len(train), params.data.validation, params.run.seed)[1]
    return train, held_out.tolist(), "validation"


def _prepared(
    data: ImageData, part: Sequence[int], preparation: Preprocessing
) -> Iterator[NDArray[np.float32]]:
    """Yield batches of model input, float32 [n, 3, H, W]."""
    from pipeline.images.preprocessing import geometry, normalize

    resize_and_crop = geometry(preparation)
    with progress(total=len(part), unit="image", desc="evaluate") as bar:
        for start in range(0, len(part), BATCH):
            images = [resize_and_crop(data.open(index)) for index in part[start : start + BATCH]]
            yield normalize(np.stack(images), preparation)
            bar.update(len(images))


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\n') else text


def main() -> None:
    """Run the stage by ``finetune/params.yaml``, or measure ``--weights`` alone."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.finetune.evaluate")
    parser.add_argument("--weights", type=Path, help="measure this file and write nothing")
    parser.add_argument("--data", type=Path, help="instead of data.root of finetune/params.yaml")
    options = parser.parse_args()
    with exit_on_error():
        params = load_params()
        if options.data:
            data = params.data.model_copy(update={"root": options.data})
            params = params.model_copy(update={"data": data})
        if options.weights:
            print(measure(params, options.weights))
        else:
            evaluate(params, ARTIFACTS, RECORDS)


if __name__ == "__main__":
    main()
