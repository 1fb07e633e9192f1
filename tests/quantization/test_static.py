"""Static int8: what folding and tracing promise, and what comes out for a convolutional network."""

from __future__ import annotations

import shutil

import numpy as np
import onnx
import pytest
import timm
import torch
from safetensors.numpy import load_file
from torch import nn

from pipeline.contract.files import load_contract
from pipeline.errors import InputError, ParamsError
from pipeline.files import read_json
from pipeline.metrics.measures import weight_error_steps
from pipeline.models import tracing
from pipeline.params import Params, Quantize
from pipeline.quantization import static
from pipeline.quantization.load import float_weights, load_model, load_restored
from pipeline.quantization.static import load_fused
from pipeline.quantization.storage import ranges_from_json, read_metadata
from pipeline.runtimes import load
from pipeline.stages.chain import run as run_stages
from pipeline.stages.quantize import quantize
from pipeline.tuning.diagnose import diagnose
from tests.conftest import ROOT
from tests.stages.test_faults import change_quantized

pytestmark = pytest.mark.full

MODEL = "model.safetensors"
STAGES = (
    *("fetch", "samples", "rewrite", "quantize", "script", "optimize", "lite"),
    "export_onnx",
)


@pytest.fixture(scope="module")
def run(params, tmp_path_factory):
    """A run of the embedded MobileViTv2 up to its files, but for the ``.pte``."""
    values = params.model_dump()
    values["model"]["checkpoint"] = "mobilevitv2_050.fashion_mnist"
    values["samples"] |= {"limit": 64, "calibration": 64}
    values["quantize"]["scheme"] = "static"
    artifacts = tmp_path_factory.mktemp("static") / "artifacts"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        run_stages(Params.model_validate(values), artifacts, *STAGES)
    return artifacts


def answers(path, samples, count=64):
    from pipeline.images.preprocessing import normalize
    from pipeline.images.samples import SampleSet

    runtime = load(path)
    images = normalize(SampleSet.load(samples).images[:count], runtime.contract.preprocessing)
    return np.concatenate([runtime.logits(images[i : i + 1]) for i in range(len(images))])


def sole(folder, suffix):
    return next(folder.glob(f"*{suffix}"))


@pytest.mark.parametrize(
    ("architecture", "size"),
    [
        ("mobilevitv2_050", 96),
        ("mobilevit_xxs", 96),
        ("vit_tiny_r_s16_p8_224", 224),  # standardized weights, "same" padding
        ("deit_tiny_distilled_patch16_224", 224),
    ],
)
def test_a_traced_model_computes_what_the_model_computes(architecture, size):
    torch.manual_seed(0)
    model = timm.create_model(architecture, num_classes=7).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    images = torch.randn(1, 3, size, size)
    with torch.inference_mode():
        expected = model(images)
        for simpler in (tracing.plain(model), tracing.fused(model, (1, 3, size, size))):
            assert torch.allclose(simpler(images), expected, atol=1e-5, rtol=1e-4)


def test_tracing_leaves_no_normalization_behind_a_convolution():
    fused = tracing.fused(timm.create_model("mobilevitv2_050", num_classes=2), (1, 3, 64, 64))
    kinds = {type(module) for module in fused.modules()}
    assert not kinds & {torch.nn.BatchNorm2d, torch.nn.Dropout, torch.nn.Identity}
    assert len(static.quantizable_layers(fused)) == 65


def test_every_convolution_is_int8_within_half_a_step(run):
    checkpoint, quantized = run / "checkpoint" / MODEL, run / "quantized" / MODEL
    floats, arrays = float_weights(checkpoint, quantized), load_file(quantized)
    scales = [key for key in arrays if key.endswith(".scale")]
    assert len(scales) == 65
    for key in scales:
        name = key.removesuffix("scale") + "weight"
        assert arrays[name].dtype == np.int8
        assert weight_error_steps(floats[name].numpy(), arrays[name], arrays[key]) <= 0.501


def test_every_step_after_quantization_answers_bit_for_bit(run):
    expected = answers(run / "quantized" / MODEL, run / "samples", 4)
    for path in (run / "scripted" / "model.pt", run / "optimized" / "model.pt"):
        assert np.array_equal(answers(path, run / "samples", 4), expected)
    assert np.array_equal(answers(sole(run / "lite", ".ptl"), run / "samples", 4), expected)


def test_a_file_gives_back_the_model_that_was_calibrated(run, tmp_path):
    """The ranges and float weights of a file give its bytes again, and its model its answers."""
    fused, before = load_fused(run / "checkpoint" / MODEL), run / "quantized" / MODEL
    ranges = ranges_from_json(read_metadata(before)["ranges"])
    static.save(tmp_path / "again", fused, ranges, (), load_contract(run / "checkpoint"))
    assert (tmp_path / "again" / MODEL).read_bytes() == before.read_bytes()
    loaded, _ = load_model(before)
    images = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(loaded(images), static.convert(fused, ranges, ())(images))


def test_the_same_images_give_the_same_ranges():
    torch.manual_seed(0)
    model = timm.create_model("test_efficientnet", num_classes=7).eval()
    fused = tracing.fused(model, (4, 3, 64, 64))
    images = torch.randn(8, 3, 64, 64).split(4)
    ranges = static.calibrate(fused, images)
    assert len(ranges) > len(static.quantizable_layers(fused))
    assert ranges == static.calibrate(fused, images)


@pytest.mark.parametrize(("folder", "suffix"), [("lite", ".ptl"), ("onnx_int8", ".int8.onnx")])
def test_the_files_are_a_third_of_float_and_agree_with_it(run, folder, suffix):
    path = sole(run / folder, suffix)
    size = path.stat().st_size / (run / "checkpoint" / MODEL).stat().st_size
    reference = answers(run / "checkpoint" / MODEL, run / "samples")
    agreement = (answers(path, run / "samples").argmax(1) == reference.argmax(1)).mean()
    assert size < 0.35
    assert agreement >= 0.95


def test_contracts_say_that_ranges_are_fixed(run):
    for path in (sole(run / "lite", ".ptl"), sole(run / "onnx_int8", ".int8.onnx")):
        artefact = load(path).contract.artefact
        assert artefact.quantization == "static int8, per_channel weights"
        assert "-static-" in path.name


def test_the_onnx_file_has_no_float_convolution(run):
    model = onnx.load(sole(run / "onnx_int8", ".int8.onnx"))
    floats = {i.name for i in model.graph.initializer if i.data_type == onnx.TensorProto.FLOAT}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 64
    assert not [node.name for node in convolutions if node.input[1] in floats]


def test_keep_float_leaves_convolutions_as_they_were(run, tmp_path, monkeypatch):
    # Ranges do not depend on what is kept: those of the run, which take a minute to find.
    ranges = ranges_from_json(read_metadata(run / "quantized" / MODEL)["ranges"])
    monkeypatch.setattr(static, "calibrate", lambda model, batches: ranges)
    params = Quantize(scheme="static", keep_float=("stem.*",))
    quantize(params, run / "checkpoint", run / "samples", tmp_path / "kept")
    arrays, fused = load_file(tmp_path / "kept" / MODEL), load_fused(run / "checkpoint" / MODEL)
    assert sum(key.endswith(".scale") for key in arrays) == 64
    assert np.array_equal(arrays["stem.conv.weight"], fused.state_dict()["stem.conv.weight"])
    kept, _ = load_model(tmp_path / "kept" / MODEL)
    restored = load_restored(run / "quantized" / MODEL, run / "checkpoint" / MODEL, ["stem.conv"])
    images = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.equal(kept(images), restored(images))


def test_a_pattern_that_names_nothing_is_refused_with_names_that_exist(run, tmp_path):
    params = Quantize(scheme="static", keep_float=("heads",))
    with pytest.raises(ParamsError, match=r"'heads' names no layer .* stem\.conv"):
        quantize(params, run / "checkpoint", run / "samples", tmp_path / "q")
    assert not (tmp_path / "q").exists()


def test_static_without_calibration_images_says_what_to_raise(run, tmp_path):
    samples = tmp_path / "samples"
    samples.mkdir()
    np.save(samples / "calibration.npy", np.zeros((0, 128, 128, 3), np.uint8))
    with pytest.raises(ParamsError, match=r"raise samples\.calibration"):
        quantize(Quantize(scheme="static"), run / "checkpoint", samples, tmp_path / "q")


def test_diagnose_finds_a_convolution_that_was_broken(params, run, tmp_path):
    bad, name = tmp_path / "artifacts", "stages.1.0.conv1_1x1.conv"
    shutil.copytree(run, bad)
    run_stages(params, bad, "reference")
    scale = load_file(bad / "quantized" / MODEL)[f"{name}.scale"]
    change_quantized(bad, {f"{name}.scale": 2 * scale})
    text = diagnose(bad, tmp_path / "out", 2, "stages.1.0.*")
    found = read_json(tmp_path / "out" / "layers.json")
    assert found["layers"][0]["name"] == name
    assert found["together"]["logit_sqnr_gain_db"] > 1
    assert f"{name} errs far more than the other layers" in text


def test_a_plain_hybrid_has_neither_infinity_nor_weights_that_are_computed():
    model = timm.create_model("vit_tiny_r_s16_p8_224").eval()
    plain, images = tracing.plain(model), torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        assert torch.allclose(plain(images), model(images), atol=1e-5)
    graph = torch.export.export(plain, (images,)).module().graph
    numbers = [a for n in graph.nodes for a in n.args if isinstance(a, float)]
    assert np.isfinite(numbers).all()
    convolutions = [n for n in graph.nodes if str(n.target).startswith("aten.conv2d")]
    assert convolutions
    assert {n.args[1].op for n in convolutions} == {"get_attr"}


def test_the_quantizer_of_the_pte_takes_every_convolution(run):
    from pipeline.export.pte import _quantize
    from pipeline.process import quiet

    model, contract = load_model(run / "checkpoint" / MODEL, fused_attention=False)
    with quiet():
        graph = _quantize(
            tracing.plain(model), [torch.zeros(contract.input_shape)], Quantize(scheme="static")
        ).graph
    targets = [str(node.target) for node in graph.nodes]
    assert sum("dequantize_per_channel" in target for target in targets) == 65


@pytest.mark.parametrize("threads", [1, 3])
def test_ranges_of_the_pte_do_not_depend_on_the_number_of_threads(threads):
    """Two threads give this product other last bits than one does, and so another range."""
    from pipeline.export.pte import _quantize
    from pipeline.process import quiet

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(128, 64, 1)).eval()
    batches = [torch.randn(1, 128, 32, 32) for _ in range(2)]

    def found(count):
        before = torch.get_num_threads()
        torch.set_num_threads(count)
        try:
            with quiet():
                nodes = _quantize(model, batches, Quantize(scheme="static")).graph.nodes
            assert torch.get_num_threads() == count
        finally:
            torch.set_num_threads(before)
        return [node.args[1] for node in nodes if "_per_tensor" in str(node.target)]

    ranges = found(threads)
    assert len(ranges) == 4
    assert ranges == found(2)


class Residual(nn.Module):
    """A layer between two convolutions that a sum reads, too, as in ResNet and EfficientViT."""

    def __init__(self, between: nn.Module) -> None:
        super().__init__()
        self.first, self.between = nn.Conv2d(3, 8, 3), between
        self.second, self.head = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.between(self.first(x))
        return self.head(self.second(x) + x).mean((2, 3))


@pytest.mark.parametrize("between", [nn.MaxPool2d(3, 1, 1), nn.Hardswish()], ids=["pool", "swish"])
def test_a_residual_sum_gets_float_where_the_next_layer_gets_int8(between):
    torch.manual_seed(0)
    images = torch.rand(4, 3, 16, 16)
    fused = tracing.fused(Residual(between).eval(), (4, 3, 16, 16))
    quantized = static.convert(fused, static.calibrate(fused, [images]), ())
    expected = fused(images)
    assert len(static.packed_layers(quantized)) == 3
    assert (quantized(images) - expected).norm() < 0.05 * expected.norm()


def test_a_network_that_cannot_be_quantized_is_one_sentence(run, tmp_path, monkeypatch):
    def refuse(*_):
        raise RuntimeError("promoteTypes with quantized numbers")

    monkeypatch.setattr(static, "calibrate", refuse)
    with pytest.raises(InputError, match=r"static does not go with mobilevitv2_050 .*per_channel"):
        static.quantize(
            Quantize(scheme="static"), run / "rewritten", run / "samples", tmp_path / "q"
        )
    assert not (tmp_path / "q").exists()
