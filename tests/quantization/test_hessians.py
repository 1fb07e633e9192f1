"""Statistics from a file are those that an exporter collects, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from safetensors import SafetensorError

from pipeline.errors import ParamsError
from pipeline.models.efficient import to_efficient
from pipeline.params import ExportOnnx, Quantize
from pipeline.quantization import gptq
from pipeline.quantization.hessians import FILE, collect, read, write
from pipeline.stages.hessians import hessians
from tests.quantization.test_symmetric import PREPROCESSING

KEPT = ("blocks.0.*",)


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("samples")
    pixels = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), dtype=np.uint8)
    np.save(folder / "calibration.npy", pixels)
    return folder


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    model = timm.create_model("deit_tiny_patch16_224", num_classes=3, depth=2, img_size=64)
    return to_efficient(model.eval())


def test_a_file_of_all_layers_gives_each_exporter_what_it_would_collect(network, samples, tmp_path):
    whole = collect(network, (), samples, PREPROCESSING, "quantize.rounding")
    write(whole, tmp_path / "hessians")
    expected = collect(network, KEPT, samples, PREPROCESSING, "quantize.rounding")
    found = read(tmp_path / "hessians", gptq.linears(network, KEPT))
    assert list(found) == list(expected)
    assert set(whole) - set(found) == {
        f"blocks.0.{name}" for name in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    }
    for name, stats in expected.items():
        assert torch.equal(found[name].hessian, stats.hessian)
        assert torch.equal(found[name].max_abs, stats.max_abs)


def test_without_calibration_images_the_parameter_that_needs_them_is_named(network, tmp_path):
    np.save(tmp_path / "calibration.npy", np.zeros((0, 64, 64, 3), np.uint8))
    with pytest.raises(ParamsError, match=r"quantize\.rounding needs calibration images"):
        collect(network, (), tmp_path, PREPROCESSING, "quantize.rounding")


@pytest.mark.parametrize(
    ("quantize", "export_onnx"),
    [
        (Quantize(scheme="per_channel"), ExportOnnx()),
        (Quantize(scheme="static", rounding="gptq"), ExportOnnx(smooth_hidden=0.5)),
    ],
)
def test_nothing_is_collected_for_parameters_that_need_nothing(
    quantize, export_onnx, healthy, tmp_path
):
    hessians(quantize, export_onnx, healthy / "checkpoint", tmp_path, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [FILE]
    with pytest.raises(SafetensorError):
        read(tmp_path / "out", ["head"])
