"""Scheme ``static``: convolutions and linear layers in int8, with ranges from calibration images.

By PyTorch's FX graph mode for QNNPACK: :func:`calibrate` finds the range of every layer's input and
output on a traced model, :func:`convert` makes the quantized model from ranges. Normalization,
activations and attention stay in float between the layers: their int8 kernels are missing or lose
too much. Layers have the names of `tracing.fused`, which folds batch normalization first.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn
from torch.ao.nn.quantized import Conv2d as QuantizedConv
from torch.ao.nn.quantized import Linear as QuantizedLinear
from torch.ao.quantization import ObserverBase, QConfig, QConfigMapping
from torch.ao.quantization.backend_config import get_qnnpack_backend_config
from torch.ao.quantization.fx._lower_to_native_backend import is_special_pattern_node
from torch.ao.quantization.observer import PerChannelMinMaxObserver
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

from pipeline.contract.contract import Contract
from pipeline.contract.files import MODEL_FILE, load_contract
from pipeline.errors import InputError, shown
from pipeline.images.samples import calibration_input
from pipeline.models import tracing
from pipeline.models.build import MISFITS, load_weights
from pipeline.process import one_thread, quiet, use_qnnpack
from pipeline.quantization.float_model import empty_model, load_float
from pipeline.quantization.layer_names import matching
from pipeline.quantization.ranges import HistogramObserver, Range, search
from pipeline.quantization.scheme import Function, LayerPairs
from pipeline.quantization.storage import (
    Metadata,
    PackedLayer,
    StateDict,
    pack,
    ranges_from_json,
    ranges_to_json,
    read,
    write,
)

if TYPE_CHECKING:
    from pipeline.params import Quantize

BATCH = 32  # calibration images at once: observers are slower than the model
QUANTIZED = (nn.Conv2d, nn.Linear)


def quantize(params: Quantize, checkpoint: Path, samples: Path, out: Path) -> None:
    """See `SchemeModule`.

    Raises:
        InputError: PyTorch cannot trace or quantize the network.
    """
    contract = load_contract(checkpoint)
    images = calibration_input(samples, contract.preprocessing)
    try:
        fused = load_fused(checkpoint / MODEL_FILE)
        kept = matching(quantizable_layers(fused), params.keep_float)
        batch = min(BATCH, len(images))
        batches = torch.from_numpy(images[: len(images) // batch * batch]).split(batch)
        # A traced model has its batch size in it.
        batched = load_fused(checkpoint / MODEL_FILE, batch)
        with one_thread():
            ranges = calibrate(batched, batches)
        save(out, fused, ranges, kept, contract)
    except MISFITS as error:
        raise InputError(
            f"quantize.scheme: static does not go with {contract.checkpoint.architecture} "
            f"({type(error).__name__}: {shown(error, 300)}); set quantize.scheme: per_channel in "
            "params.yaml, which leaves convolutions in float"
        ) from error


@cache
def load_fused(path: Path, batch: int = 1) -> fx.GraphModule:
    """Load a float ``model.safetensors``, traced and folded. Cached: do not change it."""
    model, contract = load_float(path)
    return tracing.fused(model, (batch, *contract.input_shape[1:]))


def save(
    folder: Path,
    fused: fx.GraphModule,
    ranges: Mapping[str, Range],
    kept: Iterable[str],
    contract: Contract,
) -> None:
    """Convert a fused model with ``ranges``, except the layers ``kept``; write it."""
    kept = sorted(kept)
    floats = fused.state_dict()
    layers = {}
    for layer, (weight, bias) in packed_layers(convert(fused, ranges, kept)).items():
        name = weight_name(fused, layer)
        layers[name] = (weight, bias if f"{name}.bias" in floats else None)
    metadata = {
        "layers": list(layers),
        "fused_attention": False,
        "keep_float": kept,
        "ranges": ranges_to_json(ranges),
    }
    write(folder, layers, floats, metadata, contract)


def load(contract: Contract, state: StateDict, metadata: Metadata, source: str) -> nn.Module:
    """See `SchemeModule`."""
    fused = tracing.fused(empty_model(contract, fused_attention=False), contract.input_shape)
    floats = {key: value for key, value in state.items() if not key.endswith(".scale")}
    for key in state.keys() - floats.keys():
        name = key.removesuffix("scale") + "weight"
        scale = state[key].reshape(-1, *[1] * (state[name].ndim - 1))
        floats[name] = (state[name] * scale).float()
    load_weights(fused, floats, source)
    return _with_weights(fused, state, metadata, metadata["keep_float"])


def restore(path: Path, float_path: Path, names: Iterable[str]) -> nn.Module:
    """See `SchemeModule`."""
    state, metadata = read(path)
    kept = {*metadata["keep_float"], *names}
    return _with_weights(load_fused(float_path), state, metadata, kept)


def _with_weights(
    fused: fx.GraphModule, state: StateDict, metadata: Metadata, kept: Iterable[str]
) -> nn.Module:
    """Convert ``fused`` and give its int8 layers the weights of a file."""
    model = convert(fused, ranges_from_json(metadata["ranges"]), kept)
    for name, (_, bias) in packed_layers(model).items():
        key = weight_name(fused, name)
        layer: Any = model.get_submodule(name)
        bias = state.get(f"{key}.bias", bias)  # PyTorch gives zeros to a layer that has none
        layer.set_weight_bias(pack(state[f"{key}.weight"], state[f"{key}.scale"]), bias)
    return model


def float_weights(float_path: Path) -> StateDict:
    """See `SchemeModule`."""
    return dict(load_fused(float_path).state_dict())


def layer_pairs(float_path: Path, path: Path) -> LayerPairs:
    """See `SchemeModule`."""
    contract = load_contract(path.parent)
    state, metadata = read(path)
    quantized: Any = load(contract, state, metadata, str(path))
    model, ranges = load_fused(float_path), ranges_from_json(metadata["ranges"])
    weights = {name: weight for name, (weight, _) in packed_layers(quantized).items()}
    inputs = {str(node.target): node.args[0] for node in model.graph.nodes if node.args}

    def function(name: str) -> Function:
        layer: Any = quantized.get_submodule(name)
        input_range = ranges[inputs[name].name]

        def run(x: torch.Tensor) -> torch.Tensor:
            scale, zero = input_range.scale, input_range.zero_point
            codes = torch.quantize_per_tensor(x, scale, zero, torch.quint8)
            output: torch.Tensor = layer(codes).dequantize()
            return output

        return run

    return LayerPairs(model, {name: function(name) for name in weights}, weights, contract)


def quantizable_layers(model: fx.GraphModule) -> dict[str, nn.Module]:
    """Return the layers of a fused model that can be quantized, by name, in the model's order."""
    layers = {}
    for node in model.graph.nodes:
        if node.op == "call_module":
            module = model.get_submodule(node.target)
            if isinstance(_weighted(module), QUANTIZED):
                layers[str(node.target)] = module
    return layers


def _weighted(layer: nn.Module) -> nn.Module:
    """The module that has the weight: the layer, or the first of a fused pair."""
    return layer[0] if isinstance(layer, nn.Sequential) else layer


def weight_name(fused: fx.GraphModule, layer: str) -> str:
    """Return where a layer's arrays are: at the layer, or at the first of a fused pair."""
    module = fused.get_submodule(layer)
    return layer if _weighted(module) is module else f"{layer}.0"


def packed_layers(model: nn.Module) -> dict[str, PackedLayer]:
    """Return weight and bias of each int8 layer of a quantized model, by name."""
    return {
        name: module._weight_bias()  # type: ignore[no-untyped-call]
        for name, module in model.named_modules()
        if isinstance(module, QuantizedConv | QuantizedLinear)
    }


def calibrate(model: fx.GraphModule, batches: Sequence[torch.Tensor]) -> dict[str, Range]:
    """Return the range of each value of a fused model, for which int8 is closest to float.

    Args:
        model: traced for the batch size of ``batches``.
        batches: float32 images [n, 3, H, W] each.
    """
    prepared = _prepared(model, _Recorder, ())
    return search(
        prepared, _observers(prepared), batches, lambda ranges: convert(model, ranges, ())
    )


def convert(
    model: fx.GraphModule, ranges: Mapping[str, Range], kept: Iterable[str]
) -> fx.GraphModule:
    """Return a quantized copy of a fused model, with the layers ``kept`` in float."""
    prepared = _prepared(model, _Observer, kept)
    for name, observer in _observers(prepared).items():
        observer.value_range = ranges[name]
    backend = get_qnnpack_backend_config()
    with quiet():
        quantized: fx.GraphModule = convert_fx(prepared, backend_config=backend)
    return quantized.eval()


class _Observer(ObserverBase):
    """Gives PyTorch the range that a value was found to need."""

    value_range = Range(1.0, 0)

    def __init__(self) -> None:
        super().__init__(dtype=torch.quint8)
        self.qscheme = torch.per_tensor_affine
        self.quant_min, self.quant_max = 0, 255

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x

    def calculate_qparams(self, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.tensor([self.value_range.scale]), torch.tensor([self.value_range.zero_point])


class _Recorder(HistogramObserver, _Observer):
    """Records what passes."""


def _prepared(model: fx.GraphModule, observer: Any, kept: Iterable[str]) -> fx.GraphModule:
    use_qnnpack()
    with quiet():
        prepared: fx.GraphModule = prepare_fx(
            copy.deepcopy(model),
            _mapping(observer, kept),
            example_inputs=(torch.zeros(1),),  # only their number matters
            backend_config=get_qnnpack_backend_config(),
        )
    _split_readers(prepared)
    return prepared


def _split_readers(prepared: fx.GraphModule) -> None:
    """Give readers that take float a node of their own.

    PyTorch lowers a pool or an activation between two int8 layers to int8, for all of its readers:
    a residual's sum would then add int8 to float.
    """
    modules = dict(prepared.named_modules(remove_duplicate=False))
    for node in list(prepared.graph.nodes):
        if node.op != "call_module" or not isinstance(modules[node.target], ObserverBase):
            continue
        source = node.args[0]
        others = [reader for reader in source.users if reader is not node]
        if not others or not any(is_special_pattern_node(source, modules)):
            continue
        with prepared.graph.inserting_after(source):
            twin = prepared.graph.node_copy(source)
        if source.op == "call_module":  # lowering replaces the module
            twin.target = f"{source.target}_float"
            prepared.add_submodule(twin.target, copy.deepcopy(modules[source.target]))
        for reader in others:
            reader.replace_input_with(source, twin)
    prepared.recompile()


def _mapping(observer: Any, kept: Iterable[str]) -> QConfigMapping:
    # QNNPACK multiplies int8 weights without saturation, so the range need not be reduced.
    weight = PerChannelMinMaxObserver.with_args(
        dtype=torch.qint8, qscheme=torch.per_channel_symmetric
    )
    qconfig = QConfig(activation=observer, weight=weight)
    mapping = QConfigMapping()
    for kind in (*QUANTIZED, nn.ReLU):  # a ReLU behind a convolution becomes part of it
        mapping.set_object_type(kind, qconfig)
    for name in kept:
        mapping.set_module_name(name, None)
    return mapping


def _observers(prepared: fx.GraphModule) -> dict[str, Any]:
    """Observers by the name of the node whose value they see: that name survives ``kept``."""
    observers = {}
    for node in prepared.graph.nodes:
        if node.op == "call_module":
            module = prepared.get_submodule(node.target)
            if isinstance(module, ObserverBase):
                observers[node.args[0].name] = module
    return observers
