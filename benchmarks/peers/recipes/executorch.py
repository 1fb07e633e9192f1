"""ExecuTorch's XNNPACK recipe.

With attention unfused by timm's own switch: ExecuTorch decomposes the fused one with a guard for
masked rows that XNNPACK does not take. `fused_dynamic` shows what timm's default costs.

https://docs.pytorch.org/executorch/stable/backends/xnnpack/xnnpack-quantization.html
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.peers.recipes.common import Recipe, calibration, main, torch_model

if TYPE_CHECKING:
    import torch


def quantized(is_dynamic: bool, fused_attention: bool, inputs: Path, out: Path) -> None:
    """Write ``model.pte`` as ExecuTorch's documentation does, from folder ``inputs``."""
    import torch
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    model, example = torch_model(inputs, fused_attention)
    params = get_symmetric_quantization_config(is_per_channel=True, is_dynamic=is_dynamic)
    quantizer = XNNPACKQuantizer()
    quantizer.set_global(params)
    prepared = prepare_pt2e(torch.export.export(model, example).module(), quantizer)
    with torch.no_grad():
        for image in calibration(inputs)[: 1 if is_dynamic else None]:
            prepared(torch.tensor(image[None]))
    _lower(convert_pt2e(prepared), example, out)


def _lower(model: torch.nn.Module, example: tuple[torch.Tensor], out: Path) -> None:
    import torch
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    program = to_edge_transform_and_lower(
        torch.export.export(model, example), partitioner=[XnnpackPartitioner()]
    ).to_executorch()
    (out / "model.pte").write_bytes(program.buffer)


RECIPES: dict[str, Recipe] = {
    "fused_dynamic": partial(quantized, True, True),
    "dynamic": partial(quantized, True, False),
    "static": partial(quantized, False, False),
}

if __name__ == "__main__":
    main(RECIPES)
