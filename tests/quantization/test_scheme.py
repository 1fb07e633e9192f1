"""A scheme is a description and a module: one that nobody knows goes through all that asks."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch

from pipeline.contract.files import MODEL_FILE, load_contract
from pipeline.models.build import load_weights
from pipeline.params import Quantize
from pipeline.quantization import scheme as schemes
from pipeline.quantization.float_model import empty_model, load_float
from pipeline.quantization.load import float_weights, layer_pairs, load_model, load_restored
from pipeline.quantization.storage import read, write
from pipeline.schemes import SCHEMES, Scheme
from pipeline.stages.quantize import quantize

NAME = "coarse"
STEPS = 64


class Coarse(ModuleType):
    """Float weights on a grid of steps of 1 / ``STEPS``."""

    def quantize(self, params, checkpoint, samples, out):
        model, contract = load_float(checkpoint / MODEL_FILE)
        state = {k: (v * STEPS).round() / STEPS for k, v in model.state_dict().items()}
        write(out, {}, state, {NAME: STEPS, "fused_attention": False}, contract)

    def load(self, contract, state, metadata, source):
        model = empty_model(contract, fused_attention=metadata["fused_attention"])
        load_weights(model, state, source)
        return model

    def restore(self, path, float_path, names):
        model, floats = load_model(path)[0], load_model(float_path)[0]
        for name in names:
            model.set_submodule(name, floats.get_submodule(name))
        return model

    def float_weights(self, float_path):
        return read(float_path)[0]

    def layer_pairs(self, float_path, path):
        model, quantized = load_float(float_path)[0], load_model(path)[0]
        layers = {"head": quantized.get_submodule("head")}
        weights = {name: layer.weight for name, layer in layers.items()}
        return schemes.LayerPairs(model, layers, weights, load_contract(path.parent))


@pytest.fixture
def coarse(monkeypatch):
    monkeypatch.setitem(SCHEMES, NAME, Scheme(NAME, NAME, marker=NAME))
    monkeypatch.setitem(sys.modules, f"{schemes.__package__}.{NAME}", Coarse(NAME))


def test_a_new_scheme_is_quantized_loaded_restored_and_diagnosed(coarse, small, tmp_path):
    params = Quantize().model_copy(update={"scheme": NAME})
    quantize(params, small / "rewritten", small / "samples", tmp_path / "q")
    path, float_path = tmp_path / "q" / MODEL_FILE, small / "rewritten" / MODEL_FILE
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    model, floats = load_model(path)[0], load_model(float_path, fused_attention=False)[0]
    with torch.inference_mode():
        assert not torch.equal(model(images), floats(images))
        names = [name for name, module in model.named_children() if list(module.parameters())]
        restored = load_restored(path, float_path, names)
        restored.cls_token, restored.pos_embed = floats.cls_token, floats.pos_embed
        torch.testing.assert_close(restored(images), floats(images))
    assert float_weights(float_path, path).keys() == model.state_dict().keys()
    pairs = layer_pairs(float_path, path)
    assert torch.equal(pairs.weights["head"], (floats.head.weight * STEPS).round() / STEPS)


def test_other_formats_have_a_new_scheme_too_unless_it_names_another(coarse, monkeypatch):
    params = Quantize().model_copy(update={"scheme": NAME, "keep_dynamic": ("head",)})
    assert params.for_other_runtimes.scheme == NAME
    monkeypatch.setitem(SCHEMES, NAME, Scheme(NAME, NAME, for_other_runtimes="per_channel"))
    other = params.for_other_runtimes
    assert (other.scheme, other.keep_dynamic) == ("per_channel", ())
