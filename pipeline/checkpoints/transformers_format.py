"""Read classifiers in the format of Hugging Face's transformers: ViT, DeiT, MobileViT, MobileViTv2.

``config.json`` says what the network is, ``preprocessor_config.json`` how images are prepared, and
the weights have transformers' names. All three are put into timm's words here; transformers itself
is not needed. What timm has no exact counterpart of is refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipeline.checkpoints.labels import check_names
from pipeline.checkpoints.metadata import CheckpointInfo
from pipeline.checkpoints.transformers_options import check_options
from pipeline.checkpoints.zoo import Pixels
from pipeline.errors import InputError, shown
from pipeline.schema import Fraction, Positive

if TYPE_CHECKING:
    import torch

State = dict[str, "torch.Tensor"]

MAX_CLASSES = 100_000
MAX_STAGES = 16
Width = Annotated[int, Field(ge=1, le=100_000)]  # and other counts of a network's parts

QKV = ("query", "key", "value")
KINDS = ("vit", "deit", "mobilevit", "mobilevitv2")
TIMM_EPS = {"vit": 1e-6, "deit": 1e-6, "mobilevit": 1e-5, "mobilevitv2": 1e-5}
# Pixels of a patch in the smallest map of features, a 32nd of the image. Maps without a
# whole number of patches are fitted by transformers and timm in different ways.
FEATURE_STEP = 64
PLACEHOLDER = re.compile(r"LABEL_\d+")
ONE_LABEL, SEVERAL_LABELS = "single_label_classification", "multi_label_classification"
# Width, blocks, heads, hidden width of the MLP: what timm calls these transformers.
VIT_SIZES = {
    (192, 12, 3, 768): "tiny",
    (384, 12, 6, 1536): "small",
    (768, 12, 12, 3072): "base",
    (1024, 24, 16, 4096): "large",
    (1280, 32, 16, 5120): "huge",
}
MOBILEVIT_SIZES: dict[tuple[int, ...], str] = {
    (64, 80, 96): "xxs",
    (96, 120, 144): "xs",
    (144, 192, 240): "s",
}
FILTERS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
# From transformers' names to timm's, one after the other. Those of a block come last.
VIT_NAMES = (
    (r"^(vit|deit)\.", ""),
    (r"^embeddings\.cls_token$", "cls_token"),
    (r"^embeddings\.distillation_token$", "dist_token"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^encoder\.layer\.", "blocks."),
    (r"^layernorm\.", "norm."),
    (r"^(cls_)?classifier\.", "head."),
    (r"^distillation_classifier\.", "head_dist."),
)
MOBILEVIT_NAMES = (
    (r"^mobilevit(v2)?\.", ""),
    (r"^conv_stem\.", "stem."),
    (r"^conv_1x1_exp\.", "final_conv."),
    (r"^classifier\.", "head.fc."),
    (r"^encoder\.layer\.(\d+)\.layer\.(\d+)\.", r"stages.\1.\2."),
    (r"^encoder\.layer\.(\d+)\.downsampling_layer\.", r"stages.\1.0."),
    (r"^encoder\.layer\.(\d+)\.", r"stages.\1.1."),
    (r"\.transformer\.layer\.", ".transformer."),
    (r"\.conv_1x1\.convolution\.", ".conv_1x1."),
    (r"\.(qkv_proj|out_proj|conv1|conv2)\.convolution\.", r".\1."),
    (r"\.ffn\.conv", ".mlp.fc"),
    (r"\.attention\.(qkv_proj|out_proj)\.", r".attn.\1."),
    (r"\.convolution\.", ".conv."),
    (r"\.normalization\.", ".bn."),
    (r"\.expand_1x1\.", ".conv1_1x1."),
    (r"\.conv_3x3\.", ".conv2_kxk."),
    (r"\.reduce_1x1\.", ".conv3_1x1."),
    (r"\.conv_projection\.", ".conv_proj."),
    (r"\.fusion\.", ".conv_fusion."),
    (r"(stages\.\d+\.1)\.layernorm\.", r"\1.norm."),
)
BLOCK_NAMES = (
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
)
PARTS = re.compile(r"\.attention\.attention\.(query|key|value)\.")
UNUSED = re.compile(r"(^|\.)(pooler\.|embeddings\.position_ids$)")


class Config(BaseModel):
    """The part of ``config.json`` that determines the network."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    model_type: Literal["vit", "deit", "mobilevit", "mobilevitv2"]
    architectures: tuple[str, ...] | None = None
    problem_type: str | None = None
    id2label: dict[Annotated[int, Field(ge=0, lt=MAX_CLASSES)], str] = Field(default_factory=dict)
    layer_norm_eps: float | None = Field(default=None, gt=0, lt=1)
    image_size: Pixels = 224
    patch_size: Pixels = 16
    hidden_size: Width = 768
    num_hidden_layers: Width = 12
    num_attention_heads: Width = 12
    intermediate_size: Width = 3072
    hidden_sizes: tuple[Width, ...] = Field(default=(144, 192, 240), max_length=MAX_STAGES)
    width_multiplier: float = Field(default=1.0, gt=0, le=10)

    @property
    def norm_eps(self) -> float:
        """What layer normalization adds to the variance."""
        usual = 1e-12 if self.model_type in ("vit", "deit") else 1e-5
        return usual if self.layer_norm_eps is None else self.layer_norm_eps


class Side(BaseModel):
    """A size as preprocessors write it; older ones write a bare number."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    height: Pixels | None = None
    width: Pixels | None = None
    shortest_edge: Pixels | None = None


class Preprocessor(BaseModel):
    """The part of ``preprocessor_config.json`` that determines the input."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    do_resize: bool = True
    size: Side | Pixels = 224
    resample: int = 2
    do_center_crop: bool | None = None
    crop_size: Side | Pixels | None = None
    do_rescale: bool = True
    rescale_factor: float = 1 / 255
    do_normalize: bool | None = None
    image_mean: tuple[Fraction, Fraction, Fraction] = (0.5, 0.5, 0.5)
    image_std: tuple[Positive, Positive, Positive] = (0.5, 0.5, 0.5)
    do_flip_channel_order: bool | None = None

    def crops(self, kind: str) -> bool:
        """Whether the center of the resized image is cut out; ``kind`` is the model_type."""
        return kind != "vit" if self.do_center_crop is None else self.do_center_crop

    def flips(self, kind: str) -> bool:
        """Whether the network expects BGR."""
        usual = kind in ("mobilevit", "mobilevitv2")
        return usual if self.do_flip_channel_order is None else self.do_flip_channel_order

    def normalizes(self, kind: str) -> bool:
        """Whether mean and standard deviation are applied."""
        usual = kind in ("vit", "deit")
        return usual if self.do_normalize is None else self.do_normalize


def is_transformers(config: Any) -> bool:
    """Whether a ``config.json`` is of transformers' format rather than timm's."""
    return isinstance(config, dict) and "model_type" in config and "architecture" not in config


def checkpoint_info(config: Any, preprocessor: Any, source: str) -> CheckpointInfo:
    """Return in timm's terms what a model is and how it is fed.

    Raises:
        InputError: timm has no such network, it is not a classifier, or its preprocessing is not
            supported.
    """
    settings = read_config(config, source)
    labels = _labels(settings, source)
    if any(PLACEHOLDER.fullmatch(label) for label in labels):
        labels = ()
    sigmoid = settings.problem_type == SEVERAL_LABELS  # of each label, here of the only one
    prepared = _read(Preprocessor, preprocessor, f"{source}: preprocessor_config.json")
    return CheckpointInfo(
        architecture=_architecture(settings, source),
        labels=labels or None,
        activation="sigmoid" if sigmoid else None,
        data=_data(settings, prepared, source),
        norm_eps=None if settings.norm_eps == TIMM_EPS[settings.model_type] else settings.norm_eps,
    )


def no_preprocessor(config: Any, path: Path) -> InputError:
    """The error that says how to make the file that a model needs beside ``config.json``."""
    kind = {"vit": "ViT", "deit": "DeiT"}.get(
        read_config(config, str(path)).model_type, "MobileViT"
    )
    return InputError(
        f"{path} is missing, which says how images are prepared; write it with what training used, "
        f"e.g. transformers.{kind}ImageProcessor(size=224, image_mean=[0.5, 0.5, 0.5], "
        f"image_std=[0.5, 0.5, 0.5]).save_pretrained({str(path.parent)!r})"
    )


def _labels(settings: Config, source: str) -> tuple[str, ...]:
    """Class names in the order of the outputs; ImageNet has two cranes, so they may be equal."""
    count = len(settings.id2label)
    if settings.id2label.keys() != set(range(count)):
        raise InputError(f"{source}: config.json: id2label does not name the classes 0 to {count}")
    labels = tuple(settings.id2label[i] for i in range(count))
    check_names(labels, f"{source}: config.json")
    return labels


def read_config(config: Any, source: str) -> Config:
    """Read ``config.json``.

    Raises:
        InputError: a model of another kind, or values that no such model has.
    """
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind not in KINDS:
        raise InputError(
            f"{source}: its config.json is of a {shown(repr(kind))} model; of transformers' models "
            f"{', '.join(KINDS)} are read. Look for timm's copy of the model on the hub"
        )
    check_options(config, source)
    settings = _read(Config, config, f"{source}: config.json")
    _check_problem(settings, source)
    classes = settings.architectures or ()
    if classes and not any("ForImageClassification" in name for name in classes):
        raise InputError(
            f"{source} is not a classifier but {shown(classes[0])}; fine-tune it on labelled "
            "images first (docs/fine-tuning.md)"
        )
    return settings


def _check_problem(settings: Config, source: str) -> None:
    """Refuse what its outputs cannot be read as: several labels an image, or a quantity."""
    problem = settings.problem_type
    if problem == SEVERAL_LABELS and len(settings.id2label) > 1:
        raise InputError(
            f"{source}: config.json: problem_type is {SEVERAL_LABELS} with "
            f"{len(settings.id2label)} labels; several labels an image are not supported, and a "
            "softmax would answer with one of them"
        )
    if problem not in (None, ONE_LABEL, SEVERAL_LABELS):
        raise InputError(
            f"{source}: config.json: problem_type is {shown(repr(problem))}; {ONE_LABEL} and, with "
            f"one label, {SEVERAL_LABELS} are read"
        )


def to_timm(state: Mapping[str, torch.Tensor], config: Any, preprocessor: Any) -> State:
    """Return weights by timm's names and shapes; the network computes the same logits."""
    import torch

    settings, prepared = read_config(config, ""), Preprocessor.model_validate(preprocessor)
    names = VIT_NAMES if settings.model_type in ("vit", "deit") else MOBILEVIT_NAMES
    renamed: State = {}
    for key, value in state.items():
        if not UNUSED.search(key):
            for pattern, name in (*names, *BLOCK_NAMES):
                key = re.sub(pattern, name, key)
            renamed[key] = value
    for key in [key for key in renamed if ".attention.attention.query." in key]:
        parts = [renamed.pop(PARTS.sub(f".attention.attention.{part}.", key), None) for part in QKV]
        if not any(part is None for part in parts):
            renamed[PARTS.sub(".attn.qkv.", key)] = torch.cat(parts)  # type: ignore[arg-type]
    if settings.model_type == "deit" and "head_dist.weight" not in renamed:
        _one_head(renamed)
    if prepared.flips(settings.model_type) and "stem.conv.weight" in renamed:
        # The network wants BGR: its first convolution takes channels in the other order instead.
        renamed["stem.conv.weight"] = renamed["stem.conv.weight"].flip(1)
    return renamed


def _one_head(state: State) -> None:
    """A distilled network that answers with its first head: timm's is the mean of two."""
    import torch

    for key in ("head.weight", "head.bias"):
        if key in state:
            state[key.replace("head", "head_dist")] = torch.zeros_like(state[key])
            state[key] = 2 * state[key]


def _architecture(settings: Config, source: str) -> str:
    import timm

    names: list[str] = []
    if settings.model_type in ("vit", "deit"):
        shape = (
            settings.hidden_size,
            settings.num_hidden_layers,
            settings.num_attention_heads,
            settings.intermediate_size,
        )
        size = VIT_SIZES.get(shape)
        kind = f"{size}_distilled" if settings.model_type == "deit" else size
        sizes = dict.fromkeys((settings.image_size, 224, 384))
        names = [
            f"{settings.model_type}_{kind}_patch{settings.patch_size}_{side}" for side in sizes
        ]
        what = f"width, blocks, heads and MLP width {shape} and patches of {settings.patch_size}"
    elif settings.model_type == "mobilevit":
        names = [f"mobilevit_{MOBILEVIT_SIZES.get(settings.hidden_sizes[:3])}"]
        what = f"hidden_sizes {list(settings.hidden_sizes)}"
    else:
        names = [f"mobilevitv2_{round(100 * settings.width_multiplier):03}"]
        what = f"width_multiplier {settings.width_multiplier:g}"
    architecture = next((name for name in names if timm.is_model(name)), None)
    if architecture is None:
        raise InputError(f"{source}: timm has no {settings.model_type} with {what}")
    return architecture


def _data(settings: Config, prepared: Preprocessor, source: str) -> dict[str, Any]:
    side, squashed = _edge(prepared.size, settings.model_type)
    crop = side
    if prepared.crops(settings.model_type):
        crop = _edge(prepared.crop_size or settings.image_size, "vit")[0]
    factor = prepared.rescale_factor if prepared.do_rescale else 1.0
    problem = None
    if not prepared.do_resize:
        problem = "does not resize"
    elif not side:
        problem = "says no size"
    elif not squashed and not prepared.crops(settings.model_type):
        problem = "leaves images of several shapes"
    elif settings.model_type == "mobilevitv2" and crop % FEATURE_STEP:
        problem = f"makes images of {crop} pixels, no multiple of {FEATURE_STEP} as timm needs"
    elif crop > side:
        problem = f"cuts {crop} pixels out of {side}"
    elif abs(factor * 255 - 1) > 1e-6:
        problem = f"multiplies pixels by {factor:g}, not by 1/255"
    elif prepared.resample not in FILTERS:
        problem = f"resizes with an unknown filter {shown(prepared.resample)}"
    if problem:
        raise InputError(f"{source}: its preprocessor_config.json {problem}; not supported")
    plain = not prepared.normalizes(settings.model_type)
    return {
        "input_size": (3, crop, crop),
        "crop_pct": _crop_pct(crop, side),
        "crop_mode": "squash" if squashed else "center",
        "interpolation": FILTERS[prepared.resample],
        "mean": (0.0, 0.0, 0.0) if plain else prepared.image_mean,
        "std": (1.0, 1.0, 1.0) if plain else prepared.image_std,
    }


def _edge(size: Side | int, kind: str) -> tuple[int, bool]:
    """Pixels to resize to, and whether both sides are: of a bare number the kind decides."""
    if isinstance(size, int):
        return size, kind in ("vit", "deit")
    if size.shortest_edge:
        return size.shortest_edge, False
    return size.height or 0, size.height == size.width


def _crop_pct(crop: int, side: int) -> float:
    """The fraction from which timm computes ``side`` again, rounding down."""
    exact = crop / side
    return exact if math.floor(crop / exact) == side else crop / (side + 0.25)


T = TypeVar("T", bound=BaseModel)


def _read(model: type[T], values: Any, source: str) -> T:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = shown(".".join(map(str, first["loc"])) or "it")
        value = shown(repr(first["input"]))
        raise InputError(f"{source}: {key} is {value}: {shown(first['msg'])}") from None
