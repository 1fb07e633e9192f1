"""Classifiers in place of published ones: random bodies with fitted heads, or widened networks.

Weights of the published checkpoints are not to be had on machines without a network, and random
heads answer at random, so that no parity could be told. A head that is fitted to what a random body
makes of labelled images is an honest, if weak, classifier; of trained weights wider ones are made.
"""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from pipeline.checkpoints.transformers_format import to_timm
from pipeline.images.idx import FASHION_MNIST_CLASSES, read_images, read_labels
from pipeline.images.sources import FASHION_MNIST_FILES
from pipeline.models.build import create

BATCH = 8
RIDGE = 30.0  # of the features' mean square: leans on what is large in them, as training does
RESIDUAL = 0.25  # of what a block adds; trained blocks add little to their input, too
SURENESS = 10.0  # of the logits, as trained classifiers have
ADDED = ("attn.proj", "mlp.fc2", "output.dense", "out_proj")  # the last layer of a residual branch
LAYER_SCALES = ("gamma", "gamma_1", "gamma_2")  # timm's names; they begin at 1e-6 or so
LAYER_SCALE = 0.5  # such that blocks matter
UNEVEN = 0.5  # deviation of a copy's share, of the even one
SOURCE = Path("embedded/fashion_mnist")


def trained(architecture: str, weights: Path) -> nn.Module:
    """A timm classifier with weights that were trained under the same names."""
    model = create(architecture, num_classes=len(FASHION_MNIST_CLASSES))
    state = {key: value.float() for key, value in load_file(weights).items()}
    model.load_state_dict(state)
    return model


def widened(architecture: str, weights: Path) -> nn.Module:
    """Return a vision transformer that computes what a narrower, trained one does.

    As Net2Wider does (Chen et al., 2016): each channel and each head is repeated, and the layers
    that read them have shares of the trained weights, which differ at random.
    """
    model = create(architecture, num_classes=len(FASHION_MNIST_CLASSES))
    narrow = {key: value.float() for key, value in load_file(weights).items()}
    times = model.state_dict()["cls_token"].shape[-1] // narrow["cls_token"].shape[-1]
    chance = torch.Generator().manual_seed(0)

    def wide(name: str, tensor: torch.Tensor) -> torch.Tensor:
        if name.endswith(("cls_token", "pos_embed")):
            return tensor.repeat(1, 1, times)
        if not name.startswith("head."):
            parts = 3 if ".qkv." in name else 1  # query, key and value, one below the other
            tensor = torch.cat([part for one in tensor.chunk(parts) for part in [one] * times])
        if tensor.ndim != 2:
            return tensor
        uneven = UNEVEN * torch.randn(len(tensor), times, tensor.shape[1], generator=chance)
        shares: torch.Tensor = (1 + uneven - uneven.mean(1, keepdim=True)) / times
        return (tensor[:, None] * shares).flatten(1)

    model.load_state_dict({name: wide(name, tensor) for name, tensor in narrow.items()})
    return model


def under_their_names(
    model: nn.Module, config: dict[str, Any], preprocessor: dict[str, Any], weights: Path
) -> None:
    """Give a model of transformers weights that were trained under timm's names.

    Which is which the reader of the pipeline says: it renames tensors that are numbered.
    """
    state = model.state_dict()
    numbered = {key: torch.full_like(t, i) for i, (key, t) in enumerate(state.items())}
    names = {
        name: list(state)[int(tensor.flatten()[0])]
        for name, tensor in to_timm(numbered, config, preprocessor).items()
    }
    trained = load_file(weights).items()
    model.load_state_dict(state | {names[name]: t for name, t in trained if name in names})


def data_set(folder: Path, count: int) -> Path:
    """Write the images of :func:`images` as the data set that samples are taken from.

    Trained classifiers are sure of most images; one whose head was fitted to a few is sure of these
    only. Nothing is claimed of its accuracy.
    """
    for name, dimensions in zip(FASHION_MNIST_FILES, (3, 1), strict=True):
        content = gzip.decompress((SOURCE / name).read_bytes())
        header = 4 + 4 * dimensions
        size = 28 * 28 if dimensions == 3 else 1
        number = count.to_bytes(4, "big")
        part = content[:4] + number + content[8:header] + content[-count * size :]
        (folder / name).write_bytes(gzip.compress(part, mtime=0))
    return folder


def one_photograph(folder: Path) -> Path:
    """Write a folder of one photograph: with the largest models each costs minutes."""
    photographs = folder / "photographs"
    photographs.mkdir()
    shutil.copy("embedded/photos/cat-451x299.jpg", photographs)
    return photographs


def classifier(architecture: str, count: int, image_size: int | None = None) -> nn.Module:
    """A timm classifier of Fashion-MNIST's ten classes, its head fitted on ``count`` images.

    ``image_size`` is in pixels; None is what timm has for the architecture.
    """
    model = create(architecture, num_classes=len(FASHION_MNIST_CLASSES), image_size=image_size)
    timm_model: Any = model
    cfg = timm_model.pretrained_cfg
    heads = timm_model.get_classifier()
    fit(
        model,
        [_linear(head) for head in (heads if isinstance(heads, tuple) else (heads,))],
        *images(count, image_size or cfg["input_size"][-1], cfg["mean"], cfg["std"]),
    )
    return model


def _linear(head: nn.Module) -> nn.Module:
    """The linear layer of a head, which may have a normalization before it."""
    return next(module for module in head.modules() if isinstance(module, nn.Linear))


def fit(
    model: nn.Module, heads: Sequence[nn.Module], pixels: torch.Tensor, labels: torch.Tensor
) -> None:
    """Make random weights, statistics of normalization, and heads by ridge regression on labels."""
    _spread(model)
    _normalize(model, pixels)
    seen: list[list[torch.Tensor]] = [[] for _ in heads]
    hooks = [
        head.register_forward_pre_hook(lambda _, args, kept=kept: kept.append(args[0]))
        for head, kept in zip(heads, seen, strict=True)
    ]
    with torch.inference_mode():
        for batch in pixels.split(BATCH):
            model(batch)
    for hook in hooks:
        hook.remove()
    for head, kept in zip(heads, seen, strict=True):
        _solve(head, torch.cat(kept), labels)


def images(
    count: int, size: int, mean: Sequence[float], std: Sequence[float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """The last images of the embedded set as model input, and their labels."""
    grey = torch.from_numpy(read_images(SOURCE / FASHION_MNIST_FILES[0])[-count:].copy())
    labels = torch.from_numpy(read_labels(SOURCE / FASHION_MNIST_FILES[1])[-count:].astype("int64"))
    large = nn.functional.interpolate(
        grey[:, None].float() / 255, (size, size), mode="bicubic", antialias=True
    )
    middle, width = (torch.tensor(value).view(1, 3, 1, 1) for value in (mean, std))
    return (large - middle) / width, labels


def _spread(model: nn.Module) -> None:
    """Initialize so that what goes in can be told from what comes out, also after 32 blocks."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.rpartition(".")[2] in LAYER_SCALES:
                parameter.fill_(LAYER_SCALE)
        for name, module in model.named_modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                module.weight.normal_(0, module.weight[0].numel() ** -0.5)
                if name.endswith(ADDED):
                    module.weight.mul_(RESIDUAL)


def _normalize(model: nn.Module, pixels: torch.Tensor) -> None:
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    if not norms:
        return
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
    model.train()
    with torch.no_grad():
        for batch in pixels.split(BATCH):
            model(batch)
    model.eval()


def _solve(head: Any, features: torch.Tensor, labels: torch.Tensor) -> None:
    x, y = features.double(), nn.functional.one_hot(labels, head.out_features).double()
    centre, middle = x.mean(0), y.mean(0)
    x = x - centre
    gram = x @ x.T
    ridge = RIDGE * gram.diagonal().mean() * torch.eye(len(x), dtype=torch.float64)
    weight = SURENESS * (x.T @ torch.linalg.solve(gram + ridge, y - middle)).T
    with torch.no_grad():
        head.weight.copy_(weight)
        head.bias.copy_(SURENESS * middle - weight @ centre)
