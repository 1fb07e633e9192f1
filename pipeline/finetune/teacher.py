"""Stage ``teacher``: the classifier to learn from, if params ask for one, and how good it is.

It is a checkpoint, or a network that is trained on the same images first. Either way it leaves one
file that says its architecture, classes and preprocessing; ``train`` reads nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import InputError, exit_on_error
from pipeline.finetune.params import (
    ARTIFACTS,
    HISTORY_FILE,
    METRICS_FILE,
    TEACHER,
    WEIGHTS_FILE,
    FinetuneParams,
    Model,
    Teacher,
    load_params,
)

if TYPE_CHECKING:
    from pipeline.checkpoints.metadata import CheckpointInfo
    from pipeline.contract.contract import Preprocessing
    from pipeline.finetune.data import ImageData
    from pipeline.finetune.evaluate import Measured

BATCH = 50
INTERPOLATIONS = ("bilinear", "bicubic")  # modes that resize tensors


def make_teacher(params: FinetuneParams, artifacts: Path) -> None:
    """Write the folder of ``params.teacher``: weights and ``metrics.json``; empty without one.

    Raises:
        InputError: the checkpoint cannot be used or has other classes than the data; or as
            :meth:`pipeline.finetune.trainer.Trainer.fit`.
    """
    out = artifacts / TEACHER
    out.mkdir(parents=True, exist_ok=True)
    if params.teacher is None:
        print("finetune/params.yaml: teacher is null; there is none to make")
        return
    from pipeline.files import write_json
    from pipeline.finetune.data import load_train

    data = load_train(params.data)
    if params.teacher.checkpoint:
        _copy_checkpoint(params.teacher, params.teacher.checkpoint, data.classes, out)
    else:
        _train_teacher(params, params.teacher, data.classes, out)
    measured = _measure(params, artifacts, data)
    write_json(out / METRICS_FILE, measured.metrics())
    print(f"teacher: {measured}")


def _train_teacher(
    params: FinetuneParams, teacher: Teacher, classes: Sequence[str], out: Path
) -> None:
    """Train the network that params describe, on the same images."""
    from pipeline.finetune.pack import metadata
    from pipeline.finetune.training import train_together

    network = {"architecture": teacher.architecture, "checkpoint": None, "crop_pct": 1.0}
    preparation = teacher.model_dump(include={"interpolation", "mean", "std"}, exclude_none=True)
    model = params.model.model_copy(update=network | preparation)
    prepared = _preprocessing(teacher.phases[-1].image_size, model)
    train_together(
        model,
        teacher,
        params,
        out,
        out / HISTORY_FILE,
        metadata=metadata(model.architecture, classes, prepared),
    )


def _copy_checkpoint(teacher: Teacher, checkpoint: Path, classes: Sequence[str], out: Path) -> None:
    """Copy a checkpoint, once it fits its architecture and the data, as float32 safetensors."""
    from safetensors.torch import save

    from pipeline.checkpoints.fitting import fit
    from pipeline.checkpoints.read import read_weights
    from pipeline.files import write_bytes
    from pipeline.finetune.distill import check_classes
    from pipeline.finetune.pack import metadata
    from pipeline.models import build

    if not checkpoint.is_file():
        raise InputError(f"teacher.checkpoint: there is no file {checkpoint}")
    states, in_file = read_weights(checkpoint, str(checkpoint))
    info = _info_from_params(teacher).merged_with(in_file)
    if info.architecture is None:
        raise InputError(
            f"teacher.architecture is missing, and {checkpoint} does not say; give timm's name, "
            "e.g. regnety_160"
        )
    check_classes(info.labels, classes, f"teacher.checkpoint: {checkpoint}")
    prepared = _resolved(info, str(checkpoint))
    kwargs = info.kwargs.for_timm()
    planned = build.outline(info.architecture, num_classes=len(classes), kwargs=kwargs)
    model = build.create_from(
        fit(states, planned, str(checkpoint)).state,
        info.architecture,
        num_classes=len(classes),
        image_size=prepared.size[0],
        source=str(checkpoint),
        kwargs=kwargs,
    )
    weights = {key: value.contiguous() for key, value in model.state_dict().items()}
    content = save(weights, metadata(info.architecture, classes, prepared))
    write_bytes(out / WEIGHTS_FILE, content)
    print(
        f"teacher: {checkpoint} is {info.architecture}, shown images of {prepared.size[0]} pixels "
        f"({prepared.interpolation}, mean {prepared.mean}, deviation {prepared.std})"
    )


def _info_from_params(teacher: Teacher) -> CheckpointInfo:
    """Return what params say about the checkpoint."""
    from pipeline.checkpoints.labels import read_labels
    from pipeline.checkpoints.metadata import CheckpointInfo
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
    return CheckpointInfo(architecture=teacher.architecture, labels=labels, data=data)


def _resolved(info: CheckpointInfo, source: str) -> Preprocessing:
    """Return how images are prepared: by ``info``, else by timm's configuration."""
    from timm.data import resolve_data_config

    from pipeline.models.build import pretrained_cfg

    cfg = pretrained_cfg(str(info.architecture))
    config = resolve_data_config(dict(info.data), pretrained_cfg=cfg)
    if config["interpolation"] not in INTERPOLATIONS:
        raise InputError(
            f"{source} was trained with {config['interpolation']} interpolation, which a "
            f"teacher cannot use; set teacher.interpolation to {' or '.join(INTERPOLATIONS)}"
        )
    shown = {key: config[key] for key in ("interpolation", "mean", "std")}
    model = Model(architecture=str(info.architecture), **shown)
    return _preprocessing(config["input_size"][-1], model)


def _preprocessing(size: int, model: Model) -> Preprocessing:
    from pipeline.finetune.evaluate import preprocessing_of

    return preprocessing_of(size, model)


def _measure(params: FinetuneParams, artifacts: Path, data: ImageData) -> Measured:
    """Return the teacher's answers on the held-out images, at its own resolution."""
    from pipeline.finetune.data import Draw, View, batches
    from pipeline.finetune.distill import read_teacher
    from pipeline.finetune.evaluate import Measured
    from pipeline.finetune.hardware import Machine
    from pipeline.finetune.schedule import split

    machine = Machine.of(params.run)
    teacher = read_teacher(params, artifacts, data.classes, machine.device.type)
    part = split(len(data), params.data.validation, params.run.seed)[1]
    draws = [Draw(tuple(indices.tolist()), 0) for indices in part.split(BATCH)]
    predicted: list[int] = []
    for images, _ in batches(data, draws, View(teacher.image_size, teacher.interpolation)):
        predicted += teacher.logits(images.to(machine.device), machine).argmax(1).tolist()
    actual = tuple(data.labels[part].tolist())
    return Measured(data.classes, actual, tuple(predicted), "validation")


def main() -> None:
    """Run the stage by ``finetune/params.yaml``."""
    with exit_on_error():
        make_teacher(load_params(), ARTIFACTS)


if __name__ == "__main__":
    main()
