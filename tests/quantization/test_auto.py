"""``quantize.scheme: auto`` chooses by what the network is made of."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import paths
from pipeline.contract.files import CONTRACT_FILE
from pipeline.formats import FORMATS, quantized
from pipeline.params import Params, Quantize, load_params
from pipeline.quantization.auto import settle
from pipeline.stages import chain
from tests.contract import builders

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("architecture", "size", "scheme"),
    [
        ("test_vit", 160, "static_symmetric"),
        ("mobilevitv2_050", 256, "static"),  # TorchScript has no dynamic int8 of it
        ("efficientvit_b0", 224, "static"),  # most weights are in its head's linear layers
        ("levit_128s", 224, "per_channel"),  # linear layers, in another form
    ],
)
def test_a_scheme_suits_its_network(tmp_path: Path, architecture: str, size: int, scheme: str):
    contract = builders.contract(
        checkpoint=builders.checkpoint(architecture=architecture),
        preprocessing=builders.preprocessing(size=(size, size)),
    )
    (tmp_path / CONTRACT_FILE).write_text(contract.to_json())
    settled = settle(Quantize(keep_float=("head",)), tmp_path)
    assert settled == Quantize(scheme=scheme, keep_float=("head",))


def test_a_scheme_that_is_named_is_kept_and_auto_has_no_properties(tmp_path: Path):
    named = Quantize(scheme="per_tensor")
    assert settle(named, tmp_path) is named
    with pytest.raises(ValueError, match="not settled"):
        _ = Quantize().static


@pytest.mark.full
def test_a_convolutional_checkpoint_of_the_zoo_needs_nothing_but_its_name(tmp_path: Path):
    values = load_params(ROOT / "params.yaml").model_dump()
    values["model"]["checkpoint"] = "mobilevitv2_050.fashion_mnist"
    values["samples"] |= {
        "source": ROOT / "embedded" / "fashion_mnist",
        "limit": 20,
        "calibration": 16,
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        chain.run(Params.model_validate(values), tmp_path, "fetch", "samples", *chain.stages_of())
    made = paths.delivered_files(tmp_path)
    assert set(made) == set(FORMATS)
    for key in quantized():
        assert "-static-" in made[key].name
