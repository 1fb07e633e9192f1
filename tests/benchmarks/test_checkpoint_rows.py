from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.checkpoints.builders import images, trained, widened
from benchmarks.checkpoints.rows import ROWS, TRAINED, Row, run
from pipeline.formats import FORMATS


def _named(row: Row) -> object:
    mark = pytest.mark.slow if row.slow else pytest.mark.full
    return pytest.param(row, id=f"{row.name}, {row.how}", marks=mark)


@pytest.mark.parametrize("row", [_named(row) for row in ROWS])
def test_each_file_of_a_checkpoint_is_measured_and_none_fails(row: Row, tmp_path: Path) -> None:
    result = run(row, tmp_path)
    if row.family:  # each format a measured file, or a sentence
        assert {*result.files} ^ {*result.impossible} == {*FORMATS}
    else:
        assert (result.failed, result.impossible) == ((), {})


@pytest.mark.full
@pytest.mark.parametrize(("architecture", "width"), [("small", 384), ("base", 768)])
def test_a_widened_network_computes_what_the_trained_one_does(
    architecture: str, width: int
) -> None:
    pixels, _ = images(2, 224, (0.5,) * 3, (0.5,) * 3)
    wide = widened(f"deit_{architecture}_patch16_224", TRAINED)
    with torch.inference_mode():
        found, expected = wide(pixels), trained("deit_tiny_patch16_224", TRAINED)(pixels)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    weight = wide.state_dict()["blocks.0.mlp.fc1.weight"]
    assert weight.shape == (4 * width, width)
    assert not torch.allclose(weight[:, :192], weight[:, 192:384])
