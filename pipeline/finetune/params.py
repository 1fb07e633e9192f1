"""Everything a user may change about fine-tuning: ``finetune/params.yaml``, validated."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from pipeline.errors import ParamsError
from pipeline.schema import COLOURS, Colour, Count, Fraction, Positive, Section, Switch, load

PARAMS_FILE = Path("finetune/params.yaml")

# Where stages write; the same names as in ``finetune/dvc.yaml``.
ARTIFACTS = Path("artifacts/finetune")
RECORDS = Path("finetune")  # small text that is committed: history, metrics, confusion
TEACHER = "teacher"
TRAIN = "train"
PACKED = "packed"
RESUME = "resume"  # no output of a stage: DVC deletes those before it runs one
WEIGHTS_FILE = "weights.safetensors"
HISTORY_FILE = "history.csv"
METRICS_FILE = "metrics.json"
CONFUSION_FILE = "confusion.csv"

Rate = Annotated[float, Field(ge=0, lt=1)]
Triple = tuple[float, float, float]


ImageSize = Annotated[int, Field(ge=8, le=1024)]
Interpolation = Literal["bilinear", "bicubic"]


class Phase(Section):
    """A stretch of training at one resolution."""

    image_size: ImageSize  # pixels
    epochs: Positive  # passes over the training images; fractions are allowed
    batch_size: Count
    lr: Positive  # after warm-up
    lr_end: Annotated[float, Field(ge=0)] = 0.0  # where the cosine ends
    warmup_fraction: Rate = 0.05  # of the phase's steps
    patch_drop: Rate = 0.0  # fraction of patches left out of each training image
    blocks: Count | None = None  # train only so many blocks and grow later; null: all


class Data(Section):
    """The labelled images: where they are, and how many of them are held out."""

    root: Path  # one folder a class, IDX files, or CIFAR (its folder or archive)
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.02  # of the training images, held out
    test: Path | None = None  # class folders to evaluate on; IDX files and CIFAR bring their own
    workers: Annotated[int, Field(ge=0)] = 2  # processes that decode images of class folders
    orientation: Literal["upright", "stored"] = "upright"  # of class folders' images, as
    background: Colour = COLOURS["white"]  # model.orientation and model.background of params.yaml


class Model(Section):
    """The network to train, and how images are prepared for it."""

    architecture: str = Field(min_length=1)
    checkpoint: Path | None = None  # weights to start from; null: from scratch
    crop_pct: Annotated[float, Field(gt=0, le=1)] = 1.0
    interpolation: Interpolation = "bicubic"
    mean: Triple = (0.485, 0.456, 0.406)
    std: tuple[Positive, Positive, Positive] = (0.229, 0.224, 0.225)


class Augmentation(Section):
    """Random changes of each training image."""

    flip: Fraction = 0.5  # probability of a left-right flip
    shift: Annotated[float, Field(ge=0, le=0.5)] = 0.07  # IDX, CIFAR: of the side, either way
    min_area: Annotated[float, Field(gt=0, le=1)] = 0.4  # class folders: of the image, in a crop


class Optimizer(Section):
    """The optimizer and its constants; its learning rate is each phase's."""

    name: Literal["adamw", "muon"] = "adamw"
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    betas: tuple[Rate, Rate] = (0.9, 0.99)
    muon_lr_ratio: Positive = 2.0  # Muon's learning rate over AdamW's
    clip_norm: Positive = 1.0


class Training(Section):
    """A recipe: the phases of training, and what holds in all of them."""

    phases: Annotated[tuple[Phase, ...], Field(min_length=1)]
    optimizer: Optimizer = Optimizer()
    augmentation: Augmentation = Augmentation()
    label_smoothing: Rate = 0.1
    ema_decay: Rate = 0.995  # of the averaged weights, a step; 0: no averaging


class Teacher(Training):
    """A classifier to learn from: a checkpoint, or a network trained on the same images first.

    Of a checkpoint, what is None here is taken from its metadata, then from timm.
    """

    architecture: str | None = Field(default=None, min_length=1)
    checkpoint: Path | None = None
    labels: Path | None = None  # its classes, one a line in the order of its outputs
    image_size: ImageSize | None = None  # pixels
    interpolation: Interpolation | None = None
    mean: Triple | None = None
    std: tuple[Positive, Positive, Positive] | None = None
    phases: tuple[Phase, ...] = ()


class Distillation(Section):
    """How a teacher teaches (Touvron et al., 2021, equations 2 and 3)."""

    kind: Literal["none", "hard", "soft"]
    alpha: Annotated[float, Field(gt=0, lt=1)] = 0.5  # the teacher's part of the loss
    temperature: Positive = 3.0  # of soft distillation


class Run(Section):
    """How to run: changes speed, and results by no more than another seed would."""

    seed: Annotated[int, Field(ge=0)] = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    compile: Switch = "auto"
    threads: Annotated[int, Field(ge=0)] = 0  # of each process; 0: as many as PyTorch chooses
    processes: Count = 1  # that share each batch; on a CPU better than as many threads
    checkpoint_seconds: Annotated[float, Field(ge=0)] = 120.0  # between resumable checkpoints


class FinetuneParams(Section):
    """The whole of ``finetune/params.yaml``."""

    data: Data
    model: Model
    train: Training
    teacher: Teacher | None = None
    distillation: Distillation | None = None  # null: hard if there is a teacher
    run: Run = Run()

    @property
    def method(self) -> Distillation:
        """How the teacher teaches, spelt out."""
        return self.distillation or Distillation(kind="hard" if self.teacher else "none")


def load_params(path: Path = PARAMS_FILE) -> FinetuneParams:
    """Read ``finetune/params.yaml``; errors as :func:`pipeline.params.load`."""
    params = load(path, FinetuneParams)
    check(params, path)
    return params


def check(params: FinetuneParams, path: Path) -> None:
    """Refuse values of ``path`` that are each allowed and contradict each other.

    Raises:
        ParamsError: saying which.
    """
    if problem := _contradiction(params):
        raise ParamsError(f"{path}: {problem}")


def _contradiction(params: FinetuneParams) -> str | None:
    """Say what is wrong with values that are each allowed."""
    for name, recipe in (("train", params.train), ("teacher", params.teacher)):
        if recipe is not None and recipe.phases and recipe.phases[-1].blocks is not None:
            return (
                f"{name}.phases.{len(recipe.phases) - 1}.blocks must be null: the last phase "
                "trains the whole model"
            )
    if params.teacher is not None:
        return _contradiction_of(params.teacher)
    if params.method.kind != "none":
        return (
            f"distillation.kind is {params.method.kind}, but teacher is null; describe a teacher, "
            "or set distillation.kind to none"
        )
    return None


def _contradiction_of(teacher: Teacher) -> str | None:
    set_keys = teacher.model_fields_set
    if teacher.checkpoint is not None:
        if wrong := sorted(set_keys & Training.model_fields.keys()):
            return (
                f"teacher.{wrong[0]} is for a teacher that is trained here, but "
                "teacher.checkpoint is trained already; leave one of the two out"
            )
        return None
    if teacher.architecture is None:
        return "teacher needs a checkpoint, or an architecture and phases to train it by"
    if not teacher.phases:
        return "teacher.phases is missing; without teacher.checkpoint it is trained here"
    if wrong := sorted(set_keys & {"labels", "image_size"}):
        return (
            f"teacher.{wrong[0]} is for a teacher.checkpoint; a teacher that is trained here has "
            "the data's classes and the image_size of its last phase"
        )
    return None
