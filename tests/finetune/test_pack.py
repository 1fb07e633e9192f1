from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pipeline.checkpoints.metadata import METADATA_KEY, info_from_metadata
from pipeline.errors import InputError
from pipeline.finetune import networks
from pipeline.finetune.pack import pack
from pipeline.finetune.params import FinetuneParams
from pipeline.untrusted.state_dict import open_checkpoint
from tests.finetune.conftest import TINY


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = networks.build(TINY, 10, 48)
    (tmp_path / "train").mkdir()
    save_file(model.state_dict(), tmp_path / "train" / "weights.safetensors")
    return tmp_path


def test_equal_weights_are_equal_bytes(params: FinetuneParams, artifacts: Path) -> None:
    packed = {pack(params, artifacts).read_bytes() for _ in range(5)}
    assert len(packed) == 1


def test_weights_are_float16_of_those_trained(params: FinetuneParams, artifacts: Path) -> None:
    trained = open_checkpoint(artifacts / "train" / "weights.safetensors").state
    packed = open_checkpoint(pack(params, artifacts)).state
    assert packed.keys() == trained.keys()
    assert all(torch.equal(packed[key], trained[key].half()) for key in trained)


def test_the_file_says_what_it_is(params: FinetuneParams, artifacts: Path) -> None:
    path = pack(params, artifacts)
    assert path.name == f"{TINY}.finetuned.safetensors"
    metadata = open_checkpoint(path).metadata
    info = info_from_metadata(metadata, path.name)
    assert info.architecture == TINY
    assert info.labels is not None
    assert info.labels[:2] == ("T-shirt/top", "Trouser")
    assert len(info.labels) == 10
    assert info.data == {
        "input_size": (3, 48, 48),
        "crop_pct": 1.0,
        "interpolation": "bicubic",
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
    }


@pytest.mark.parametrize("text", ["not json", "[1]"])
def test_damaged_metadata_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"some\.safetensors: its metadata edge_vit is no"):
        info_from_metadata({METADATA_KEY: text}, "some.safetensors")


def test_weights_that_float16_cannot_hold_are_refused(
    params: FinetuneParams, artifacts: Path
) -> None:
    path = artifacts / "train" / "weights.safetensors"
    state = open_checkpoint(path).state
    state["head.bias"][0] = 1e6
    save_file(state, path)
    with pytest.raises(InputError, match=r"head\.bias holds values that float16 cannot"):
        pack(params, artifacts)
