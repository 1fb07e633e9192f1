"""Formats that params.yaml leaves out: not made, measured, judged or published."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline import paths
from pipeline.errors import InputError
from pipeline.params import Params
from pipeline.paths import Recorded
from pipeline.release.verification import verify
from pipeline.stages.chain import run as run_stages
from pipeline.stages.chain import stages_of
from pipeline.stages.gate import gate
from pipeline.stages.publish import publish
from pipeline.stages.report import report

RECORDED = Recorded(Path("none"), Path("none"))
MADE_OF = ("checkpoint", "samples", "reference", "rewritten")
MEASURING = ("golden", "parity", "latency")


def chosen(params: Params, *formats: str) -> Params:
    return Params.model_validate(params.model_dump() | {"formats": formats})


def started(healthy: Path, folder: Path) -> Path:
    """What every format is made of, linked."""
    folder.mkdir()
    for name in MADE_OF:
        (folder / name).symlink_to(healthy / name)
    return folder


def exporters() -> Sequence[str]:
    return [stage for stage in stages_of() if stage != "rewrite"]


def test_a_stage_whose_format_is_off_leaves_a_note_and_imports_no_library(
    params: Params, tmp_path: Path
) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from pipeline.params import Params; from pipeline.stages.chain import run\n"
        f"params = Params.model_validate_json({chosen(params, 'onnx').model_dump_json()!r})\n"
        f"run(params, Path({str(tmp_path)!r}), 'quantize', 'script', 'optimize', 'lite',"
        " 'export_executorch', script_apart=False)\n"
        "print([m for m in ('torch', 'executorch', 'torchao') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stdout.strip() == "[]", ran.stderr
    for name in ("quantized", "scripted", "optimized", "lite"):
        assert [p.name for p in (tmp_path / name).iterdir()] == [paths.OFF_FILE]
    note = tmp_path / "executorch" / "README.txt"
    assert note.read_text() == "format pte is off: it is not in formats of params.yaml\n"
    with pytest.raises(InputError, match="format pte is off: it is not in formats"):
        paths.delivered_file(tmp_path, "pte")
    assert paths.delivered_files(tmp_path) == {}


def test_no_statistics_are_collected_for_formats_that_do_not_round(
    params: Params, healthy: Path, tmp_path: Path
) -> None:
    rounding = params.model_copy(
        update={"quantize": params.quantize.model_copy(update={"rounding": "gptq"})}
    )
    artifacts = started(healthy, tmp_path / "artifacts")
    run_stages(chosen(rounding, "ptl", "onnx"), artifacts, "hessians")
    (file,) = (artifacts / "hessians").iterdir()
    assert file.stat().st_size < 100


@pytest.mark.full
@pytest.mark.parametrize("key", ["onnx", "int8_onnx"])
def test_either_onnx_file_is_made_without_the_other_and_is_the_same(
    params: Params, healthy: Path, tmp_path: Path, key: str
) -> None:
    artifacts = started(healthy, tmp_path / "artifacts")
    run_stages(chosen(params, key), artifacts, "export_onnx")
    (path,) = paths.delivered_files(artifacts).values()
    assert list(path.parent.iterdir()) == [path]
    assert path.read_bytes() == paths.delivered_file(healthy, key).read_bytes()


@pytest.mark.full
def test_a_run_of_one_format_is_published_with_one_model_file(
    params: Params, healthy: Path, tmp_path: Path
) -> None:
    params = chosen(params, "onnx")
    artifacts = started(healthy, tmp_path / "artifacts")
    run_stages(params, artifacts, *exporters(), *MEASURING)
    verdict = gate(params, artifacts, RECORDED, artifacts / "verdict")
    assert verdict.passed
    named = {c.subject for c in verdict.criteria}
    assert {"rewrite", "export_onnx", ".onnx"} <= named
    assert not named & {".ptl", ".int8.onnx", ".pte", "quantize", "script", "optimize", "lite"}
    page = report(params, artifacts, RECORDED, artifacts / "reports").read_text()
    page = page.split("</style>")[1]
    assert ".onnx" in page
    assert ".pte" not in page
    release = publish(params, artifacts, RECORDED, artifacts / "release")
    files = [p.name for p in release.iterdir() if p.suffix in (".ptl", ".onnx", ".pte")]
    assert files == [paths.delivered_file(artifacts, "onnx").name]
    assert verify(release) == []


def test_a_chosen_format_without_a_file_and_a_file_that_is_not_chosen_are_refused(
    params: Params, artifacts: Path
) -> None:
    with pytest.raises(InputError, match=r"executorch has a \.pte, and pte is not in formats"):
        gate(chosen(params, "ptl", "onnx", "int8_onnx"), artifacts, RECORDED, artifacts / "verdict")
    run_stages(chosen(params, "ptl"), artifacts, "export_executorch")
    with pytest.raises(InputError, match=r"executorch has no \.pte, and pte is in formats"):
        gate(params, artifacts, RECORDED, artifacts / "verdict")
