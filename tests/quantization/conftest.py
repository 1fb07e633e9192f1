"""A small vision transformer, for what does not depend on a network's size."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.contract.files import load_contract
from pipeline.quantization.float_model import empty_model
from pipeline.quantization.storage import write

SIZE = 64


@pytest.fixture(scope="session")
def small(healthy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folders ``rewritten`` and ``samples``: timm's test_vit, random, and eight images."""
    folder = tmp_path_factory.mktemp("small")
    contract = load_contract(healthy / "checkpoint")
    contract = replace(
        contract,
        preprocessing=replace(contract.preprocessing, size=(SIZE, SIZE), resize=SIZE),
        checkpoint=replace(contract.checkpoint, architecture="test_vit"),
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = empty_model(contract, fused_attention=False)
        for parameter in model.parameters():  # offsets and tokens start at zero
            parameter.data += 0.02 * torch.randn_like(parameter)
    write(folder / "rewritten", {}, model.state_dict(), {}, contract)
    (folder / "samples").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (8, SIZE, SIZE, 3), np.uint8)
    np.save(folder / "samples" / "calibration.npy", pixels)
    return folder
