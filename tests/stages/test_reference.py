from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline.files import read_json, write_json
from pipeline.params import Reference
from pipeline.stages.reference import reference

pytestmark = pytest.mark.full


@pytest.mark.parametrize("permuted", [False, True])
def test_labels_in_another_order_are_noticed_at_once(
    healthy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], permuted: bool
) -> None:
    samples = Path(shutil.copytree(healthy / "samples", tmp_path / "samples"))
    content = read_json(samples / "samples.json")
    if permuted:
        content["labels"] = [(label + 1) % 10 for label in content["labels"]]
        write_json(samples / "samples.json", content)
    reference(Reference(noise_samples=1), healthy / "checkpoint", samples, tmp_path / "reference")
    said = capsys.readouterr().err
    assert ("more than a guess among 10 classes" in said) == permuted
    assert (tmp_path / "reference" / "logits.npy").is_file()
