"""Names of layers with weights, and the patterns of ``quantize.keep_float`` that choose them."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from pipeline.errors import ParamsError

if TYPE_CHECKING:
    from torch import nn

SHOWN = 5  # names in a message


def named(layer: str, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns matches the layer's name."""
    return any(fnmatchcase(layer, pattern) for pattern in patterns)


def matching(
    names: Iterable[str], patterns: tuple[str, ...], parameter: str = "keep_float"
) -> set[str]:
    """Return the layers that the patterns of a parameter of ``quantize`` match.

    Raises:
        ParamsError: a pattern matches no layer that is quantized.
    """
    names = list(names)
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ParamsError(
                f"params.yaml: quantize.{parameter}: {pattern!r} names no layer that is quantized; "
                f"there are e.g. {', '.join(names[:SHOWN])}"
            )
    return {name for name in names if named(name, patterns)}


def weighted_layers(model: nn.Module, *, convolutions: bool = False) -> list[str]:
    """Return the names of all linear layers, and of convolutions if asked for, in model order."""
    from torch import nn

    kinds = (nn.Linear, nn.Conv2d) if convolutions else (nn.Linear,)
    return [name for name, module in model.named_modules() if isinstance(module, kinds)]
