"""Vision transformers in ONNX Runtime's own operators, for the int8 file.

Modules are put in the place of timm's that export to operators of ONNX Runtime's domain. They
cannot run in PyTorch. Linear layers stay what they are, since the quantizer takes them.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.onnx.ops import symbolic, symbolic_multi_out

from pipeline.core.contract import Preprocessing
from pipeline.support.lean import LinearPatches, SlicedAttention

if TYPE_CHECKING:
    import onnx

DOMAIN = "com.microsoft"
OPSET = 18  # of the standard operators here
STEPS = 127  # of an int8 weight, to either side
PIXEL = 255  # the largest

Quantized = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # uint8, scale, zero point


class TanhGelu(nn.Module):
    """GELU in its tanh form: half the instructions of the exact one on ARM64."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _own("FastGelu", [x], x.shape)


class Int8Attention(SlicedAttention):
    """Attention whose products are int8: each operand by its own range, weights from 0 to 1."""

    def __init__(self, attention: SlicedAttention) -> None:
        super().__init__(attention, attention.tokens)
        asking = self.qkv.weight.shape[0] // 3
        self.qkv.weight.data[:asking] *= self.scale
        self.qkv.bias.data[:asking] *= self.scale
        self.register_buffer("step", torch.tensor(1 / PIXEL))
        self.register_buffer("zero", torch.tensor(0, dtype=torch.uint8))

    def forward(
        self, x: torch.Tensor, attn_mask: None = None, is_causal: bool = False
    ) -> torch.Tensor:
        parts = self.qkv(x).chunk(3, -1)
        q, k, v = (_quantized(part) for part in (parts[0][:, : self.tokens], *parts[1:]))
        q, k, v = ((self.by_head(part[0]), *part[1:]) for part in (q, k, v))
        scores = _product(q, (k[0].transpose(1, 2), *k[1:])).softmax(-1)
        known = (self.step, self.zero)
        weights = _standard("QuantizeLinear", [scores, *known], scores.shape)
        return self.joined(_product((weights, *known), v), x.shape[0])


class PixelPatches(LinearPatches):
    """A patch embedding of pixels as they are, integers from 0 to 255; its weights are int8.

    Mean and deviation go into weights and bias, so nothing is lost but by rounding weights.
    """

    def __init__(self, embed: LinearPatches, preprocessing: Preprocessing) -> None:
        nn.Module.__init__(self)
        self.side = embed.side
        mean = PIXEL * torch.tensor(preprocessing.mean, dtype=torch.float64)
        step = 1 / (PIXEL * torch.tensor(preprocessing.std, dtype=torch.float64))
        each = self.side[0] * self.side[1]
        weight = embed.proj.weight.data.double() * step.repeat_interleave(each)
        scale = weight.abs().amax(1) / STEPS
        arrays = {
            "pixel_step": step.float(),
            "pixel_zero": mean.round().to(torch.uint8),
            "weight": (weight / scale[:, None]).round().to(torch.int8).T.contiguous(),
            "scale": scale.float(),
            "bias": (embed.proj.bias.data.double() - weight @ mean.repeat_interleave(each)).float(),
            "one": torch.tensor(1.0),
        }
        for name, array in arrays.items():
            self.register_buffer(name, array)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        known = [self.pixel_step, self.pixel_zero]
        pixels = self.rows(_standard("QuantizeLinear", [x, *known], x.shape, {"axis": 1}))
        inputs = [pixels, self.weight, self.one, self.scale, None, None, self.bias]
        return _own("MatMulIntegerToFloat", inputs, [*pixels.shape[:2], self.weight.shape[1]])


def fused(
    model: nn.Module, preprocessing: Preprocessing, kept: Iterable[str], *, int8_attention: bool
) -> nn.Module:
    """Put the modules above into ``model``, which `lean` made, and return it.

    ``kept`` are patterns of layers that stay in float.
    """
    kept = tuple(kept)

    def is_kept(layer: str) -> bool:
        return any(fnmatchcase(layer, pattern) for pattern in kept)

    for name, module in list(model.named_modules()):
        if type(module) is nn.GELU:
            model.set_submodule(name, TanhGelu())
        elif int8_attention and type(module) is SlicedAttention:
            model.set_submodule(name, Int8Attention(module))
        elif type(module) is LinearPatches and not is_kept(f"{name}.proj"):
            model.set_submodule(name, PixelPatches(module, preprocessing))
    return model


def join_norms(model: onnx.ModelProto) -> None:
    """Make one node of an addition and the layer normalization that reads it."""
    import onnx

    graph = model.graph
    constants = {array.name for array in graph.initializer}
    sums = {n.output[0]: n for n in graph.node if n.op_type == "Add"}
    joined: dict[str, Any] = {}
    for node in graph.node:
        add = sums.get(node.input[0]) if node.op_type == "LayerNormalization" else None
        if add is not None and add.output[0] not in joined and not constants & set(add.input):
            joined[add.output[0]] = onnx.helper.make_node(
                "SkipLayerNormalization",
                [*add.input, *node.input[1:]],
                [node.output[0], "", "", add.output[0]],
                name=node.name,
                domain=DOMAIN,
                epsilon=next(a.f for a in node.attribute if a.name == "epsilon"),
            )
    gone = {node.output[0] for node in joined.values()}
    rest = [n for n in graph.node if not gone & set(n.output)]
    nodes = [joined.get(n.output[0], n) for n in rest]
    del graph.node[:]
    graph.node.extend(nodes)


def _quantized(x: torch.Tensor) -> Quantized:
    kinds = [torch.uint8, torch.float32, torch.uint8]
    values, scale, zero = symbolic_multi_out(
        "DynamicQuantizeLinear", [x], dtypes=kinds, shapes=[x.shape, [], []], version=OPSET
    )
    return values, scale, zero


def _product(a: Quantized, b: Quantized) -> torch.Tensor:
    """The float product of quantized values [batch, n, m] and [batch, m, k]."""
    inputs = [part for pair in zip(a, b, strict=True) for part in pair]
    return _own("MatMulIntegerToFloat", inputs, [*a[0].shape[:-1], b[0].shape[-1]])


def _own(name: str, inputs: Any, shape: Any) -> torch.Tensor:
    return symbolic(f"{DOMAIN}::{name}", inputs, dtype=torch.float32, shape=shape, version=1)


def _standard(name: str, inputs: Any, shape: Any, about: Any = None) -> torch.Tensor:
    return symbolic(name, inputs, about, dtype=torch.uint8, shape=shape, version=OPSET)
