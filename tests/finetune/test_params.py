from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import ParamsError
from pipeline.finetune.hardware import Machine
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
            r"data\.validation must be",
        ),
        (
            "label_smoothing: 0.1",
            "label_smoothing: -1",
            r"train\.label_smoothing must be",
        ),
        (
            "label_smoothing: 0.1",
            "label_smothing: 0.1",
            r"did you mean label_smoothing",
        ),
        (
            "image_size: 64",
            "image_size: 4",
            r"train\.phases\.0\.image_size must be",
        ),
        (
            "name: muon",
            "name: sgd",
            r"train\.optimizer\.name must be .*'adamw'",
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


def test_the_last_phase_trains_all_blocks(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    recipe = "{image_size: 32, epochs: 1, batch_size: 8, lr: 0.1, blocks: 2}"
    path.write_text(
        f"data: {{root: x}}\nmodel: {{architecture: test_vit}}\ntrain: {{phases: [{recipe}]}}\n"
    )
    with pytest.raises(ParamsError, match=r"train\.phases\.0\.blocks must be null"):
        load_params(path)


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ParamsError, match=r"run\.device is cuda, but PyTorch finds no GPU"):
        Machine.of(Run(device="cuda"))


@pytest.mark.parametrize("word", ["on", "off", "auto"])
def test_a_switch_is_the_word_that_stands_there(tmp_path: Path, word: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(f"{GIVEN}\nrun: {{compile: {word}}}\n")  # YAML 1.1 has off as false
    assert load_params(path).run.compile == word
