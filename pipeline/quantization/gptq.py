"""Int8 weights whose rounding errors make up for each other, found on images.

GPTQ (Frantar et al., 2023): a layer's weights are rounded one column after the other, and what each
loses in the layer's answers the columns behind it make up for. What comes out are float weights on
the grid of int8 that exporters round to (the furthest of a row is 127 steps), so these keep them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from pipeline.models.equivalent import smoothing
from pipeline.models.hooks import Look, watching
from pipeline.quantization.layer_names import named
from pipeline.quantization.load import weighted_layers

STEPS = 127  # of an int8 weight, to either side
DAMPING = 0.01  # of the mean square of a layer's input, so that what was never seen counts, too
COLUMNS = 128  # rounded before the ones behind them are told, which is a matrix product then
SMALLEST = 1e-3  # of the furthest channel's reach; what is less counts as this


@dataclass
class Given:
    """What a linear layer is given: sums of products of channels, and how far each gets."""

    products: torch.Tensor  # float32 [in, in]
    reach: torch.Tensor  # float32 [in]

    def divided(self, factor: torch.Tensor) -> Given:
        """The same for channels that are divided by ``factor`` [in]."""
        return Given(self.products / factor[:, None] / factor, self.reach / factor)


class DividedActivation(nn.Module):
    """An activation, and a division of each of its channels that the weights behind undo."""

    def __init__(self, act: nn.Module, divisor: torch.Tensor) -> None:
        super().__init__()
        self.act = act
        self.register_buffer("factor", 1 / divisor)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(x) * self.factor  # type: ignore[no-any-return]


def linears(model: nn.Module, kept: Sequence[str]) -> list[str]:
    """Names of the linear layers that no pattern of ``kept`` names."""
    return [name for name in weighted_layers(model) if not named(name, kept)]


def watch(
    model: nn.Module, names: Iterable[str], batches: Iterable[torch.Tensor]
) -> dict[str, Given]:
    """Run float32 images [n, 3, H, W]; return what each of the linear layers ``names`` is given."""
    seen: dict[str, Given] = {}

    def look(name: str) -> Look:
        def see(x: torch.Tensor, _: torch.Tensor) -> None:
            rows = x.flatten(0, -2)
            products, reach = rows.T @ rows, rows.abs().amax(0)
            if name in seen:
                seen[name].products += products
                reach = torch.maximum(reach, seen[name].reach)
                seen[name].reach = reach
            else:
                seen[name] = Given(products, reach)

        return see

    with watching(model, {name: look(name) for name in names}), torch.inference_mode():
        for batch in batches:
            model(batch)
    return {name: Given(its.products.clone(), its.reach.clone()) for name, its in seen.items()}


def divide_hidden(model: nn.Module, given: dict[str, Given], alpha: float) -> None:
    """Move scale from the hidden channels of each MLP to the weights of its second layer.

    In place, with ``given``. By SmoothQuant's equation, as `models.equivalent.smooth`
    does; no weight before an activation can take the division, so it is a step of its own.
    """
    from timm.layers import Mlp

    for name, mlp in list(model.named_modules()):
        layer = f"{name}.fc2"
        if type(mlp) is not Mlp or layer not in given or not isinstance(mlp.norm, nn.Identity):
            continue
        second: Any = mlp.fc2
        reach = given[layer].reach
        reach = reach.clamp(min=SMALLEST * float(reach.max()))
        weights = second.weight.detach().abs().amax(0)
        weights = weights.clamp(min=SMALLEST * float(weights.max()))
        divisor = smoothing(reach, weights, alpha)
        mlp.act = DividedActivation(mlp.act, divisor)
        second.weight.data *= divisor
        given[layer] = given[layer].divided(divisor)


def round_weights(model: nn.Module, given: Mapping[str, Given], *, per_channel: bool) -> None:
    """Round the weights of linear layers in place, each by what it is ``given``."""
    for name, its in given.items():
        layer: Any = model.get_submodule(name)
        layer.weight.data = rounded(layer.weight.data, its.products, per_channel=per_channel)


def rounded(
    weight: torch.Tensor, products: torch.Tensor, *, per_channel: bool = True
) -> torch.Tensor:
    """Round ``weight`` [out, in] to int8 steps of each row, or of all rows.

    ``products`` [in, in] are sums of products of the input's channels. Computed in float64; the
    result has the weight's dtype.
    """
    left = weight.double()
    furthest = left.abs().amax(1, keepdim=True) if per_channel else left.abs().amax()
    step = furthest.clamp(min=torch.finfo(torch.float32).tiny) / STEPS
    order = products.diagonal().argsort(descending=True, stable=True)
    left, pull = left[:, order] / step, _pulls(products.double()[order][:, order])
    # Exporters find the step by the furthest weight, so that one stays where it is.
    ends = left.sign() * STEPS
    kept = left.abs() >= STEPS * (1 - 1e-9)
    done = torch.empty_like(left)
    for start in range(0, left.shape[1], COLUMNS):
        end = min(start + COLUMNS, left.shape[1])
        errors = torch.empty_like(left[:, start:end])
        for column in range(start, end):
            value = left[:, column]
            found = value.round().clamp(-STEPS, STEPS)
            found = torch.where(kept[:, column], ends[:, column], found)
            done[:, column] = found
            error = (value - found) / pull[column, column]
            errors[:, column - start] = error
            left[:, column:end] -= error[:, None] * pull[column, column:end]
        left[:, end:] -= errors @ pull[start:end, end:]
    answer = torch.empty_like(done)
    answer[:, order] = done * step
    return answer.to(weight.dtype)


def _pulls(products: torch.Tensor) -> torch.Tensor:
    """How much an error of each input [in, in] is to be made up for by the inputs behind it: the
    upper Cholesky factor of the inverse."""
    damping = DAMPING * products.diagonal().mean()
    if damping == 0:  # never given anything: no input knows of another
        return torch.eye(len(products), dtype=products.dtype)
    damped = products + damping * torch.eye(len(products), dtype=products.dtype)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    factor: torch.Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor
