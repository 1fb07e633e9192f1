"""What a recipe is modelled to cost a core, against counts of whole files."""

from __future__ import annotations

import pytest

from pipeline.params import Quantize
from pipeline.quantization.layer_sizes import Layer
from pipeline.tuning.cost_model import DYNAMIC, FLOAT, STATIC, instructions_m, kind

LINEAR, CONVOLUTION = Layer("blocks.0.fc1", 10**6, 10**3), Layer("conv", 10**6, 10**3, linear=False)


@pytest.mark.parametrize(
    ("layer", "key", "quantize", "expected"),
    [
        (LINEAR, "ptl", Quantize(scheme="per_channel"), DYNAMIC),
        (CONVOLUTION, "ptl", Quantize(scheme="per_channel"), FLOAT),
        (CONVOLUTION, "pte", Quantize(scheme="static"), STATIC),
        (LINEAR, "int8_onnx", Quantize(scheme="per_channel", keep_float=("blocks.0.*",)), FLOAT),
        (LINEAR, "ptl", Quantize(scheme="static_symmetric"), STATIC),
        (LINEAR, "ptl", Quantize(scheme="static_symmetric", keep_dynamic=("*",)), DYNAMIC),
        (LINEAR, "pte", Quantize(scheme="static_symmetric"), DYNAMIC),
    ],
)
def test_the_kernel_of_a_layer_follows_from_the_recipe(layer, key, quantize, expected):
    assert kind(layer, key, quantize) == expected


@pytest.mark.parametrize("key", ["ptl", "int8_onnx", "pte"])
def test_the_cost_of_layers_adds_up(key):
    layers = [Layer(f"blocks.{number}.fc1", 10**6, 10**3) for number in range(3)]
    one = instructions_m(key, Quantize(scheme="per_channel"), layers[:1])
    assert one > 0
    assert instructions_m(key, Quantize(scheme="per_channel"), layers) == pytest.approx(3 * one)


def test_the_table_needs_both_layers_of_an_mlp_static():
    layers = [Layer("mlp.fc1", 10**6, 10**6), Layer("mlp.fc2", 10**6, 10**6)]
    costs = [
        instructions_m("ptl", Quantize(scheme="static_symmetric", keep_dynamic=kept), layers)
        for kept in ((), ("mlp.fc1",), ("mlp.fc2",))
    ]
    assert costs[1] == costs[2] > costs[0] + 40
