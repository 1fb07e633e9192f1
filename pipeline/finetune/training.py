"""Train one network by one recipe: what the stages ``teacher`` and ``train`` share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.finetune.params import RESUME, WEIGHTS_FILE, FinetuneParams, Model, Training

if TYPE_CHECKING:
    from pipeline.finetune.distributed import ProcessGroup


def train_together(
    model: Model,
    recipe: Training,
    params: FinetuneParams,
    out: Path,
    history: Path,
    *,
    teachers: Path | None = None,
    metadata: dict[str, str] | None = None,
) -> None:
    """Train ``model`` by ``recipe`` into folder ``out``, in as many processes as params ask for.

    The curve goes to ``history``. Folder ``resume`` beside ``out`` holds a checkpoint meanwhile,
    from which an interrupted run resumes. The teacher, if params ask for one, comes from the
    artifacts in ``teachers``; the weights file carries ``metadata``.

    Raises:
        InputError: the teacher was not made yet; or as ``Trainer.fit``.
        ParamsError: the machine lacks what ``run`` asks for.
    """
    from pipeline.finetune.distributed import run_together

    arguments = (model, recipe, params, out, history, teachers, metadata)
    run_together(params.run.processes, _train, *arguments)


def _train(
    model: Model,
    recipe: Training,
    params: FinetuneParams,
    out: Path,
    history: Path,
    teachers: Path | None,
    metadata: dict[str, str] | None,
    *,
    group: ProcessGroup,
) -> None:
    """Train as one process of ``group``; the main one writes the weights."""
    from safetensors.torch import save

    from pipeline.files import write_bytes
    from pipeline.finetune.data import load_train
    from pipeline.finetune.distill import load_teacher
    from pipeline.finetune.hardware import Machine
    from pipeline.finetune.trainer import ResumePaths, Trainer

    data = load_train(params.data)
    device = Machine.of(params.run).device.type
    teacher = load_teacher(params, teachers, data.classes, device) if teachers else None
    paths = ResumePaths(out.parent / RESUME / f"{out.name}.pt", history)
    trainer = Trainer(
        model,
        recipe,
        params.run,
        data,
        paths,
        validation=params.data.validation,
        teacher=teacher,
        group=group,
    )
    weights = trainer.fit()
    if not group.is_main:
        return
    content = save({key: value.contiguous() for key, value in weights.items()}, metadata)
    write_bytes(out / WEIGHTS_FILE, content)
    paths.checkpoint.unlink(missing_ok=True)
