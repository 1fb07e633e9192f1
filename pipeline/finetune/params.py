"""Everything a user may change about fine-tuning: ``finetune/params.yaml``, validated."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from pipeline.core.errors import ParamsError
from pipeline.core.schema import Count, Fraction, Positive, Section, load

PARAMS_FILE = Path("finetune/params.yaml")

Rate = Annotated[float, Field(ge=0, lt=1)]
Triple = tuple[float, float, float]


class Phase(Section):
    """A stretch of training at one resolution."""

    image_size: Annotated[int, Field(ge=8, le=1024)]  # pixels
    epochs: Positive  # passes over the training images; fractions are allowed
    batch_size: Count
    lr: Positive  # after warm-up
    lr_end: Annotated[float, Field(ge=0)] = 0.0  # where the cosine ends
    warmup_fraction: Rate = 0.05  # of the phase's steps
    patch_drop: Rate = 0.0  # fraction of patches left out of each training image
    blocks: Count | None = None  # train only so many blocks and grow later; null: all


class Data(Section):
    root: Path  # a folder of IDX files, or of one folder a class
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.02  # of the training images, held out
    test: Path | None = None  # class folders to evaluate on; IDX folders bring their own
    workers: Annotated[int, Field(ge=0)] = 2  # processes that decode images of class folders


class Model(Section):
    architecture: str = Field(min_length=1)
    checkpoint: Path | None = None  # weights to start from; null: from scratch
    crop_pct: Annotated[float, Field(gt=0, le=1)] = 1.0
    interpolation: Literal["bilinear", "bicubic"] = "bicubic"
    mean: Triple = (0.485, 0.456, 0.406)
    std: tuple[Positive, Positive, Positive] = (0.229, 0.224, 0.225)


class Augmentation(Section):
    flip: Fraction = 0.5  # probability of a left-right flip
    shift: Annotated[float, Field(ge=0, le=0.5)] = 0.07  # IDX data: of the side, either way
    min_area: Annotated[float, Field(gt=0, le=1)] = 0.4  # class folders: of the image, in a crop


class Optimizer(Section):
    name: Literal["adamw", "muon"] = "adamw"
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    betas: tuple[Rate, Rate] = (0.9, 0.99)
    muon_lr_ratio: Positive = 2.0  # Muon's learning rate over AdamW's
    clip_norm: Positive = 1.0


class Training(Section):
    phases: Annotated[tuple[Phase, ...], Field(min_length=1)]
    optimizer: Optimizer = Optimizer()
    augmentation: Augmentation = Augmentation()
    label_smoothing: Rate = 0.1
    ema_decay: Rate = 0.995  # of the averaged weights, a step; 0: no averaging


class Teacher(Training):
    """A convolutional network that the transformer learns from by hard distillation."""

    architecture: str = Field(min_length=1)


class Run(Section):
    """How to run: changes speed, and results by no more than another seed would."""

    seed: Annotated[int, Field(ge=0)] = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    compile: Literal["auto", "on", "off"] = "auto"
    threads: Annotated[int, Field(ge=0)] = 0  # of each process; 0: as many as PyTorch chooses
    processes: Count = 1  # that share each batch; on a CPU better than as many threads
    checkpoint_seconds: Annotated[float, Field(ge=0)] = 120.0  # between resumable checkpoints


class FinetuneParams(Section):
    """The whole of ``finetune/params.yaml``."""

    data: Data
    model: Model
    train: Training
    teacher: Teacher | None = None
    run: Run = Run()


def load_params(path: Path = PARAMS_FILE) -> FinetuneParams:
    """Read ``finetune/params.yaml``; errors as :func:`pipeline.core.params.load`."""
    params = load(path, FinetuneParams)
    for name, recipe in (("train", params.train), ("teacher", params.teacher)):
        if recipe is not None and recipe.phases[-1].blocks is not None:
            raise ParamsError(
                f"{path}: {name}.phases.{len(recipe.phases) - 1}.blocks must be null: the last "
                "phase trains the whole model"
            )
    return params
