"""GPTQ (Frantar et al., 2023): int8 weights whose rounding errors compensate, from images.

A layer's weights are rounded column by column, and the columns not yet rounded compensate for the
error in the layer's output. The results are float weights on the int8 grid that exporters round to
(the largest of a row is 127 steps), so that exporters keep them (docs/adr/0030).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pipeline.models.equivalent import smoothing
from pipeline.models.hooks import Hook, forward_hooks
from pipeline.progress import progress
from pipeline.quantization.layer_names import named, weighted_layers

STEPS = 127  # of an int8 weight, to either side
DAMPING = 0.01  # of the mean of the Hessian's diagonal; keeps it invertible
COLUMNS = 128  # rounded before the columns behind are updated, by one matrix product
SMALLEST = 1e-3  # of the largest channel; smaller ones count as this large


@dataclass
class InputStats:
    """What GPTQ needs to know of the inputs of a linear layer."""

    hessian: torch.Tensor  # float32 [in, in]: sum of x x^T, half the Hessian of the squared error
    max_abs: torch.Tensor  # float32 [in]: the largest magnitude of each channel

    def divided(self, divisor: torch.Tensor) -> InputStats:
        """The statistics of inputs that are divided by ``divisor`` [in]."""
        return InputStats(self.hessian / divisor[:, None] / divisor, self.max_abs / divisor)


class DividedActivation(nn.Module):
    """An activation, each of whose channels is divided; the weights behind make up for it."""

    def __init__(self, act: nn.Module, divisor: torch.Tensor) -> None:
        """``divisor``: float32 [channels]."""
        super().__init__()
        self.act = act
        self.register_buffer("factor", 1 / divisor)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(x) * self.factor  # type: ignore[no-any-return]


def linears(model: nn.Module, kept: Sequence[str]) -> list[str]:
    """Return the names of the linear layers that no pattern of ``kept`` matches."""
    return [name for name in weighted_layers(model) if not named(name, kept)]


def input_stats(
    model: nn.Module, names: Iterable[str], batches: Sequence[torch.Tensor]
) -> dict[str, InputStats]:
    """Run float32 images [n, 3, H, W] each; return statistics of each linear layer's input."""
    stats: dict[str, InputStats] = {}

    def recorder(name: str) -> Hook:
        def record(x: torch.Tensor, _: torch.Tensor) -> None:
            rows = x.flatten(0, -2)
            hessian, max_abs = rows.T @ rows, rows.abs().amax(0)
            if name in stats:
                stats[name].hessian += hessian
                stats[name].max_abs = torch.maximum(max_abs, stats[name].max_abs)
            else:
                stats[name] = InputStats(hessian, max_abs)

        return record

    with forward_hooks(model, {name: recorder(name) for name in names}), torch.inference_mode():
        for batch in progress(batches, desc="GPTQ: layer inputs", unit="batch"):
            model(batch)
    # Clones, because tensors of inference mode cannot be changed outside it.
    return {name: InputStats(s.hessian.clone(), s.max_abs.clone()) for name, s in stats.items()}


def divide_hidden(model: nn.Module, stats: dict[str, InputStats], alpha: float) -> None:
    """Move scale from the hidden channels of each MLP to the weights of its second layer.

    By SmoothQuant's equation, as `equivalent.smooth`; no weight before an activation can take the
    division, so it is an operation of its own. Changes ``model`` and ``stats`` in place.
    """
    from timm.layers import Mlp

    for name, mlp in list(model.named_modules()):
        layer = f"{name}.fc2"
        if type(mlp) is not Mlp or layer not in stats or not isinstance(mlp.norm, nn.Identity):
            continue
        second: Any = mlp.fc2
        max_abs = stats[layer].max_abs
        max_abs = max_abs.clamp(min=SMALLEST * float(max_abs.max()))
        weights = second.weight.detach().abs().amax(0)
        weights = weights.clamp(min=SMALLEST * float(weights.max()))
        divisor = smoothing(max_abs, weights, alpha)
        mlp.act = DividedActivation(mlp.act, divisor)
        second.weight.data *= divisor
        stats[layer] = stats[layer].divided(divisor)


def round_weights(model: nn.Module, stats: Mapping[str, InputStats], *, per_channel: bool) -> None:
    """Round the weights of the linear layers that have ``stats``, in place."""
    for name, layer_stats in progress(stats.items(), desc="GPTQ: rounding", unit="layer"):
        layer: Any = model.get_submodule(name)
        layer.weight.data = rounded(layer.weight.data, layer_stats.hessian, per_channel=per_channel)


def rounded(
    weight: torch.Tensor, hessian: torch.Tensor, *, per_channel: bool = True
) -> torch.Tensor:
    """Round ``weight`` [out, in] to int8 steps, of each row or of the whole layer.

    ``hessian`` [in, in] as `InputStats` has it. Computed in float64; the result has the weight's
    dtype and shape. Algorithm 1 of the paper, with columns ordered by the Hessian's diagonal.
    """
    left = weight.double()
    largest = left.abs().amax(1, keepdim=True) if per_channel else left.abs().amax()
    step = largest.clamp(min=torch.finfo(torch.float32).tiny) / STEPS
    order = hessian.diagonal().argsort(descending=True, stable=True)
    left = left[:, order] / step
    factor = _inverse_hessian_cholesky(hessian.double()[order][:, order])
    # Exporters find the step by the largest weight, so that one stays where it is.
    ends = left.sign() * STEPS
    kept = left.abs() >= STEPS * (1 - 1e-9)
    done = torch.empty_like(left)
    for start in range(0, left.shape[1], COLUMNS):
        end = min(start + COLUMNS, left.shape[1])
        errors = torch.empty_like(left[:, start:end])
        for column in range(start, end):
            value = left[:, column]
            code = value.round().clamp(-STEPS, STEPS)
            code = torch.where(kept[:, column], ends[:, column], code)
            done[:, column] = code
            error = (value - code) / factor[column, column]
            errors[:, column - start] = error
            left[:, column:end] -= error[:, None] * factor[column, column:end]
        left[:, end:] -= errors @ factor[start:end, end:]
    result = torch.empty_like(done)
    result[:, order] = done * step
    return result.to(weight.dtype)


def _inverse_hessian_cholesky(hessian: torch.Tensor) -> torch.Tensor:
    """The upper Cholesky factor of the damped Hessian's inverse, float64 [in, in].

    Its rows say how the columns behind a column compensate for its error.
    """
    damping = DAMPING * hessian.diagonal().mean()
    if damping == 0:  # no input but zero was seen: there is nothing to compensate
        return torch.eye(len(hessian), dtype=hessian.dtype)
    damped = hessian + damping * torch.eye(len(hessian), dtype=hessian.dtype)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    factor: torch.Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor
