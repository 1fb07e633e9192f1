"""Stage ``fetch``: float weights from wherever ``model.checkpoint`` says, and the contract.

What is known about a checkpoint comes, first hit wins, from params.yaml, from the zoo or the hub's
``config.json``, from the file's own metadata, and from timm's configuration of the architecture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import paths
from pipeline.checkpoints import zoo
from pipeline.checkpoints.locate import locate
from pipeline.checkpoints.metadata import IMAGENET_CLASSES, CheckpointInfo
from pipeline.checkpoints.read import read_weights
from pipeline.contract.contract import Checkpoint, Contract, Preprocessing
from pipeline.contract.files import CONTRACT_FILE, MODEL_FILE
from pipeline.errors import InputError, ParamsError, exit_on_error
from pipeline.files import atomic, sha256_file, write_bytes, write_text
from pipeline.params import Params, load_params

if TYPE_CHECKING:
    import torch
    from torch import nn

IMAGENET_21K = (21_841, 21_843)  # classes, as Google and timm count them

MAX_RESIZE = 8192  # pixels


def fetch(params: Params, out: Path) -> None:
    """Write folder ``out``: ``model.safetensors`` (float32, timm's names) and ``contract.json``.

    Raises:
        ParamsError: the checkpoint is not known, or its hash is missing.
        NetworkError: it cannot be downloaded.
        IntegrityError: its bytes are not the promised ones.
        InputError: it is not a classifier that timm can build, or its weights do not fit.
    """
    origin = locate(params.model)

    from safetensors.torch import save

    state, in_file = read_weights(origin.path, origin.source)
    info = origin.info.merged_with(in_file)
    model, labels, preprocessing = _build(
        origin.to_timm(state), info, origin.source, params.model.data
    )
    with atomic(out) as new:
        new.mkdir()
        arrays = {key: value.contiguous() for key, value in model.state_dict().items()}
        write_bytes(new / MODEL_FILE, save(arrays, {"format": "pt"}))
        checkpoint = Checkpoint(
            name=origin.name,
            architecture=str(info.architecture),
            source=origin.source,
            source_sha256=origin.sha256,
            sha256=sha256_file(new / MODEL_FILE),
            license=info.license,
            norm_eps=info.norm_eps,
        )
        contract = Contract(
            name=origin.name,
            version=params.release.version,
            preprocessing=preprocessing,
            labels=labels,
            checkpoint=checkpoint,
        )
        write_text(new / CONTRACT_FILE, contract.to_json())


def _build(
    state: Mapping[str, torch.Tensor], info: CheckpointInfo, source: str, told: Mapping[str, Any]
) -> tuple[nn.Module, tuple[str, ...], Preprocessing]:
    """Make the model with its weights, and say how to feed it and what its outputs are called."""
    from pipeline.models import build

    if info.architecture is None:
        raise ParamsError(
            f"params.yaml: model.architecture is missing, and {source} does not say; give timm's "
            "name, e.g. deit_tiny_patch16_224"
        )
    cfg = build.pretrained_cfg(info.architecture)
    labels = info.labels or ()
    classes = build.head_size(cfg, state) or len(labels) or IMAGENET_CLASSES
    preprocessing = _preprocessing({**info.data, **told}, cfg)
    model = build.create_from(
        state,
        info.architecture,
        num_classes=classes,
        image_size=preprocessing.size[0],
        source=source,
    )
    if classes in IMAGENET_21K and not labels:
        raise InputError(
            f"{source} has a head for the {classes} classes of ImageNet-21k, on which it was only "
            "pretrained. Choose one that was fine-tuned, or fine-tune it (docs/fine-tuning.md)"
        )
    if len(labels) != classes:
        names = f"{len(labels)} labels are given" if labels else "no labels are given"
        raise InputError(
            f"{source} has {classes} classes, but {names}; set model.labels in params.yaml to a "
            f"file with one class name a line, or to {zoo.IMAGENET} for the 1000 of ImageNet-1k"
        )
    return model, labels, preprocessing


def _preprocessing(data: Mapping[str, Any], cfg: Mapping[str, Any]) -> Preprocessing:
    from timm.data import resolve_data_config

    config = resolve_data_config(dict(data), pretrained_cfg=dict(cfg))
    _, height, width = config["input_size"]
    resize = math.floor(height / config["crop_pct"])
    if resize > MAX_RESIZE:
        raise InputError(
            f"crop_pct {config['crop_pct']:g} would resize images to {resize} pixels, more than "
            f"{MAX_RESIZE}, to cut out {height}; it is input size / resized size"
        )
    return Preprocessing(
        size=(height, width),
        resize=resize,
        crop_pct=config["crop_pct"],
        crop_mode=config["crop_mode"],
        interpolation=config["interpolation"],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )


def main() -> None:
    with exit_on_error():
        fetch(load_params(), paths.CHECKPOINT)
        print(f"fetch: float weights and contract in {paths.CHECKPOINT}")


if __name__ == "__main__":
    main()
