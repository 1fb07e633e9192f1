"""Vision transformers in ONNX Runtime's own operators, for the int8 file.

Modules are put in the place of timm's that export to operators of ONNX Runtime's domain. They
cannot run in PyTorch. Linear layers stay what they are, since the quantizer takes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.onnx.ops import symbolic

from pipeline.contract.contract import Preprocessing
from pipeline.models.efficient import PatchLinear, SlicedAttention
from pipeline.quantization.layer_names import named

DOMAIN = "com.microsoft"
OPSET = 18  # of the standard operators here
STEPS = 127  # of an int8 weight, to either side
PIXEL = 255  # the largest


class TanhGelu(nn.Module):
    """GELU in its tanh form: half the instructions of the exact one on ARM64."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _own("FastGelu", [x], x.shape)


class FusedAttention(nn.Module):
    """Attention's products and softmax in one operator: on x86 four fifths of their time."""

    def __init__(self, attention: SlicedAttention) -> None:
        super().__init__()
        self.qkv, self.proj, self.query_key_value = (
            attention.qkv,
            attention.proj,
            attention.query_key_value,
        )
        self.about = {"num_heads": attention.num_heads, "scale": float(attention.scale)}

    def forward(
        self, x: torch.Tensor, attn_mask: torch.Tensor | None = None, is_causal: bool = False
    ) -> torch.Tensor:
        asked = self.query_key_value(self.qkv(x))
        mixed = _own("MultiHeadAttention", asked, asked[0].shape, self.about)
        answer: torch.Tensor = self.proj(mixed)
        return answer


class PixelPatches(nn.Module):
    """A patch embedding of pixels as they are, integers from 0 to 255; its weights are int8.

    Mean and deviation go into weights and bias, so nothing is lost but by rounding weights.
    """

    def __init__(self, embed: PatchLinear, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.patches, self.norm = embed.patches, embed.norm
        mean = PIXEL * torch.tensor(preprocessing.mean, dtype=torch.float64)
        step = 1 / (PIXEL * torch.tensor(preprocessing.std, dtype=torch.float64))
        linear: Any = embed.proj
        each = embed.height * embed.width
        weight = linear.weight.data.double() * step.repeat_interleave(each)
        scale = weight.abs().amax(1) / STEPS
        bias = torch.zeros(len(weight)) if linear.bias is None else linear.bias.data
        whole = (weight / scale[:, None]).round()
        # By the rounded weights: what they lose then multiplies a pixel less the mean.
        moved = (whole * scale[:, None]) @ mean.repeat_interleave(each)
        self.pixel_step = step.float()
        self.pixel_zero = mean.round().to(torch.uint8)
        self.weight = whole.to(torch.int8).T.contiguous()
        self.scale = scale.float()
        self.bias = (bias.double() - moved).float()
        self.one = torch.tensor(1.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        known = [self.pixel_step, self.pixel_zero]
        pixels = self.patches(_standard("QuantizeLinear", [x, *known], x.shape, {"axis": 1}))
        inputs = [pixels, self.weight, self.one, self.scale, None, None, self.bias]
        out = _own("MatMulIntegerToFloat", inputs, [*pixels.shape[:2], self.weight.shape[1]])
        answer: torch.Tensor = self.norm(out)
        return answer


def fused(model: nn.Module, preprocessing: Preprocessing, kept: Sequence[str]) -> nn.Module:
    """Put the modules above into ``model``, which `efficient.to_efficient` made, and return it.

    ``kept`` are patterns of layers that stay in float.
    """
    for name, module in list(model.named_modules()):
        if type(module) is nn.GELU:
            model.set_submodule(name, TanhGelu())
        elif type(module) is SlicedAttention:
            model.set_submodule(name, FusedAttention(module))
        elif type(module) is PatchLinear and not named(f"{name}.proj", kept):
            model.set_submodule(name, PixelPatches(module, preprocessing))
    return model


def _own(name: str, inputs: Any, shape: Any, about: Any = None) -> torch.Tensor:
    return symbolic(f"{DOMAIN}::{name}", inputs, about, dtype=torch.float32, shape=shape, version=1)


def _standard(name: str, inputs: Any, shape: Any, about: Any = None) -> torch.Tensor:
    return symbolic(name, inputs, about, dtype=torch.uint8, shape=shape, version=OPSET)
