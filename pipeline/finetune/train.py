"""Stage ``train``: the transformer's weights, and the curve of its training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import exit_on_error
from pipeline.finetune import places
from pipeline.finetune.params import FinetuneParams, Model, Training, load_params

if TYPE_CHECKING:
    from pipeline.finetune.distributed import Crew


def train(params: FinetuneParams, artifacts: Path, records: Path) -> None:
    """Train the transformer; write ``train/weights.safetensors``, and ``history.csv`` of records.

    Raises:
        InputError: the teacher was not made yet; or as ``Trainer.fit``.
        ParamsError: the machine lacks what ``run`` asks for.
    """
    out, history = artifacts / places.TRAIN, records / places.HISTORY_FILE
    train_together(params.model, params.train, params, out, history, teachers=artifacts)


def train_together(
    model: Model,
    recipe: Training,
    params: FinetuneParams,
    out: Path,
    history: Path,
    *,
    teachers: Path | None = None,
    about: dict[str, str] | None = None,
) -> None:
    """Train ``model`` by ``recipe`` into folder ``out``, in as many processes as params ask for.

    The curve goes to ``history``. Folder ``resume`` beside ``out`` holds a checkpoint meanwhile,
    from which a killed run goes on. The teacher, if params ask for one, comes from the artifacts in
    ``teachers``; ``about`` becomes metadata of the weights.
    """
    from pipeline.finetune.distributed import run_together

    work = (model, recipe, params, out, history, teachers, about)
    run_together(params.run.processes, _train, *work)


def _train(
    model: Model,
    recipe: Training,
    params: FinetuneParams,
    out: Path,
    history: Path,
    teachers: Path | None,
    about: dict[str, str] | None,
    *,
    crew: Crew,
) -> None:
    from safetensors.torch import save

    from pipeline.files import write_bytes
    from pipeline.finetune.data import load_train
    from pipeline.finetune.hardware import Machine
    from pipeline.finetune.teacher import load_teacher
    from pipeline.finetune.trainer import Places, Trainer

    data = load_train(params.data)
    device = Machine.of(params.run).device.type
    teacher = load_teacher(params, teachers, data.classes, device) if teachers else None
    resume = out.parent / places.RESUME / f"{out.name}.pt"
    spots = Places(resume, history)
    trainer = Trainer(
        model,
        recipe,
        params.run,
        data,
        spots,
        validation=params.data.validation,
        teacher=teacher,
        crew=crew,
    )
    weights = trainer.fit()
    if not crew.leads:
        return
    content = save({key: value.contiguous() for key, value in weights.items()}, about)
    write_bytes(out / places.WEIGHTS_FILE, content)
    resume.unlink(missing_ok=True)


def main() -> None:
    with exit_on_error():
        train(load_params(), places.ARTIFACTS, places.RECORDS)


if __name__ == "__main__":
    main()
