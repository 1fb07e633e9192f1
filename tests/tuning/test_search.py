"""A search is killed and resumes, and looks at no image of the gate."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml

from pipeline.errors import InputError
from pipeline.files import read_json
from pipeline.images.samples import CALIBRATION_FILE, content_hash, load_pixels
from pipeline.params import Params, Quantize, Recipe, Rewrite
from pipeline.stages.chain import run as run_stages
from pipeline.tuning.search import Tuner, _recommended, _study, enqueue_neighbour, tune
from pipeline.tuning.space import Space
from pipeline.tuning.split import Split, tuning_split
from tests.children import ENDING_WITH_TESTS
from tests.test_cli import run
from tests.tuning.test_pareto import result

PLAIN = Quantize(scheme="per_channel")

ROOT = Path(__file__).parents[2]
COMMAND = ("-m", "pipeline.cli", "tune", "--format", "ptl", "--samples", "8")
TRIALS = 3  # that of params.yaml, the same recipe by the queue, and another scheme


@pytest.fixture
def work(healthy: Path, params: Params, tmp_path: Path) -> Path:
    """A working folder in which `fetch` and `samples` have run."""
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params.model_dump(mode="json")))
    (tmp_path / "artifacts").mkdir()
    for name in ("checkpoint", "samples"):
        (tmp_path / "artifacts" / name).symlink_to(healthy / name)
    return tmp_path


@pytest.fixture(scope="module")
def taken(
    healthy: Path, params: Params, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Split]:
    """Artifacts with a tuning split of eight images, and the split: never change it in place."""
    artifacts = tmp_path_factory.mktemp("taken") / "artifacts"
    artifacts.mkdir()
    for name in ("checkpoint", "samples"):
        (artifacts / name).symlink_to(healthy / name)
    with tuning_split(params, artifacts, 8) as split:
        return artifacts, split


@pytest.fixture
def small(params: Params, tmp_path: Path) -> Path:
    """The same for small images, which cost little."""
    values = params.model_dump(mode="json")
    # Of eight images one with another answer would be the end of a recipe, and no matter here.
    for budget in values["gate"]["budgets"].values():
        budget |= {"top1_agreement_min": 0.5, "accuracy_drop_max_pp": 50.0}
    values["model"]["image_size"] = 64
    own = Params.model_validate(values)
    run_stages(own, tmp_path / "artifacts", "fetch", "samples")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(own.model_dump(mode="json")))
    return tmp_path


def kill_after(work: Path, words: bytes) -> None:
    """Start a search and kill it, workers and all, once it has said ``words``."""
    process = subprocess.Popen(
        [*ENDING_WITH_TESTS, sys.executable, *COMMAND, "--trials", str(TRIALS)],
        cwd=work,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stderr is not None
    said = b""
    while words not in said:
        piece = process.stderr.read1()
        assert piece, said
        said += piece
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stderr.close()
    deadline = time.monotonic() + 60
    with suppress(ProcessLookupError):
        while time.monotonic() < deadline:
            os.killpg(process.pid, 0)
            time.sleep(0.1)


@pytest.mark.full
def test_a_killed_search_resumes_and_ends_with_lines_for_params_yaml(
    small: Path,
) -> None:
    import optuna

    kill_after(small, b"trial 0:")
    ran = run(small, *COMMAND, "--trials", str(TRIALS))
    assert ran.returncode == 0, ran.stderr
    folder = small / "artifacts" / "tuning"
    storage = f"sqlite:///{folder / 'trials.db'}"
    (name,) = optuna.get_all_study_names(storage)
    trials = optuna.load_study(study_name=name, storage=storage).trials
    complete = [t for t in trials if t.state == optuna.trial.TrialState.COMPLETE]
    assert len(complete) == TRIALS
    assert trials[0] in complete
    assert not [t for t in trials if t.state == optuna.trial.TrialState.RUNNING]
    assert "trial 0:" not in ran.stderr
    assert "for params.yaml:" in ran.stdout, ran.stdout
    lines = ran.stdout.partition("for params.yaml:\n")[2].partition("then `make verdict`")[0]
    assert Recipe.of(lines).lines() in [t.user_attrs["recipe"] for t in complete]
    assert ElementTree.parse(folder / "ptl.svg").getroot().tag.endswith("svg")


def test_a_neighbour_of_the_cheapest_that_can_be_improved_is_queued_and_none_twice() -> None:
    import optuna

    space = Space(key="pte", transformer=False, ranking=())
    study = optuna.create_study(directions=["minimize", "minimize", "maximize"])

    def measured(recipe: Recipe, cost: float, violation: float) -> None:
        attributes = {"recipe": recipe.lines(), "agreement": 1.0, "violation": violation}
        study.add_trial(optuna.trial.create_trial(values=[cost, 0.3, 40.0], user_attrs=attributes))

    def waiting() -> list[Recipe]:
        return [
            space.recipe(trial.system_attrs["fixed_params"])
            for trial in study.get_trials(states=[optuna.trial.TrialState.WAITING])
        ]

    def costs(gptq: float) -> Callable[[Recipe], float]:
        return lambda recipe: gptq if recipe.quantize.rounding == "gptq" else 50.0

    enqueue_neighbour(study, space, costs(50.0))
    assert not waiting()
    cheap, expensive = (
        Recipe(Rewrite(), Quantize(scheme="static")),
        Recipe(Rewrite(), PLAIN),
    )
    measured(cheap, 100.0, 0.5)
    measured(expensive, 200.0, 0.0)
    beside = {space.recipe(values).lines() for values in space.neighbours(cheap)}
    assert len(beside) == 2  # the other schemes
    enqueue_neighbour(study, space, costs(999.0))
    enqueue_neighbour(study, space, costs(999.0))
    (first,) = waiting()
    assert first.lines() in beside - {expensive.lines()}
    study.ask()
    measured(first, 300.0, 0.0)
    enqueue_neighbour(study, space, costs(200.5))
    assert not waiting()  # `expensive` keeps all limits, and its neighbours that are left cost more
    enqueue_neighbour(study, space, costs(200.3))
    (second,) = waiting()
    assert second == Recipe(Rewrite(), Quantize(scheme="per_channel", rounding="gptq"))
    study.ask()
    measured(second, 200.2, 0.0)
    enqueue_neighbour(study, space, costs(200.3))
    (third,) = waiting()  # no neighbour of `expensive` is left: from another that keeps the limits
    assert third.quantize.rounding == "gptq"
    assert third.quantize.scheme == "per_tensor"


@pytest.mark.parametrize(
    ("sqnr_db", "chosen"),
    [
        ({"a": 40.0, "own": 39.8, "b": 40.02}, "own"),
        ({"a": 40.0, "own": 39.7, "b": 39.9}, "a"),
        ({"a": 39.8, "own": 39.7, "b": 40.0}, "b"),
        ({"a": None, "own": 30.0, "b": 30.1}, "own"),
        ({"a": None, "own": None, "b": None}, None),
    ],
)
def test_the_highest_sqnr_is_recommended_and_replaces_the_configured_only_by_a_clear_gain(
    sqnr_db: dict[str, float | None], chosen: str | None
) -> None:
    recipes = dict(
        zip(
            sqnr_db,
            (Recipe(Rewrite(smooth=s), PLAIN) for s in (0.1, 0.2, 0.3)),
            strict=True,
        )
    )
    measured = [
        result(number, 100.0, 0.3, 40.0 - number, recipe=recipe)
        for number, recipe in enumerate(recipes.values())
    ]

    def confirm(recipe: Recipe) -> tuple[float, float, list[str]]:
        (name,) = [name for name, other in recipes.items() if other == recipe]
        value = sqnr_db[name]
        return (0.0, value, [f"is {name}"]) if value else (1.0, 0.0, [f"not {name}"])

    tuner = SimpleNamespace(
        configured=recipes["own"], confirm=confirm, split=SimpleNamespace(samples=[])
    )
    text = _recommended(measured, cast(Tuner, tuner))
    said = [line for line in text if line.startswith("is ")]
    assert said == ([f"is {chosen}"] if chosen else [])
    assert (
        text[-1] == "no recipe keeps the limits of all formats; more trials, or other gate.budgets"
    ) is (chosen is None)


@pytest.mark.full
def test_trials_of_other_images_or_limits_are_a_study_of_their_own(
    taken: tuple[Path, Split], params: Params, tmp_path: Path
) -> None:
    import optuna

    _, split = taken
    folder = Path(shutil.copytree(split.folder, tmp_path / "tuning"))
    split = dataclasses.replace(split, folder=folder)
    name = _study(optuna, params, split, "ptl").study_name
    assert _study(optuna, params, split, "ptl").study_name == name
    gate = params.gate.model_copy(update={"confidence": 0.9})
    other = params.model_copy(update={"gate": gate})
    assert _study(optuna, other, split, "ptl").study_name != name
    calibration = split.calibration / CALIBRATION_FILE
    fewer = load_pixels(calibration)[1:].copy()
    np.save(calibration, fewer)
    assert _study(optuna, params, split, "ptl").study_name != name


@pytest.mark.full
def test_the_tuning_split_has_no_image_of_the_gate_or_of_calibration(
    taken: tuple[Path, Split], params: Params
) -> None:
    artifacts, split = taken
    seen = read_json(artifacts / "samples" / "samples.json")
    theirs = {*seen["ids"], *seen["calibration_ids"], *seen["calibration_duplicates"]}
    assert len(split.samples) == 8
    assert not theirs & set(split.samples.ids)
    others = {
        content_hash(image)
        for name in ("images.npy", "calibration.npy")
        for image in load_pixels(artifacts / "samples" / name)
    }
    assert not others & {content_hash(image) for image in split.samples.images}
    with (
        tuning_split(params, artifacts, 8),
        pytest.raises(InputError, match="another edge-vit tune or diagnose --fix is running"),
        tuning_split(params, artifacts, 8),
    ):
        pass


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--samples", "0"), "Invalid value for '--samples'"),
        (("--minutes", "nan"), "--minutes"),
        (("--format", "onnx"), "'onnx' is not one of"),
        ((), "samples/samples.json is missing; run `dvc repro`"),
    ],
)
def test_bad_input_ends_with_status_2_and_one_message(
    work: Path, arguments: tuple[str, ...], words: str
) -> None:
    if not arguments:
        (work / "artifacts" / "samples").unlink()
    ran = run(work, "-m", "pipeline.cli", "tune", *arguments)
    assert ran.returncode == 2
    assert words in ran.stderr
    assert "Traceback" not in ran.stderr
    assert not (work / "artifacts" / "tuning" / "trials.db").exists()


def test_a_source_without_other_images_is_said(work: Path, params: Params, tmp_path: Path) -> None:
    from PIL import Image

    from pipeline.contract.files import load_contract
    from pipeline.stages.samples import samples

    source = tmp_path / "few"
    source.mkdir()
    for colour in ("red", "blue"):
        Image.new("RGB", (8, 8), colour).save(source / f"{colour}.png")
    own = params.model_copy(
        update={"samples": params.samples.model_copy(update={"source": source, "calibration": 0})}
    )
    artifacts = work / "artifacts"
    (artifacts / "samples").unlink()
    samples(own.samples, load_contract(artifacts / "checkpoint"), artifacts / "samples")
    with pytest.raises(InputError, match=r"has no images beside the 2 .*; give 8 more"):
        tune(own, artifacts, "ptl", count=8)


def test_without_optuna_it_says_how_to_install_it(
    work: Path, params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match=r"pip install -e '\.\[tune\]'"):
        tune(params, work / "artifacts", "ptl")
