"""``quantize.scheme: auto``: the scheme that suits a network (docs/adr/0036)."""

from __future__ import annotations

from pathlib import Path

from pipeline.contract.contract import Contract
from pipeline.contract.files import load_contract
from pipeline.params import Params, Quantize
from pipeline.schemes import AUTO, SchemeName


def settle(quantize: Quantize, checkpoint: Path) -> Quantize:
    """Return ``quantize`` with a scheme; ``auto`` is that of the model of folder ``checkpoint``.

    Raises:
        InputError: there is no checkpoint in the folder.
    """
    if quantize.scheme != AUTO:
        return quantize
    return quantize.model_copy(update={"scheme": scheme_for(load_contract(checkpoint))})


def settle_params(params: Params, checkpoint: Path) -> Params:
    """Return ``params`` with a settled ``quantize``; see :func:`settle`."""
    return params.model_copy(update={"quantize": settle(params.quantize, checkpoint)})


def scheme_for(contract: Contract) -> SchemeName:
    """Return the scheme that suits the network of a contract.

    ``static`` where most multiplications are those of convolutions, ``static_symmetric`` where
    linear layers have the form that this scheme quantizes, ``per_channel`` else.
    """
    import torch

    from pipeline.models import efficient
    from pipeline.quantization.float_model import empty_model
    from pipeline.quantization.layer_sizes import layer_sizes

    with torch.device("meta"):  # shapes without memory
        model = empty_model(contract, fused_attention=False)
        layers = layer_sizes(model, contract.input_shape)
        convolutions = sum(layer.macs for layer in layers if not layer.linear)
        if 2 * convolutions > sum(layer.macs for layer in layers):
            return "static"
        if efficient.static_layers(efficient.for_static_int8(model)):
            return "static_symmetric"
    return "per_channel"
