"""What each quantization scheme is; its code, which needs torch, is in `pipeline.quantization`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SchemeName = Literal["per_tensor", "per_channel", "static", "static_symmetric"]
SchemeChoice = Literal["auto", SchemeName]
AUTO = "auto"  # the scheme that suits the network: `pipeline.quantization.auto`


@dataclass(frozen=True)
class Scheme:
    """What `params.yaml: quantize.scheme` chooses.

    A scheme is one module: see `pipeline.quantization.scheme.SchemeModule`.
    """

    name: SchemeName
    module: str  # in pipeline.quantization
    per_channel: bool = True  # a weight scale for each output, else one for the whole layer
    fixed_ranges: bool = False  # activation ranges come from calibration images
    convolutions: bool = False  # are quantized, too, and in every format
    efficient_form: bool = False  # quantizes the form of pipeline.models.efficient
    keeps_dynamic: bool = False  # has quantize.keep_dynamic
    for_other_runtimes: SchemeName | None = None  # if only PyTorch Lite has this one
    marker: str | None = None  # the metadata key that only its files have


SCHEMES: dict[str, Scheme] = {
    scheme.name: scheme
    for scheme in (
        Scheme("per_tensor", "dynamic", per_channel=False),
        Scheme("per_channel", "dynamic"),
        Scheme("static", "static", fixed_ranges=True, convolutions=True, marker="ranges"),
        Scheme(
            "static_symmetric",
            "symmetric",
            fixed_ranges=True,
            efficient_form=True,
            keeps_dynamic=True,
            for_other_runtimes="per_channel",
            marker="symmetric",
        ),
    )
}
