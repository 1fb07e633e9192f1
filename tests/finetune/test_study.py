from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.errors import ParamsError
from pipeline.finetune import study as studies
from pipeline.finetune.evaluate import Measured
from pipeline.finetune.study import Study, gain, load_study, run_study, summarize, table
from pipeline.metrics.intervals import paired_drop
from tests.finetune.conftest import TINY

CLASSES = ("a", "b")
PHASE = {"image_size": 32, "epochs": 1, "batch_size": 12, "lr": 1e-3}


def measured(right: str) -> Measured:
    """Answers of which ``right`` says, a digit an image, whether they are right."""
    actual = tuple(n % 2 for n in range(len(right)))
    predicted = tuple(a if r == "1" else 1 - a for a, r in zip(actual, right, strict=True))
    return Measured(CLASSES, actual, predicted, "test")


def values(root: Path) -> dict[str, Any]:
    return {
        "data": {"root": str(root), "validation": 0.2, "workers": 0},
        "model": {"architecture": TINY},
        "train": {"phases": [PHASE]},
        "teacher": {"architecture": "test_resnet", "phases": [PHASE]},
        "run": {"precision": "float32", "compile": "off", "device": "cpu", "threads": 1},
        "seeds": [0, 1],
        "methods": [
            {"name": "labels", "distillation": {"kind": "none"}},
            {"name": "soft", "distillation": {"kind": "soft"}},
        ],
    }


def test_a_gain_is_the_drop_the_other_way_round() -> None:
    found = gain(measured("11110000"), measured("11011110"))
    drop = paired_drop(both=3, only_float=1, only_edge=3, neither=1)
    assert found["gain_pp"] == 25.0
    assert (found["low"], found["high"]) == (-drop.interval_pp.high, -drop.interval_pp.low)
    assert found["low"] < found["gain_pp"] < found["high"]


def test_methods_are_held_against_the_first_seed_by_seed() -> None:
    answers = {
        "labels": [measured("1100"), measured("1000")],
        "soft": [measured("1110"), measured("1111")],
    }
    found = summarize(answers, (5, 7))
    assert found["against"] == "labels"
    assert "gains" not in found["methods"]["labels"]
    soft = found["methods"]["soft"]
    assert [run["seed"] for run in soft["runs"]] == [5, 7]
    assert soft["top1"] == 0.875
    assert [one["gain_pp"] for one in soft["gains"]] == [25.0, 75.0]
    assert soft["gain_pp"] == 50.0
    assert soft["gain_interval_pp"]["low"] < 0 < 50 < soft["gain_interval_pp"]["high"]


def test_the_table_has_every_seed() -> None:
    answers = {"labels": [measured("10")] * 2, "soft": [measured("11"), measured("10")]}
    lines = table(summarize(answers, (0, 1))).splitlines()
    assert lines[2].startswith("| labels | 50.00% (50.00% to 50.00%) |  |  |")
    assert "| +25.00 (" in lines[3]
    assert lines[3].count("(") == 4


def test_a_study_goes_on_where_it_was_stopped(
    idx_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.finetune import train as training

    trained: list[Path] = []
    real = training.train

    def watched(params: Any, artifacts: Path, records: Path) -> None:
        if len(trained) == 3:
            raise KeyboardInterrupt
        trained.append(artifacts)
        real(params, artifacts, records)

    monkeypatch.setattr(training, "train", watched)
    study = Study.model_validate(values(idx_root))
    artifacts, record = tmp_path / "study", tmp_path / "study.json"
    with pytest.raises(KeyboardInterrupt):
        run_study(study, artifacts, record)
    assert not record.exists()
    monkeypatch.setattr(training, "train", lambda *given: trained.append(given[1]) or real(*given))
    run_study(study, artifacts, record)
    assert [path.name for path in trained] == ["labels-0", "soft-0", "labels-1", "soft-1"]
    found = json.loads(record.read_text())
    assert found["teacher"]["images"] == 12
    assert all(len(entry["runs"]) == 2 for entry in found["methods"].values())

    other = values(idx_root)
    other["methods"][1]["distillation"]["temperature"] = 2.0
    run_study(Study.model_validate(other), artifacts, record)
    assert [path.name for path in trained[4:]] == ["soft-0", "soft-1"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seeds": [0]}, "seeds"),
        ({"methods": [{"name": "../x", "distillation": {"kind": "none"}}] * 2}, "name"),
        ({"methods": [{"name": "a", "distillation": {"kind": "firm"}}] * 2}, "kind"),
        ({"teacher": {"architecture": "test_resnet"}}, "teacher.phases is missing"),
    ],
)
def test_a_study_that_cannot_be_run_is_refused(
    change: dict[str, Any], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(values(tmp_path) | change))
    with pytest.raises(ParamsError, match=words):
        load_study(path)


def test_the_study_of_the_readme_is_the_one_that_was_run() -> None:
    study = load_study(studies.STUDY_FILE)
    found = json.loads(studies.STUDY_FILE.with_suffix(".json").read_text())
    assert found["seeds"] == list(study.seeds)
    assert set(found["methods"]) == {method.name for method in study.methods}
    readme = Path("docs/fine-tuning.md").read_text()
    in_order = {method.name: found["methods"][method.name] for method in study.methods}
    assert table(found | {"methods": in_order}) in readme
