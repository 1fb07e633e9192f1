"""Arguments of timm's ``create_model`` that change what a network computes.

They come from ``model.kwargs`` in params.yaml and from strangers' files, so each has a name, a type
and a range here; what is not listed is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from pipeline.errors import InputError, shown
from pipeline.schema import Section

Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{0,40}$")]
Width = Annotated[int, Field(ge=1, le=16_384)]
Pixels = Annotated[int, Field(ge=1, le=4096)]
ImageSize = tuple[int, int]  # height, width in pixels

# They act in training only, or describe what is known from elsewhere.
IRRELEVANT = frozenset(
    [
        "attn_drop_rate",
        "drop_block_rate",
        "drop_path_rate",
        "drop_rate",
        "dynamic_img_size",
        "head_init_scale",
        "num_classes",
        "patch_drop_rate",
        "pos_drop_rate",
        "proj_drop_rate",
        "strict_img_size",
        "weight_init",
        "zero_init_last",
    ]
)


def both_sides(size: int | ImageSize | None) -> ImageSize | None:
    """Return height and width of a size that may be given as one number."""
    return (size, size) if isinstance(size, int) else size


class NetworkArgs(Section):
    """Arguments by timm's names; None is what timm has for the architecture."""

    in_chans: Literal[1, 3] | None = None
    img_size: Pixels | tuple[Pixels, Pixels] | None = None  # height, width; what it was trained at
    patch_size: Annotated[int, Field(ge=1, le=64)] | None = None
    global_pool: Word | None = None
    class_token: bool | None = None
    reg_tokens: Annotated[int, Field(ge=0, le=64)] | None = None
    no_embed_class: bool | None = None
    pos_embed: Word | None = None
    embed_dim: Width | None = None
    depth: Annotated[int, Field(ge=1, le=256)] | None = None
    num_heads: Width | None = None
    mlp_ratio: Annotated[float, Field(gt=0, le=64)] | None = None
    qkv_bias: bool | None = None
    qk_norm: bool | None = None
    proj_bias: bool | None = None
    init_values: Annotated[float, Field(ge=0, le=100)] | None = None
    pre_norm: bool | None = None
    final_norm: bool | None = None
    fc_norm: bool | None = None
    act_layer: Word | None = None
    norm_layer: Word | None = None
    window_size: Annotated[int, Field(ge=1, le=256)] | None = None
    output_stride: Literal[8, 16, 32] | None = None

    @property
    def image_size(self) -> ImageSize | None:
        """Height and width in pixels that the network was trained at; None if not said."""
        return both_sides(self.img_size)

    def merged_with(self, fallback: NetworkArgs) -> NetworkArgs:
        """Return these arguments, with gaps filled from ``fallback``."""
        told = self.model_dump(exclude_none=True)
        return NetworkArgs(**fallback.model_dump(exclude_none=True) | told)

    def for_timm(self) -> dict[str, Any]:
        """Return what differs from timm's defaults, but the image size, as JSON holds it."""
        told = self.model_dump(exclude={"img_size"}, exclude_none=True)
        return {key: value for key, value in told.items() if (key, value) != ("in_chans", 3)}


def read_network_args(values: Any, source: str) -> NetworkArgs:
    """Read arguments that a checkpoint came with; ``source`` begins the error.

    Raises:
        InputError: an argument is not known here, or of the wrong type or out of range.
    """
    if not isinstance(values, Mapping):
        raise InputError(f"{source} is not a group of arguments")
    told = {k: v for k, v in values.items() if k not in IRRELEVANT and v is not None}
    if odd := next((key for key in told if key not in NetworkArgs.model_fields), None):
        raise InputError(
            f"{source} has {shown(odd)}, which may change the network and is not supported"
        )
    try:
        return NetworkArgs.model_validate(told)
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(
            f"{source}: {first['loc'][0]} is {shown(repr(first['input']))}: {shown(first['msg'])}"
        ) from None
