"""Stage ``train``: the transformer's weights, and the curve of its training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.core.errors import exit_on_error
from pipeline.finetune import places
from pipeline.finetune.params import FinetuneParams, Model, Training, load_params

if TYPE_CHECKING:
    from pipeline.finetune.crew import Crew


def train(params: FinetuneParams, artifacts: Path) -> None:
    """Train the transformer; write ``train/weights.safetensors`` and ``train/history.csv``.

    Raises:
        InputError: as :meth:`pipeline.finetune.fit.Trainer.fit`.
        ParamsError: the machine lacks what ``run`` asks for.
    """
    train_together(params.model, params.train, params, artifacts / places.TRAIN)


def train_together(model: Model, recipe: Training, params: FinetuneParams, out: Path) -> None:
    """Train ``model`` by ``recipe`` into folder ``out``, in as many processes as params ask for.

    Folder ``resume`` beside it holds a checkpoint meanwhile, from which a killed run goes on.
    """
    from pipeline.finetune.crew import run_together

    run_together(params.run.processes, _train, model, recipe, params, out)


def _train(
    model: Model, recipe: Training, params: FinetuneParams, out: Path, *, crew: Crew
) -> None:
    from safetensors.torch import save_file

    from pipeline.finetune.data import load_train
    from pipeline.finetune.fit import Places, Trainer
    from pipeline.finetune.machine import Machine
    from pipeline.finetune.teacher import load_teacher
    from pipeline.support.files import atomic

    data = load_train(params.data)
    device = Machine.of(params.run).device.type
    is_teacher = recipe == params.teacher
    teacher = None if is_teacher else load_teacher(params, out.parent, len(data.classes), device)
    resume = out.parent / places.RESUME / f"{out.name}.pt"
    spots = Places(resume, out / places.HISTORY_FILE)
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
    with atomic(out / places.WEIGHTS_FILE) as new:
        save_file({key: value.contiguous() for key, value in weights.items()}, new)
    resume.unlink(missing_ok=True)


def main() -> None:
    with exit_on_error():
        train(load_params(), places.ARTIFACTS)


if __name__ == "__main__":
    main()
