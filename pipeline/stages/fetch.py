"""Stage ``fetch``: float weights from wherever ``model.checkpoint`` says, and the contract.

What is known about a checkpoint comes, first hit wins, from params.yaml, from the zoo or the hub's
``config.json``, from the file's own metadata, and from timm's configuration of the architecture.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline import paths
from pipeline.checkpoints import zoo
from pipeline.checkpoints.locate import locate
from pipeline.checkpoints.metadata import IMAGENET_CLASSES, CheckpointInfo
from pipeline.checkpoints.read import read_weights
from pipeline.contract.contract import Activation, Checkpoint, Contract, Preprocessing
from pipeline.contract.files import CONTRACT_FILE, MODEL_FILE
from pipeline.errors import InputError, ParamsError, exit_on_error
from pipeline.files import atomic, sha256_file, write_bytes, write_text
from pipeline.images.sources import check_source, class_folders, labels_of_folders
from pipeline.network_args import ImageSize, NetworkArgs
from pipeline.params import THRESHOLD, Model, Params, load_params

if TYPE_CHECKING:
    from torch import nn

    from pipeline.untrusted.state_dict import State

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

    states, in_file = read_weights(origin.path, origin.source)
    info = origin.info.merged_with(in_file)
    states = {place: origin.to_timm(state) for place, state in states.items()}
    made = _make(states, info, origin.source, params.model, params.samples.source)
    with atomic(out) as new:
        new.mkdir()
        arrays = {key: value.contiguous() for key, value in made.model.state_dict().items()}
        write_bytes(new / MODEL_FILE, save(arrays, {"format": "pt"}))
        checkpoint = Checkpoint(
            name=origin.name,
            architecture=str(info.architecture),
            source=origin.source,
            source_sha256=origin.sha256,
            sha256=sha256_file(new / MODEL_FILE),
            license=info.license,
            norm_eps=info.norm_eps,
            kwargs=made.kwargs or None,
            weights=made.weights,
        )
        contract = Contract(
            name=origin.name,
            version=params.release.version,
            preprocessing=dataclasses.replace(
                made.preprocessing,
                orientation=params.model.orientation,
                background=params.model.background,
            ),
            labels=made.labels,
            checkpoint=checkpoint,
            activation=made.activation,
            threshold=params.model.threshold if made.activation == "sigmoid" else None,
        )
        write_text(new / CONTRACT_FILE, contract.to_json())
    for note in (*info.notes, *made.notes):
        print(f"fetch: {note}")


@dataclass(frozen=True)
class Made:
    """A model with its weights, how to feed it, and what its outputs are called."""

    model: nn.Module
    labels: tuple[str, ...]
    activation: Activation
    preprocessing: Preprocessing
    kwargs: Mapping[str, Any]  # of `timm.create_model`
    weights: str | None  # the place of the weights in the file, where it has several
    notes: tuple[str, ...]  # what was done to them, for the log


def _make(
    states: Mapping[str, State], info: CheckpointInfo, source: str, params: Model, images: Path
) -> Made:
    """Build the network; ``images`` may name its classes where nothing else does."""
    from pipeline.checkpoints.fitting import fit
    from pipeline.models import build

    if info.architecture is None:
        raise ParamsError(
            f"params.yaml: model.architecture is missing, and {source} does not say; give timm's "
            "name, e.g. deit_tiny_patch16_224" + _labels_too(info, images)
        )
    cfg = build.pretrained_cfg(info.architecture)
    channels, *pixels = info.data.get("input_size", (3,))
    channels = info.kwargs.in_chans or channels
    kwargs = info.kwargs.merged_with(NetworkArgs(in_chans=channels)).for_timm()
    told = info.kwargs.image_size or tuple(pixels) or None
    planned = build.outline(
        info.architecture, num_classes=IMAGENET_CLASSES, image_size=told, kwargs=kwargs
    )
    fitted = fit(states, planned, source, weights=params.weights)
    embedded = build.trained_size(fitted.state, planned, source)
    trained = told or embedded
    size = params.size or trained or tuple(cfg["input_size"][1:])
    preprocessing = _preprocessing(info, cfg, size, channels, params.crop_pct)
    labels = info.labels or ()
    classes = build.head_size(cfg, fitted.adapted) or len(labels) or IMAGENET_CLASSES
    activation = params.activation or info.activation or "softmax"
    _check_head(classes, activation, params.threshold, source)
    named = classes
    if activation == "sigmoid":
        named = 2
        labels = labels if len(labels) != 1 else ()  # transformers name the one output
    model = build.create_from(
        fitted.state,
        info.architecture,
        num_classes=classes,
        image_size=size,
        source=source,
        trained_size=embedded or trained,
        kwargs=kwargs,
    )
    notes = list(fitted.notes)
    if not labels and (labels := labels_of_folders(images, named)):
        notes.append(
            f"the labels are the {named} class folders of {images}, sorted "
            f"({labels[0]} to {labels[-1]}); model.labels names others"
        )
    if activation == "sigmoid":
        _check_yes_and_no(labels, source)
        notes.append(
            f"a probability above {params.threshold:g} means {labels[1]!r}, any other {labels[0]!r}"
        )
    else:
        _check_classes(classes, labels, source, images)
    was = embedded or trained or tuple(cfg["input_size"][1:])
    if cfg.get("fixed_input_size") and was != size:
        notes.append(
            f"the weights were trained at {_pixels(was)} and are fitted to {_pixels(size)} by "
            "interpolation; model.image_size chooses the size"
        )
    elif embedded:
        notes.append(f"the image size is {_pixels(size)}, what the position embeddings are for")
    return Made(model, labels, activation, preprocessing, kwargs, fitted.place, tuple(notes))


def _pixels(size: ImageSize) -> str:
    height, width = size
    return f"{height} x {width} pixels (height x width)"


def _labels_too(info: CheckpointInfo, images: Path) -> str:
    """What to say of labels where another key is missing, so that both are set at once."""
    if info.labels or class_folders(images):
        return ""
    return (
        ". model.labels is, too: give a file with one class name a line, or images in "
        "class folders in samples.source"
    )


def _check_head(classes: int, activation: Activation, threshold: float, source: str) -> None:
    if activation == "sigmoid" and classes > 1:
        raise InputError(
            f"{source} has {classes} outputs and a sigmoid of each, several labels an image, which "
            "is not supported; set model.activation: softmax in params.yaml if exactly one of them "
            "is right"
        )
    if activation == "softmax" and classes == 1:
        raise InputError(
            f"{source} has one output, of which a softmax always says 100%; if it was trained to "
            "say yes or no (binary cross entropy), set model.activation: sigmoid in params.yaml"
        )
    if activation == "softmax" and threshold != THRESHOLD:
        raise ParamsError(
            f"params.yaml: model.threshold is {threshold:g}, which is of one sigmoid output, and "
            f"{source} has {classes} classes, of which the largest is the answer; leave it at "
            f"{THRESHOLD:g}"
        )


def _check_yes_and_no(labels: tuple[str, ...], source: str) -> None:
    if len(labels) != 2:
        raise InputError(
            f"{source} answers yes or no with one output and needs two labels, the one for no "
            "first; set model.labels in params.yaml to a file of two lines, or samples.source to a "
            "folder with two class folders"
        )


def _check_classes(classes: int, labels: tuple[str, ...], source: str, images: Path) -> None:
    if classes in IMAGENET_21K and not labels:
        raise InputError(
            f"{source} has a head for the {classes} classes of ImageNet-21k, on which it was only "
            "pretrained. Choose one that was fine-tuned, or fine-tune it (docs/fine-tuning.md)"
        )
    if len(labels) != classes:
        names = f"{len(labels)} labels are given" if labels else "no labels are given"
        if not labels and (folders := class_folders(images)):
            names += f" and {images} has {len(folders)} class folders"
        raise InputError(
            f"{source} has {classes} classes, but {names}; set model.labels in params.yaml to a "
            f"file with one class name a line, or to {zoo.IMAGENET} for the 1000 of ImageNet-1k"
        )


def _preprocessing(
    info: CheckpointInfo,
    cfg: Mapping[str, Any],
    size: ImageSize,
    channels: int,
    crop_pct: float | None,
) -> Preprocessing:
    """Return how images become input: by params, by what the checkpoint says, by timm."""
    from timm.data import resolve_data_config

    told = {"input_size": (3, *size)} | ({"crop_pct": crop_pct} if crop_pct else {})
    config = resolve_data_config({**info.data, **told}, pretrained_cfg=dict(cfg))
    height, width = (math.floor(side / config["crop_pct"]) for side in size)
    if max(height, width) > MAX_RESIZE:
        raise InputError(
            f"crop_pct {config['crop_pct']:g} would resize images to {max(height, width)} pixels, "
            f"more than {MAX_RESIZE}, to cut out {max(size)}; it is input size / resized size"
        )
    return Preprocessing(
        size=size,
        resize=height if size[0] == size[1] else (height, width),
        crop_pct=config["crop_pct"],
        crop_mode=config["crop_mode"],
        interpolation=config["interpolation"],
        mean=_of_channels(config["mean"], channels),
        std=_of_channels(config["std"], channels),
        colour_order="RGB" if channels == 3 else "L",
    )


def _of_channels(values: Sequence[float], channels: int) -> tuple[float, ...]:
    """Of grey, the mean of the colours', as timm's loader takes it."""
    if len(values) == channels:
        return tuple(values)
    return (values[0] if len(set(values)) == 1 else sum(values) / len(values),) * channels


def main() -> None:
    with exit_on_error():
        params = load_params()
        check_source(params.samples.source)  # here, since DVC would say "[Errno 2]" after it
        fetch(params, paths.CHECKPOINT)
        print(f"fetch: float weights and contract in {paths.CHECKPOINT}")


if __name__ == "__main__":
    main()
