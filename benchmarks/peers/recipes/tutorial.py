"""PyTorch's tutorial "Optimizing Vision Transformer Model for Deployment".

https://docs.pytorch.org/tutorials/beginner/vt_tutorial.html, with the engine for mobile.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.peers.recipes.common import Recipe, main, torch_model


def dynamic(inputs: Path, out: Path) -> None:
    """Write ``model.ptl``, with linear layers quantized dynamically."""
    import torch
    from torch.utils.mobile_optimizer import optimize_for_mobile

    model, _ = torch_model(inputs)
    backend = "qnnpack"
    model.qconfig = torch.quantization.get_default_qconfig(backend)
    torch.backends.quantized.engine = backend
    quantized = torch.quantization.quantize_dynamic(
        model, qconfig_spec={torch.nn.Linear}, dtype=torch.qint8
    )
    scripted = torch.jit.script(quantized)
    optimized = optimize_for_mobile(scripted)
    optimized._save_for_lite_interpreter(str(out / "model.ptl"))


RECIPES: dict[str, Recipe] = {"dynamic": dynamic}

if __name__ == "__main__":
    main(RECIPES)
