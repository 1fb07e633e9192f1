"""Stage ``teacher``: a convolutional network for the transformer to learn from, if asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.core.errors import exit_on_error
from pipeline.finetune import places
from pipeline.finetune.params import FinetuneParams, Model, load_params

if TYPE_CHECKING:
    from pipeline.finetune import distill


def train_teacher(params: FinetuneParams, artifacts: Path) -> None:
    """Train ``params.teacher`` and write its folder; without one, the folder stays empty.

    Raises:
        InputError: as :meth:`pipeline.finetune.fit.Trainer.fit`.
    """
    out = artifacts / places.TEACHER
    out.mkdir(parents=True, exist_ok=True)
    if params.teacher is None:
        print("finetune/params.yaml: teacher is null; nothing to train")
        return
    from pipeline.finetune.train import train_together

    history = out / places.HISTORY_FILE
    train_together(_model(params), params.teacher, params, out, history)


def load_teacher(
    params: FinetuneParams, artifacts: Path, classes: int, device: str
) -> distill.Teacher | None:
    """Return the teacher that :func:`train_teacher` trained, None if there is none to be.

    Raises:
        InputError: it was not trained yet, or its weights do not fit.
    """
    if params.teacher is None:
        return None
    from pipeline.core.errors import InputError
    from pipeline.finetune import distill, nets
    from pipeline.support.checkpoints import open_checkpoint
    from pipeline.support.files import sha256_file

    path = artifacts / places.TEACHER / places.WEIGHTS_FILE
    if not path.is_file():
        raise InputError(f"{path} is missing; run `dvc repro finetune/dvc.yaml` to train it")
    size = params.teacher.phases[-1].image_size
    model = nets.build(params.teacher.architecture, classes, size)
    nets.load(model, open_checkpoint(path)[0], str(path))
    return distill.Teacher(model.to(device).eval(), size, sha256_file(path))


def _model(params: FinetuneParams) -> Model:
    assert params.teacher is not None
    changes = {"architecture": params.teacher.architecture, "checkpoint": None}
    return params.model.model_copy(update=changes)


def main() -> None:
    with exit_on_error():
        train_teacher(load_params(), places.ARTIFACTS)


if __name__ == "__main__":
    main()
