"""Stage ``teacher``: the classifier to learn from, if params ask for one, and how good it is.

It is a checkpoint, or a network that is trained on the same images first. Either way it leaves one
file that says its architecture, classes and preprocessing; ``train`` reads nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import InputError, exit_on_error
from pipeline.finetune import places
from pipeline.finetune.params import FinetuneParams, Model, Teacher, load_params

if TYPE_CHECKING:
    from pipeline.checkpoints.metadata import Facts
    from pipeline.contract.contract import Preprocessing
    from pipeline.finetune import distill
    from pipeline.finetune.data import ImageData
    from pipeline.finetune.evaluate import Measured

BATCH = 50
INTERPOLATIONS = ("bilinear", "bicubic")  # that tensors are resized by


def make_teacher(params: FinetuneParams, artifacts: Path) -> None:
    """Write the folder of ``params.teacher``: weights and ``metrics.json``; empty without one.

    Raises:
        InputError: the checkpoint cannot be used or has other classes than the data; or as
            :meth:`pipeline.finetune.trainer.Trainer.fit`.
    """
    out = artifacts / places.TEACHER
    out.mkdir(parents=True, exist_ok=True)
    if params.teacher is None:
        print("finetune/params.yaml: teacher is null; there is none to make")
        return
    from pipeline.files import write_json
    from pipeline.finetune.data import load_train

    data = load_train(params.data)
    if params.teacher.checkpoint:
        _take(params.teacher, params.teacher.checkpoint, data.classes, out)
    else:
        _train(params, params.teacher, data.classes, out)
    measured = _measure(params, artifacts, data)
    write_json(out / places.METRICS_FILE, measured.metrics())
    print(f"teacher: {measured}")


def load_teacher(
    params: FinetuneParams, artifacts: Path, classes: Sequence[str], device: str
) -> distill.Teacher | None:
    """Return the teacher that :func:`make_teacher` made, None if it is not to teach.

    Raises:
        InputError: it was not made yet, or for other classes.
    """
    if params.teacher is None or params.method.kind == "none":
        return None
    return _load(params, artifacts, classes, device)


def _load(
    params: FinetuneParams, artifacts: Path, classes: Sequence[str], device: str
) -> distill.Teacher:
    from pipeline.checkpoints.metadata import facts_of_metadata
    from pipeline.files import sha256_file
    from pipeline.finetune import distill, networks
    from pipeline.untrusted.state_dict import open_checkpoint

    path = artifacts / places.TEACHER / places.WEIGHTS_FILE
    if not path.is_file():
        raise InputError(f"{path} is missing; run `dvc repro finetune/dvc.yaml` to make it")
    state, metadata = open_checkpoint(path)
    facts = facts_of_metadata(metadata, str(path))
    _check_classes(facts.labels, classes, str(path))
    size = facts.data["input_size"][-1]
    model = networks.build(str(facts.architecture), len(classes), size)
    networks.load(model, state, str(path))
    return distill.Teacher(
        model=model.to(device).eval().requires_grad_(False),
        image_size=size,
        interpolation=facts.data["interpolation"],
        mean=facts.data["mean"],
        std=facts.data["std"],
        method=params.method,
        sha256=sha256_file(path),
    )


def _train(params: FinetuneParams, teacher: Teacher, classes: Sequence[str], out: Path) -> None:
    from pipeline.finetune.pack import metadata
    from pipeline.finetune.train import train_together

    own = {"architecture": teacher.architecture, "checkpoint": None, "crop_pct": 1.0}
    given = teacher.model_dump(include={"interpolation", "mean", "std"}, exclude_none=True)
    model = params.model.model_copy(update=own | given)
    prepared = _preprocessing(teacher.phases[-1].image_size, model)
    about = metadata(model.architecture, classes, prepared)
    train_together(model, teacher, params, out, out / places.HISTORY_FILE, about=about)


def _take(teacher: Teacher, checkpoint: Path, classes: Sequence[str], out: Path) -> None:
    """Copy a checkpoint, once it fits its architecture and the data, as float32 safetensors."""
    from safetensors.torch import save

    from pipeline.checkpoints.read import read_weights
    from pipeline.files import write_bytes
    from pipeline.finetune.pack import metadata
    from pipeline.models import build

    if not checkpoint.is_file():
        raise InputError(f"teacher.checkpoint: there is no file {checkpoint}")
    state, own = read_weights(checkpoint, str(checkpoint))
    facts = _given(teacher).over(own)
    if facts.architecture is None:
        raise InputError(
            f"teacher.architecture is missing, and {checkpoint} does not say; give timm's name, "
            "e.g. regnety_160"
        )
    _check_classes(facts.labels, classes, f"teacher.checkpoint: {checkpoint}")
    prepared = _resolved(facts, str(checkpoint))
    model = build.create_from(
        state,
        facts.architecture,
        num_classes=len(classes),
        image_size=prepared.size[0],
        source=str(checkpoint),
    )
    weights = {key: value.contiguous() for key, value in model.state_dict().items()}
    about = metadata(facts.architecture, classes, prepared)
    write_bytes(out / places.WEIGHTS_FILE, save(weights, about))
    print(
        f"teacher: {checkpoint} is {facts.architecture}, shown images of {prepared.size[0]} pixels "
        f"({prepared.interpolation}, mean {prepared.mean}, deviation {prepared.std})"
    )


def _given(teacher: Teacher) -> Facts:
    """What params say about a checkpoint, over what it says itself."""
    from pipeline.checkpoints.metadata import Facts, read_labels
    from pipeline.checkpoints.zoo import IMAGENET

    path = teacher.labels
    if path is not None and str(path) != IMAGENET and not path.is_file():
        raise InputError(f"teacher.labels: there is no file {path}")
    data: dict[str, Any] = teacher.model_dump(
        include={"interpolation", "mean", "std"}, exclude_none=True
    )
    if teacher.image_size:
        data["input_size"] = (3, teacher.image_size, teacher.image_size)
    labels = read_labels(path) if path else None
    return Facts(architecture=teacher.architecture, labels=labels, data=data)


def _check_classes(labels: Sequence[str] | None, classes: Sequence[str], source: str) -> None:
    """Refuse a teacher whose outputs mean something else than the student's."""
    if labels is None:
        raise InputError(
            f"{source} does not say its classes; set teacher.labels to a file with one class name "
            "a line, in the order of its outputs"
        )
    if tuple(labels) == tuple(classes):
        return
    if sorted(labels) == sorted(classes):
        what = "has the data's classes in another order"
    else:
        what = f"has other classes than the data ({len(labels)}, the data has {len(classes)})"
    pairs = enumerate(zip(labels, classes, strict=False))
    first = next(((n, a, b) for n, (a, b) in pairs if a != b), None)
    where = f": class {first[0]} is {first[1]!r}, the data's is {first[2]!r}" if first else ""
    raise InputError(f"{source} {what}{where}. Take a teacher of exactly these classes")


def _resolved(facts: Facts, source: str) -> Preprocessing:
    """Return how images are prepared: by the facts, else by timm's configuration."""
    from timm.data import resolve_data_config

    from pipeline.models.build import pretrained_cfg

    cfg = pretrained_cfg(str(facts.architecture))
    config = resolve_data_config(dict(facts.data), pretrained_cfg=cfg)
    if config["interpolation"] not in INTERPOLATIONS:
        raise InputError(
            f"{source} was trained with {config['interpolation']} interpolation, which is not "
            f"there for a teacher; set teacher.interpolation to {' or '.join(INTERPOLATIONS)}"
        )
    shown = {key: config[key] for key in ("interpolation", "mean", "std")}
    model = Model(architecture=str(facts.architecture), **shown)
    return _preprocessing(config["input_size"][-1], model)


def _preprocessing(size: int, model: Model) -> Preprocessing:
    from pipeline.finetune.evaluate import preprocessing_of

    return preprocessing_of(size, model)


def _measure(params: FinetuneParams, artifacts: Path, data: ImageData) -> Measured:
    """Return what it takes each held-out image for, at its own resolution."""
    from pipeline.finetune.data import Draw, View, batches
    from pipeline.finetune.evaluate import Measured
    from pipeline.finetune.hardware import Machine
    from pipeline.finetune.schedule import split

    machine = Machine.of(params.run)
    teacher = _load(params, artifacts, data.classes, machine.device.type)
    part = split(len(data), params.data.validation, params.run.seed)[1]
    draws = [Draw(tuple(some.tolist()), 0) for some in part.split(BATCH)]
    seen: list[int] = []
    for images, _ in batches(data, draws, View(teacher.image_size, teacher.interpolation)):
        seen += teacher.logits(images.to(machine.device), machine).argmax(1).tolist()
    actual = tuple(data.labels[part].tolist())
    return Measured(data.classes, actual, tuple(seen), "validation")


def main() -> None:
    with exit_on_error():
        make_teacher(load_params(), places.ARTIFACTS)


if __name__ == "__main__":
    main()
