"""What training scripts write beside weights: timm's ``train.py``; others, as far as they agree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.checkpoints.metadata import CheckpointInfo, data_config
from pipeline.network_args import read_network_args

# What scripts call the architecture, in `args` and in Lightning's `hyper_parameters`.
NAMES = ("model", "arch", "architecture", "model_name", "model_arch", "backbone")
SIZES = ("img_size", "image_size", "input_size")
DATA = ("crop_pct", "crop_mode", "interpolation", "mean", "std")
RANDOM = "random"  # timm's interpolation in training only


def info_from_script(about: Mapping[str, Any], source: str) -> CheckpointInfo:
    """Read how a network was made; ``about`` is plain data out of a file.

    ``arch`` beside ``args`` is timm's: all that timm takes from them is read. Of other scripts only
    the architecture and the image size are.

    Raises:
        InputError: a value of timm's is of the wrong type or out of range, or an argument of the
            network is not supported.
    """
    args = _group(about.get("args"))
    hyper_parameters = _group(about.get("hyper_parameters"))
    named = [
        about.get("arch"),
        *(group.get(k) for group in (args, hyper_parameters) for k in NAMES),
    ]
    architecture = next((name for name in named if _is_architecture(name)), None)
    if architecture is None:
        return CheckpointInfo()
    group = args or hyper_parameters
    size = next((size for key in SIZES if (size := _size(group.get(key)))), None)
    data = {"input_size": size} if size else {}
    kwargs: dict[str, Any] = {}
    if isinstance(about.get("arch"), str) and args:
        told = {key: args[key] for key in DATA if args.get(key) not in (None, "", [], RANDOM)}
        data |= data_config(told, f"{source}: args")
        channels = args.get("in_chans") or (size[0] if size else None)
        kwargs = {"in_chans": channels, "global_pool": args.get("gp")}
        kwargs |= _group(args.get("model_kwargs"))
    return CheckpointInfo(
        architecture=architecture,
        data=data,
        kwargs=read_network_args(kwargs, f"{source}: args"),
    )


def _group(values: Any) -> dict[str, Any]:
    return dict(values) if isinstance(values, Mapping) else {}


def _is_architecture(name: Any) -> bool:
    import timm

    return isinstance(name, str) and len(name) < 100 and timm.is_model(name)


def _size(value: Any) -> tuple[int, int, int] | None:
    """Channels, height and width, of one number, of two or of three."""
    sizes = value if isinstance(value, list) else [value]
    if not all(isinstance(side, int) and 0 < side <= 4096 for side in sizes):
        return None
    match sizes:
        case [side]:
            return 3, side, side
        case [height, width]:
            return 3, height, width
        case [channels, height, width] if channels in (1, 3):
            return channels, height, width
    return None
