"""Scheme ``static_symmetric``: what its form computes, its int8, and what comes out as a file."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import timm
import torch
from safetensors.numpy import load_file
from torch import nn

from pipeline.errors import ParamsError
from pipeline.images.preprocessing import normalize
from pipeline.images.samples import SampleSet
from pipeline.metrics.measures import weight_error_steps
from pipeline.models import efficient
from pipeline.params import Params, Quantize
from pipeline.quantization import symmetric_layers
from pipeline.quantization.ranges import Range
from pipeline.quantization.symmetric_calibration import calibrate
from pipeline.quantization.symmetric_layers import LayerArrays
from pipeline.runtimes import load
from pipeline.stages.chain import run as run_stages
from pipeline.stages.quantize import quantize
from tests.conftest import ROOT
from tests.contract import builders

MODEL = "model.safetensors"
STAGES = ("quantize", "script", "optimize", "lite")
PREPROCESSING = builders.preprocessing(size=(64, 64), resize=64, crop_pct=1.0)
PIXELS = torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(0))
IMAGES = torch.from_numpy(normalize(PIXELS.permute(0, 2, 3, 1).byte().numpy(), PREPROCESSING))
KINDS = {
    "deit": ("deit_tiny_patch16_224", {}, 9),
    "distilled": ("deit_tiny_distilled_patch16_224", {}, 9),
    "average": ("vit_tiny_patch16_224", {"global_pool": "avg"}, 9),
    "pre_norm": ("vit_tiny_patch16_224", {"pre_norm": True, "init_values": 0.1}, 9),
    "qk_norm": ("vit_tiny_patch16_224", {"qk_norm": True}, 5),  # attention stays as it is
    "no_qkv_bias": ("vit_tiny_patch16_224", {"qkv_bias": False}, 9),
}


@pytest.fixture(scope="module")
def run(params, healthy, tmp_path_factory):
    """The embedded DeiT-Tiny quantized so, on few calibration images, up to its ``.ptl``."""
    values = params.model_dump()
    values["quantize"]["scheme"] = "static_symmetric"
    artifacts = tmp_path_factory.mktemp("symmetric") / "artifacts"
    artifacts.mkdir()
    for name in ("checkpoint", "samples", "rewritten", "reference"):
        (artifacts / name).symlink_to(healthy / name)
    run_stages(Params.model_validate(values), artifacts, *STAGES)
    return artifacts


def made(kind: str) -> nn.Module:
    architecture, extra, _ = KINDS[kind]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        timm.layers.set_fused_attn(False)
        model = timm.create_model(architecture, num_classes=10, depth=2, img_size=64, **extra)
        timm.layers.set_fused_attn(True)
        for parameter in model.parameters():
            parameter.data += 0.02 * torch.randn_like(parameter)
    return model.eval()


def sqnr_db(expected: torch.Tensor, found: torch.Tensor) -> float:
    signal = expected.double().square().sum()
    return float(10 * torch.log10(signal / (expected.double() - found).square().sum()))


@pytest.mark.parametrize("kind", KINDS)
def test_the_form_answers_as_the_model_does_and_int8_nearly(kind):
    model = made(kind)
    with torch.inference_mode():
        expected = model(IMAGES)
        shaped = efficient.for_static_int8(copy.deepcopy(model))
        assert sqnr_db(expected, shaped(IMAGES)) > 70
        names = efficient.static_layers(shaped)
        assert len(names) == KINDS[kind][2]
        found = calibrate(shaped, names, [IMAGES], PREPROCESSING)
        assert sqnr_db(expected, symmetric_layers.install(shaped, *found)(IMAGES)) > 25


@pytest.mark.parametrize("largest", [1.0, 20.0])
def test_unnormalized_softmax_are_a_softmax_but_for_the_rows_factor(largest):
    scores = largest * torch.randn(3, 50, 50, generator=torch.Generator().manual_seed(0))
    expected = (0.125 * scores).softmax(-1)
    found = efficient.unnormalized_softmax(scores.clone(), 0.125)
    found = found / found.sum(-1, keepdim=True)
    assert sqnr_db(expected, found) > 60
    assert (found - expected).abs().max() < 1e-3


def test_unnormalized_softmax_of_scores_far_apart_are_finite_and_not_negative():
    found = efficient.unnormalized_softmax(torch.tensor([[0.0, -1e6, -800.0]]), 1.0)
    assert torch.isfinite(found).all()
    assert found[0, 1] <= found[0, 0] * 2.0**-60


def layer_of(
    generator: torch.Generator, out: int, inputs: int, **more: torch.Tensor
) -> LayerArrays:
    """A static layer whose rows reach differently far, with one ratio of steps."""
    scale = torch.logspace(-4, -2, out, dtype=torch.float64)
    return LayerArrays(
        weight=torch.randint(-127, 128, (out, inputs), generator=generator).to(torch.int8),
        scale=scale,
        bias=(300 * scale * torch.randn(out, generator=generator)).float(),
        output_scale=(9 * scale).float(),
        output_offset=(90 * scale * torch.randn(out, generator=generator)).float(),
        **more,
    )


@pytest.mark.parametrize("moved", [False, True])
def test_a_static_layer_is_its_float_layer_of_rounded_values(moved):
    """Against the arithmetic of quantization, written out in float64."""
    generator = torch.Generator().manual_seed(0)
    columns, shift = torch.linspace(0.5, 2.0, 192), 0.1 * torch.randn(192, generator=generator)
    arrays = layer_of(
        generator, 96, 192, **({"input_scale": columns, "input_offset": shift} if moved else {})
    )
    x = torch.randn(7, 192, generator=generator)
    given = Range.between(-3.0, 4.0)
    found = symmetric_layers.StaticLinear(arrays, given)(x)

    put = x / columns + shift if moved else x
    codes = (put.double() / given.scale).round().add(given.zero_point).clamp(0, 255)
    taken = (codes - given.zero_point) * given.scale - (shift.double() if moved else 0)
    exact = taken @ (arrays.weight.double() * arrays.scale[:, None]).T + arrays.bias.double()
    unit, middle = arrays.output_scale.double(), arrays.output_offset.double()
    wanted = exact.clamp(middle - 128 * unit, middle + 127 * unit)
    assert ((found - wanted).abs() <= 0.51 * unit).all()
    assert ((exact - wanted).abs() > 0).any()  # some are cut
    assert ((exact - wanted).abs() == 0).float().mean() > 0.5


@pytest.mark.parametrize("bias", [True, False])
def test_the_table_is_the_activation_of_every_code(bias):
    model = made("deit")
    if not bias:
        model.blocks[0].mlp.fc1.bias = None
    shaped = efficient.for_static_int8(model)
    names = ["blocks.0.mlp.fc1", "blocks.0.mlp.fc2"]
    arrays, ranges = calibrate(shaped, names, [IMAGES], PREPROCESSING)
    x = torch.randn(1, 9, 192, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        first, second = (symmetric_layers.StaticLinear(arrays[n], ranges[n]) for n in names)
        expected = second(shaped.blocks[0].mlp.act(first(x)))
        found = symmetric_layers.install(shaped, arrays, ranges).blocks[0].mlp(x)
    assert type(shaped.blocks[0].mlp) is symmetric_layers.TableMlp
    assert len(shaped.blocks[0].mlp.table) <= 16 * 256
    unit = arrays[names[1]].output_scale
    assert ((found - expected).abs() <= 1.01 * unit).all()  # a code, where rounding is tied
    assert (found != expected).float().mean() < 0.05


def test_patches_are_pixels_without_loss():
    """Every 8-bit image is given to the patch embedding as it is."""
    shaped = efficient.for_static_int8(made("deit"))
    arrays, ranges = calibrate(shaped, [efficient.PATCHES], [IMAGES], PREPROCESSING)
    layer = symmetric_layers.StaticLinear(arrays[efficient.PATCHES], ranges[efficient.PATCHES])
    given = shaped.patch_embed.patches(IMAGES)
    codes = layer.quantized(torch.addcmul(layer.input_offset, given, layer.input_factor)).int_repr()
    assert torch.equal(codes.int() + 128, shaped.patch_embed.patches(PIXELS).int())


@pytest.mark.full
def test_every_static_layer_is_int8_within_half_a_step_of_each_part(healthy, run):
    floats, arrays = load_file(healthy / "rewritten" / MODEL), load_file(run / "quantized" / MODEL)
    scales = [key for key in arrays if key.endswith(".scale")]
    assert len(scales) == 12 * 4 + 2
    for name in (key.removesuffix(".scale") for key in scales):
        weight = floats[f"{name}.weight"]
        columns = arrays.get(f"{name}.columns", np.ones(weight[0].size, np.float32))
        scaled = weight * columns.reshape(weight.shape[1:])
        error = weight_error_steps(scaled, arrays[f"{name}.weight"], arrays[f"{name}.scale"])
        assert error <= 0.501
        assert len(arrays[f"{name}.scale"]) == len(weight)


@pytest.mark.full
def test_every_step_after_quantization_answers_alike(run):
    paths = (run / "scripted" / "model.pt", run / "optimized" / "model.pt", _ptl(run))
    expected = load(run / "quantized" / MODEL)
    samples = SampleSet.load(run / "samples").images[:2]
    images = normalize(samples, expected.contract.preprocessing)
    for path in paths:
        for image in images[:, None]:
            np.testing.assert_allclose(load(path).logits(image), expected.logits(image), atol=1e-3)


@pytest.mark.full
def test_the_file_is_smaller_than_the_dynamic_one_and_agrees_with_float(healthy, run):
    assert _ptl(run).stat().st_size < 0.3 * (healthy / "checkpoint" / MODEL).stat().st_size
    runtime = load(_ptl(run))
    artefact = runtime.contract.artefact
    assert artefact is not None
    assert artefact.quantization == "static int8, per_channel weights"
    images = normalize(SampleSet.load(run / "samples").images[:24], runtime.contract.preprocessing)
    found = np.concatenate([runtime.logits(image) for image in images[:, None]])
    reference = np.load(healthy / "reference" / "logits.npy")[:24]
    assert (found.argmax(1) == reference.argmax(1)).mean() >= 0.95
    assert sqnr_db(torch.from_numpy(reference), torch.from_numpy(found)) > 25  # of eight images


@pytest.mark.full
def test_the_number_of_threads_changes_no_byte(healthy, run, tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(3 if before == 1 else 1)
    try:
        params = Quantize(scheme="static_symmetric")
        quantize(params, healthy / "rewritten", healthy / "samples", tmp_path / "q")
    finally:
        torch.set_num_threads(before)
    assert (tmp_path / "q" / MODEL).read_bytes() == (run / "quantized" / MODEL).read_bytes()


def test_the_last_block_answers_for_the_tokens_that_are_read():
    for kind, tokens in (("deit", 1), ("distilled", 2)):
        model = efficient.for_static_int8(made(kind))
        with torch.inference_mode():
            assert model.forward_features(IMAGES).shape == (2, tokens, 192)
    averaged = efficient.for_static_int8(made("average"))
    with torch.inference_mode():
        assert averaged.forward_features(IMAGES).shape[1] == 17


def test_kept_layers_are_float_or_dynamic(small, tmp_path):
    params = Quantize(
        scheme="static_symmetric", keep_float=("blocks.0.*",), keep_dynamic=("*.fc2",)
    )
    quantize(params, small / "rewritten", small / "samples", tmp_path / "q")
    arrays = load_file(tmp_path / "q" / MODEL)
    floats = load_file(small / "rewritten" / MODEL)
    for name in ("blocks.0.attn.qkv.weight", "blocks.0.mlp.fc2.weight"):
        assert np.array_equal(arrays[name], floats[name])
    assert "blocks.3.mlp.fc2.unit" not in arrays
    assert "blocks.3.mlp.fc1.unit" in arrays
    load(tmp_path / "q" / MODEL)


def test_a_pattern_that_names_nothing_is_refused(healthy, tmp_path):
    params = Quantize(scheme="static_symmetric", keep_dynamic=("heads",))
    with pytest.raises(ParamsError, match=r"keep_dynamic: 'heads' names no layer"):
        quantize(params, healthy / "rewritten", healthy / "samples", tmp_path / "q")


@pytest.mark.full
def test_layers_are_put_back_and_diagnosed(healthy, run):
    from pipeline.quantization.load import layer_pairs, load_model, load_restored

    float_file, quantized_file = healthy / "rewritten" / MODEL, run / "quantized" / MODEL
    both = layer_pairs(float_file, quantized_file)
    assert len(both.layers) == 12 * 4 + 2
    restored = load_restored(quantized_file, float_file, list(both.layers))
    model, _ = load_model(float_file, fused_attention=False)
    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert sqnr_db(model(image), restored(image)) > 60


def test_a_model_without_such_layers_is_quantized_dynamically(params, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    values = params.model_dump()
    values["model"]["checkpoint"] = "mobilevitv2_050.fashion_mnist"
    values["quantize"]["scheme"] = "static_symmetric"
    run_stages(Params.model_validate(values), tmp_path, "fetch", "samples", "rewrite", "quantize")
    arrays = load_file(tmp_path / "quantized" / MODEL)
    assert [key for key in arrays if key.endswith(".scale")] == ["head.fc.scale"]


def _ptl(folder):
    return next((folder / "lite").glob("*.ptl"))
