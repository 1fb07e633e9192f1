from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.checkpoints.zoo import Zoo
from pipeline.errors import ParamsError
from pipeline.finetune.params import FinetuneParams
from pipeline.params import Params, load, load_params

ROOT = Path(__file__).parents[1]
VALUES = yaml.safe_load((ROOT / "params.yaml").read_text())
ENTRY = {"architecture": "a", "source": "s", "sha256": "a1311bcf", "license": "MIT", "labels": []}


def explained(tmp_path: Path, key: str, value: Any) -> str:
    """The message for ``params.yaml`` with one key changed, without the folder."""
    values = copy.deepcopy(VALUES)
    *above, last = key.split(".")
    place = values
    for part in above:
        place = place[part]
    place[last] = value
    return refusal(tmp_path, yaml.safe_dump(values))


def refusal(tmp_path: Path, text: str) -> str:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(ParamsError) as caught:
        load_params(path)
    return str(caught.value).replace(f"{tmp_path}/", "")


def test_the_shipped_parameters_are_valid() -> None:
    assert load_params(ROOT / "params.yaml").gate.channel == "candidate"


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("gate.budgets.ptl.top1_agreement_min", 1.2, "at most 1, got 1.2"),
        ("gate.budgets.onnx.top1_agreement_min", -1, "at least 0, got -1"),
        ("gate.confidence", 1.5, "less than 1, got 1.5"),
        ("gate.confidence", 0.89, "at least 0.9, got 0.89"),
        ("gate.budgets.ptl.accuracy_drop_max_pp", 0, "greater than 0, got 0"),
        ("gate.budgets.pte.size_ratio_max", 0, "greater than 0, got 0"),
        ("gate.noise_multiple", 0.2, "at least 1, got 0.2"),
        ("latency.runs", 9, "at least 10, got 9"),
        ("samples.limit", 0, "at least 1, got 0"),
        ("samples.limit", "many", "a whole number, got 'many'"),
        ("samples.limit", "7", "a whole number, got '7'"),
        ("samples.limit", 2.5, "a whole number, got 2.5"),
        ("samples.limit", True, "a whole number, got True"),
        ("samples.limit", None, "a whole number, got None"),
        ("gate.confidence", True, "a number, got True"),
        ("gate.confidence", float("nan"), "a finite number, got nan"),
        ("gate.budgets.ptl.sqnr_min_db", float("nan"), "a finite number, got nan"),
        ("gate.budgets.ptl.sqnr_min_db", -float("inf"), "a finite number, got -inf"),
        ("quantize.fused_attention", "yes", "true or false, got 'yes'"),
        ("quantize.keep_float", "head", "a list, got 'head'"),
        ("quantize.keep_float", [3], "text (put it in quotes), got 3"),
        ("model.checkpoint", "", "text that is not empty, got ''"),
        ("model.sha256", 12345678, "text (put it in quotes), got 12345678"),
        ("model.sha256", "XYZ", "8 to 64 lower-case hex digits or trust-first-use, got 'XYZ'"),
        ("release.version", "1.0", "MAJOR.MINOR.PATCH, such as 1.0.0, got '1.0'"),
        ("release.version", "1.0.0 ", "MAJOR.MINOR.PATCH, such as 1.0.0, got '1.0.0 '"),
        ("gate.channel", "nightly", "'candidate' or 'release', got 'nightly'"),
        ("samples", None, "a group of keys, got None"),
        ("gate.budgets", [], "a group of keys, got []"),
        ("gate.budgets.ptl", 3, "a group of keys, got 3"),
    ],
)
def test_a_wrong_value_is_explained_with_its_key_and_what_is_allowed(
    tmp_path: Path, key: str, value: Any, words: str
) -> None:
    where = f"{key}.0" if value == [3] else key
    assert explained(tmp_path, key, value) == f"params.yaml: {where} must be {words}"


def test_a_list_that_is_too_short_says_which_place_is_missing(tmp_path: Path) -> None:
    assert explained(tmp_path, "model.background", [1, 2]).endswith(
        "model.background.2 is missing; add it"
    )


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("sampels", "samples"),
        ("samples.limt", "limit"),
        ("gate.chanel", "channel"),
        ("gate.budgets.ptl.top1_agrement_min", "top1_agreement_min"),
        ("release.verson", "version"),
    ],
)
def test_a_misspelt_key_is_named_with_the_one_that_was_meant(
    tmp_path: Path, key: str, meant: str
) -> None:
    expected = f"params.yaml: {key} is not a parameter; did you mean {meant}?"
    assert explained(tmp_path, key, {}) == expected


def test_a_misspelt_format_is_named_with_the_one_that_was_meant(tmp_path: Path) -> None:
    assert explained(tmp_path, "gate.budgets.plt", {}) == (
        "params.yaml: gate.budgets.plt: plt is not a format; did you mean ptl?"
    )


def test_formats_are_known_and_named_once(tmp_path: Path) -> None:
    assert explained(tmp_path, "formats", ["onnx", "plt"]) == (
        "params.yaml: formats.1: plt is not a format; did you mean ptl?"
    )
    assert explained(tmp_path, "formats", ["pte", "pte"]) == (
        "params.yaml: formats: pte is named more than once"
    )
    assert explained(tmp_path, "formats", []) == (
        "params.yaml: formats must be a list of at least 1, got []"
    )


def test_budgets_are_those_of_the_chosen_formats(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(VALUES | {"formats": ["pte", "ptl"]}))
    params = load_params(path)
    assert params.formats == ("ptl", "pte")
    assert set(params.gate.budgets) == {"ptl", "pte"}


def test_a_chosen_format_needs_a_budget(tmp_path: Path) -> None:
    budgets = {k: v for k, v in VALUES["gate"]["budgets"].items() if k != "pte"}
    assert explained(tmp_path, "gate.budgets", budgets) == (
        "params.yaml: gate: budgets has none for pte; add gate.budgets.pte, or take pte out of "
        "formats"
    )


def test_a_key_like_no_other_is_to_be_taken_out(tmp_path: Path) -> None:
    assert explained(tmp_path, "latency.zzz", 1) == (
        "params.yaml: latency.zzz is not a parameter; take it out"
    )


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    values = {key: value for key, value in VALUES.items() if key != "release"}
    assert refusal(tmp_path, yaml.safe_dump(values)) == "params.yaml: release is missing; add it"


def test_each_problem_has_a_line(tmp_path: Path) -> None:
    values = copy.deepcopy(VALUES)
    values["samples"]["limit"], values["latency"]["runs"] = 0, 1
    assert len(refusal(tmp_path, yaml.safe_dump(values)).splitlines()) == 2


def test_an_empty_a_broken_and_a_missing_file_are_explained(tmp_path: Path) -> None:
    assert refusal(tmp_path, "") == "params.yaml: the file must be a group of keys, got None"
    assert refusal(tmp_path, "a: [1").startswith("params.yaml is not YAML: ")
    with pytest.raises(ParamsError, match="is missing; run from the repository's root"):
        load_params(tmp_path / "none.yaml")


def test_numbers_in_scientific_notation_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(VALUES).replace("noise_multiple: 10.0", "noise_multiple: 4e+0"))
    assert load_params(path).gate.noise_multiple == 4


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("labels", "imgnet", "labels must be 'imagenet' or a list, got 'imgnet'"),
        ("input_size", [3, 224, 0], "input_size.2 must be at least 1, got 0"),
        ("input_size", [2, 224, 224], "input_size.0 must be 1 or 3, got 2"),
        ("mean", [1, 2, 0], "mean.1 must be at most 1, got 2"),
        ("sha256", "xyz", "sha256 must be 8 to 64 lower-case hex digits, got 'xyz'"),
        ("licence", "MIT", "licence is not a parameter; did you mean license?"),
        ("published", {"datset": ""}, "published.datset is not a parameter; did you mean dataset?"),
    ],
)
def test_entries_of_the_zoo_are_explained_alike(
    tmp_path: Path, key: str, value: Any, words: str
) -> None:
    path = tmp_path / "zoo.yaml"
    path.write_text(yaml.safe_dump({"checkpoints": {"mine": ENTRY | {key: value}}}))
    with pytest.raises(ParamsError) as caught:
        load(path, Zoo)
    assert str(caught.value).splitlines()[0] == f"{path}: checkpoints.mine.{words}"


def test_keys_inside_lists_are_explained_alike(tmp_path: Path) -> None:
    values = yaml.safe_load((ROOT / "finetune" / "params.yaml").read_text())
    values["train"]["phases"][0]["epoch"] = 1
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(values))
    words = r"train\.phases\.0\.epoch is not a parameter; did you mean epochs\?"
    with pytest.raises(ParamsError, match=words):
        load(path, FinetuneParams)


def test_parameters_survive_being_written_and_read(tmp_path: Path) -> None:
    params = load_params(ROOT / "params.yaml")
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(params.model_dump(mode="json")))
    assert load(path, Params) == params
