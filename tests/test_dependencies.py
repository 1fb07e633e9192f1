"""dvc.yaml lists the code that each stage can run: a change of any of it makes the stage stale."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.import_closure import ROOT, closure, code_dependencies

STAGES = {
    f"{path}:{name}": stage
    for path in ("dvc.yaml", "finetune/dvc.yaml")
    for name, stage in yaml.safe_load((ROOT / path).read_text())["stages"].items()
}


@pytest.mark.parametrize("stage", STAGES.values(), ids=STAGES)
def test_a_stage_depends_on_all_code_that_it_imports_and_on_no_other(stage):
    listed = [dep for dep in stage["deps"] if dep.startswith("pipeline/")]
    assert len(listed) == len(set(listed))
    assert set(listed) == code_dependencies(stage["cmd"].split()[-1])


def test_the_closure_has_what_is_imported_late_and_the_data_beside():
    files = closure("pipeline.stages.fetch")
    assert Path("pipeline/checkpoints/zoo.yaml") in files
    assert Path("pipeline/errors.py") in files
    assert Path("pipeline/stages/gate.py") not in files


def test_what_formats_name_counts_where_it_is_resolved():
    runtimes = {Path(f"pipeline/runtimes/{name}.py") for name in ("ptl", "onnx", "pte")}
    assert runtimes <= closure("pipeline.stages.parity")
    assert not runtimes & closure("pipeline.stages.fetch")
    assert Path("pipeline/export/pte.py") in closure("pipeline.stages.export_executorch")
