from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.core.errors import ParamsError
from pipeline.finetune.machine import Machine
from pipeline.finetune.params import PARAMS_FILE, Run, load_params

ROOT = Path(__file__).parents[2]
GIVEN = (ROOT / PARAMS_FILE).read_text()


def test_the_recipe_in_the_repository_is_valid_and_ends_at_224_pixels() -> None:
    params = load_params(ROOT / PARAMS_FILE)
    assert params.model.architecture == "deit_tiny_patch16_224"
    assert params.train.phases[-1].image_size == 224


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (
            "validation: 0.02",
            "validation: 1.5",
            r"data\.validation must be less than 1",
        ),
        (
            "label_smoothing: 0.1",
            "label_smoothing: -1",
            r"train\.label_smoothing must be at least",
        ),
        (
            "label_smoothing: 0.1",
            "label_smothing: 0.1",
            r"did you mean label_smoothing",
        ),
        (
            "image_size: 64",
            "image_size: 4",
            r"train\.phases\.0\.image_size must be at least 8",
        ),
        (
            "name: muon",
            "name: sgd",
            r"train\.optimizer\.name must be one of 'adamw' or 'muon'",
        ),
    ],
)
def test_wrong_values_are_named_by_their_path(
    tmp_path: Path, old: str, new: str, words: str
) -> None:
    assert old in GIVEN
    path = tmp_path / "params.yaml"
    path.write_text(GIVEN.replace(old, new, 1))
    with pytest.raises(ParamsError, match=words):
        load_params(path)


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ParamsError, match=r"run\.device is cuda, but PyTorch finds no GPU"):
        Machine.of(Run(device="cuda"))
