"""What `quantize` and the exporters leave in float, and what they promise about the weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from pipeline.errors import ParamsError
from pipeline.metrics.measures import weight_error_steps
from pipeline.params import Quantize
from pipeline.runtimes import load
from pipeline.stages.chain import run as run_stages
from pipeline.stages.quantize import quantize

LAYERS = 12 * 4 + 1


def arrays(folder):
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("scheme", ["per_tensor", "per_channel"])
def test_every_linear_layer_is_int8_within_half_a_step(healthy, tmp_path, scheme):
    quantize(Quantize(scheme=scheme), healthy / "checkpoint", healthy / "samples", tmp_path / "q")
    floats, quantized = arrays(healthy / "checkpoint"), arrays(tmp_path / "q")
    scales = [key for key in quantized if key.endswith(".scale")]
    assert len(scales) == LAYERS
    for key in scales:
        name = key.removesuffix("scale") + "weight"
        assert quantized[name].dtype == np.int8
        assert len(quantized[key]) == (1 if scheme == "per_tensor" else len(quantized[name]))
        assert weight_error_steps(floats[name], quantized[name], quantized[key]) <= 0.501


def test_keep_float_leaves_the_named_layers_as_they_were(healthy, tmp_path):
    params = Quantize(scheme="per_channel", keep_float=("head", "blocks.0.*"))
    quantize(params, healthy / "checkpoint", healthy / "samples", tmp_path / "q")
    floats, quantized = arrays(healthy / "checkpoint"), arrays(tmp_path / "q")
    assert sum(key.endswith(".scale") for key in quantized) == LAYERS - 5
    for name in ("head.weight", "blocks.0.mlp.fc1.weight"):
        assert np.array_equal(quantized[name], floats[name])


def test_a_quantized_file_gives_back_the_model_that_was_quantized(healthy):
    from pipeline.quantization.dynamic import quantize_linears
    from pipeline.quantization.load import load_model

    model, _ = load_model(healthy / "checkpoint" / "model.safetensors", fused_attention=False)
    expected = quantize_linears(model, ())
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        answer = expected(images).numpy()
    stored = load(healthy / "quantized" / "model.safetensors").logits(images.numpy())
    assert np.array_equal(stored, answer)


@pytest.mark.full
def test_the_same_inputs_give_the_same_bytes(healthy, params, tmp_path):
    run_stages_into = tmp_path / "artifacts"
    (run_stages_into).mkdir()
    for name in ("checkpoint", "rewritten"):
        (run_stages_into / name).symlink_to(healthy / name)
    run_stages(params, run_stages_into, "quantize", "script", "optimize", "lite")
    # TorchScript writes a layer's constants in the order of a set, which each process has its own
    # of; the files behind `scripted` have no such constants left.
    for stage in ("quantized", "optimized", "lite"):
        for path in (healthy / stage).iterdir():
            again = run_stages_into / stage / path.name
            assert again.read_bytes() == path.read_bytes(), path.name


def test_a_pattern_that_names_no_layer_is_refused(healthy, tmp_path):
    with pytest.raises(ParamsError, match=r"'heads' names no layer that is quantized"):
        quantize(
            Quantize(scheme="per_channel", keep_float=("heads",)),
            healthy / "checkpoint",
            healthy / "samples",
            tmp_path / "q",
        )
    assert not (tmp_path / "q").exists()


@pytest.mark.full
def test_keep_float_leaves_the_named_layers_of_the_pte_in_float(healthy):
    from pipeline.export.pte import _quantize
    from pipeline.process import quiet
    from pipeline.quantization.load import load_model

    model, contract = load_model(
        healthy / "checkpoint" / "model.safetensors", fused_attention=False
    )
    example = (torch.zeros(contract.input_shape),)

    def int8_weights(keep_float):
        with quiet():
            graph = _quantize(
                model, list(example), Quantize(scheme="per_channel", keep_float=keep_float)
            ).graph
        return sum("dequantize_per_channel" in str(node.target) for node in graph.nodes)

    assert int8_weights(()) - int8_weights(("head", "blocks.0.*")) == 1 + 4


def test_a_linear_layer_over_constants_stays_in_float_in_the_pte() -> None:
    """Relative positions by an MLP: quantized, it would be folded into operators that no runtime
    has ("Missing out variants"), and the export would end."""
    import timm

    from pipeline.export.pte import _quantize
    from pipeline.process import quiet

    torch.manual_seed(0)
    model = timm.create_model("test_vit_relpos", num_classes=10).eval()
    example = (torch.zeros(1, *model.default_cfg["input_size"]),)
    with quiet():
        graph = _quantize(model, list(example), Quantize(scheme="per_channel")).graph
    int8 = sum("dequantize_per_channel" in str(node.target) for node in graph.nodes)
    linears = [name for name, m in model.named_modules() if isinstance(m, torch.nn.Linear)]
    assert int8 == sum("rel_pos" not in name for name in linears) < len(linears)
