"""Rounding errors that make up for each other, and channels that are divided before int8."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline.models.hooks import split
from pipeline.quantization.gptq import (
    STEPS,
    divide_hidden,
    input_stats,
    linears,
    round_weights,
    rounded,
)

pytestmark = pytest.mark.full


def inputs(rows: int = 400, channels: int = 24) -> torch.Tensor:
    """Values of which a few stand for all, as those of a network's channels do."""
    few = torch.randn(rows, 6, generator=torch.Generator().manual_seed(0))
    mixed = few @ torch.randn(6, channels, generator=torch.Generator().manual_seed(1))
    return mixed + 0.05 * torch.randn(rows, channels, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def weight() -> torch.Tensor:
    return torch.randn(10, 24, generator=torch.Generator().manual_seed(3))


def nearest(weight: torch.Tensor) -> torch.Tensor:
    step = weight.abs().amax(1, keepdim=True) / STEPS
    return (weight / step).round() * step


def test_answers_lose_a_fraction_of_what_they_lose_by_nearest(weight: torch.Tensor) -> None:
    x, other = inputs().split(200)
    found = rounded(weight, x.T @ x)
    for rows in (x, other):
        lost = [float((rows @ (w - weight).T).square().mean()) for w in (found, nearest(weight))]
        assert lost[0] < 0.2 * lost[1]


@pytest.mark.parametrize("per_channel", [True, False])
def test_weights_lie_on_the_grid_that_exporters_round_to(
    weight: torch.Tensor, per_channel: bool
) -> None:
    x = inputs()
    found = rounded(weight, x.T @ x, per_channel=per_channel)
    furthest = [w.abs().amax(1, keepdim=True) if per_channel else w.abs().amax()
                for w in (weight, found)]  # fmt: skip
    torch.testing.assert_close(furthest[1], furthest[0])
    steps = found / (furthest[1] / STEPS)
    torch.testing.assert_close(steps, steps.round(), atol=1e-3, rtol=0)
    assert steps.abs().max() <= STEPS + 1e-3
    assert not torch.equal(steps.round(), (weight / (furthest[0] / STEPS)).round())


@pytest.mark.parametrize("hessian", [torch.eye(24), torch.zeros(24, 24)])
def test_inputs_that_say_nothing_of_each_other_round_to_the_nearest(
    weight: torch.Tensor, hessian: torch.Tensor
) -> None:
    torch.testing.assert_close(rounded(weight, hessian), nearest(weight))


def test_more_columns_than_are_rounded_at_once() -> None:
    x = inputs(600, 300)
    weight = torch.randn(4, 300, generator=torch.Generator().manual_seed(4))
    lost = [float((x @ (w - weight).T).square().mean())
            for w in (rounded(weight, x.T @ x), nearest(weight))]  # fmt: skip
    assert lost[0] < 0.2 * lost[1]


def test_a_row_of_zeros_stays(weight: torch.Tensor) -> None:
    weight[3] = 0
    x = inputs()
    assert torch.equal(rounded(weight, x.T @ x)[3], torch.zeros(24))


@pytest.fixture
def model() -> nn.Module:
    import timm

    torch.manual_seed(0)
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
    return timm.create_model("vit_tiny_patch16_224", num_classes=5, **sizes).eval()


def test_watching_sees_all_batches(model: nn.Module) -> None:
    x = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    names = linears(model, ("blocks.1.*", "head"))
    assert names == [f"blocks.0.{n}" for n in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")]
    once, twice = input_stats(model, names, [x]), input_stats(model, names, x.split(2))
    for name in names:
        torch.testing.assert_close(twice[name].hessian, once[name].hessian, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(twice[name].max_abs, once[name].max_abs)


def test_divided_channels_change_no_answer(model: nn.Module) -> None:
    x = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    names = linears(model, ("blocks.1.mlp.fc2",))
    expected, given = model(x), input_stats(model, names, [x])
    before = copy.deepcopy(given)
    divide_hidden(model, given, 0.5)
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
    now = input_stats(model, names, [x])
    for name in names:
        torch.testing.assert_close(now[name].hessian, given[name].hessian, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(now[name].max_abs, given[name].max_abs, rtol=1e-4, atol=1e-6)
    layer = "blocks.0.mlp.fc2"
    spread = [float(g[layer].max_abs.max() / g[layer].max_abs.median()) for g in (before, given)]
    assert spread[1] < 0.97 * spread[0]
    assert type(model.get_submodule("blocks.1.mlp.act")) is nn.GELU


def test_rounding_that_compensates_errors_has_a_higher_sqnr(model: nn.Module) -> None:
    x, other = torch.randn(64, 3, 32, 32, generator=torch.Generator().manual_seed(0)).split(32)
    plain = copy.deepcopy(model)
    names = linears(model, ())
    for name in names:
        layer = plain.get_submodule(name)
        layer.weight.data = nearest(layer.weight.data)
    with torch.inference_mode():
        expected = model(other)
        round_weights(model, input_stats(model, names, [x]), per_channel=True)
        lost = [float((m(other) - expected).square().mean()) for m in (model, plain)]
    assert lost[0] < 0.7 * lost[1]


@pytest.mark.parametrize("rounding", ["nearest", "gptq"])
def test_the_files_have_the_weights_that_were_rounded(
    small: Path, tmp_path: Path, rounding: str
) -> None:
    import numpy as np
    import onnx
    from onnx import numpy_helper

    from pipeline.contract.files import MODEL_FILE
    from pipeline.images.samples import calibration_input
    from pipeline.models.efficient import to_efficient
    from pipeline.models.tracing import plain
    from pipeline.params import ExportOnnx, Quantize, load_params
    from pipeline.quantization.load import load_model
    from pipeline.stages.chain import run

    for name in ("rewritten", "samples"):
        (tmp_path / name).symlink_to(small / name)
    changed = {
        "quantize": Quantize(scheme="per_channel", rounding=rounding),
        "export_onnx": ExportOnnx(operators="standard"),
        "formats": ("int8_onnx",),
    }
    run(load_params().model_copy(update=changed), tmp_path, "export_onnx")
    (path,) = (tmp_path / "onnx_int8").iterdir()
    arrays = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    found = {
        array.tobytes() for array in arrays.values() if array.dtype == np.int8 and array.ndim == 2
    }
    model, contract = load_model(small / "rewritten" / MODEL_FILE, fused_attention=False)
    model = to_efficient(plain(model))
    names = linears(model, ())
    images = calibration_input(small / "samples", contract.preprocessing)
    for name, its in input_stats(model, names, split(images)).items():
        layer = model.get_submodule(name)
        step = layer.weight.abs().amax(1, keepdim=True) / STEPS
        nearby = layer.weight if rounding == "nearest" else rounded(layer.weight.data, its.hessian)
        expected = (nearby / step).round().to(torch.int8).T.contiguous().numpy()
        assert expected.tobytes() in found, name
