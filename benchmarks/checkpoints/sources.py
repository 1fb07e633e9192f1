"""Where a row's checkpoint comes from: each makes it, then says how params.yaml names it.

A source is a function of a folder and of the number of images that a head is fitted to; it gives
a context in which the checkpoint can be reached.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from benchmarks.checkpoints.builders import (
    classifier,
    fit,
    images,
    trained,
    under_their_names,
    widened,
)
from benchmarks.checkpoints.google_npz import save as save_npz
from pipeline.files import sha256_file
from pipeline.images.idx import FASHION_MNIST_CLASSES
from pipeline.process import quiet

Named = contextlib.AbstractContextManager[dict[str, Any]]  # values of params.yaml's `model`
Source = Callable[[Path, int], Named]

PROCESSORS = {
    "ViT": "ViTImageProcessor",
    "DeiT": "DeiTImageProcessor",
    "MobileViT": "MobileViTImageProcessor",
    "MobileViTV2": "MobileViTImageProcessor",
}
CLASSIFIERS = {kind: f"{kind}ForImageClassification" for kind in PROCESSORS} | {
    "DeiT": "DeiTForImageClassificationWithTeacher"
}


class _QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Do not write each request to standard error."""


@contextlib.contextmanager
def _served(folder: Path) -> Iterator[str]:
    """Serve a folder by HTTP on a free port of loopback; gives the address."""
    handler = partial(_QuietHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def in_zoo(name: str) -> Source:
    """Return a checkpoint that this repository has."""
    return lambda folder, count: contextlib.nullcontext({"checkpoint": name})


def deit_pth(architecture: str, weights: Path | None = None) -> Source:
    """Return a ``.pth`` as DeiT published them, at an address whose name has the hash.

    ``weights`` are trained ones of a narrower network.
    """

    @contextlib.contextmanager
    def source(folder: Path, count: int) -> Iterator[dict[str, Any]]:
        site = folder / "site"
        site.mkdir()
        model = widened(architecture, weights) if weights else classifier(architecture, count)
        torch.save({"model": model.state_dict()}, site / "unnamed")
        name = f"{architecture}-{sha256_file(site / 'unnamed')[:8]}.pth"
        (site / "unnamed").rename(site / name)
        with _served(site) as address:
            yield {
                "checkpoint": f"{address}/{name}",
                "architecture": architecture,
                "labels": str(_labels(folder)),
            }

    return source


def timm_state(
    architecture: str, weights: Path | None = None, image_size: int | None = None, **options: Any
) -> Source:
    """Return a user's own timm weights, with class names from a file.

    ``image_size`` is in pixels; ``options`` are more keys of `model` in params.yaml.
    """

    def source(folder: Path, count: int) -> Named:
        path = folder / f"{architecture}.safetensors"
        network = (
            trained(architecture, weights)
            if weights
            else classifier(architecture, count, image_size)
        )
        save_file(network.state_dict(), path)
        model = {"checkpoint": str(path), "architecture": architecture}
        identity = {"sha256": sha256_file(path), "labels": str(_labels(folder))}
        size = {"image_size": image_size} if image_size else {}
        return contextlib.nullcontext(model | identity | size | options)

    return source


def google(architecture: str, weights: Path | None = None) -> Source:
    """Return an ``.npz`` as Google's vision_transformer writes them.

    ``weights`` are trained ones, of this network or of a narrower one.
    """

    def source(folder: Path, count: int) -> Named:
        path = folder / f"{architecture}.npz"
        network = widened(architecture, weights) if weights else classifier(architecture, count)
        save_npz(network, path)
        return contextlib.nullcontext(
            {
                "checkpoint": str(path),
                "sha256": sha256_file(path),
                "labels": str(_labels(folder)),
            }
        )

    return source


def transformers_folder(
    kind: str, size: int, weights: Path | None = None, **options: Any
) -> Source:
    """Return a downloaded folder that transformers itself wrote."""

    def source(folder: Path, count: int) -> Named:
        import transformers

        parts = (f"{kind}Config", CLASSIFIERS[kind], PROCESSORS[kind])
        config, model, processor = (getattr(transformers, part) for part in parts)
        names = dict(enumerate(FASHION_MNIST_CLASSES))
        with quiet():
            network = model(config(**options, image_size=size, id2label=names)).eval()
            prepare = processor(**_sizes(kind, size))
            mean, std = getattr(prepare, "image_mean", None), getattr(prepare, "image_std", None)
            if weights:
                under_their_names(network, network.config.to_dict(), prepare.to_dict(), weights)
            else:
                heads = [m for n, m in network.named_modules() if n.endswith("classifier")]
                fit(network, heads, *images(count, size, mean or [0.0] * 3, std or [1.0] * 3))
            network.save_pretrained(folder / kind)
            prepare.save_pretrained(folder / kind)
        sha256 = sha256_file(folder / kind / "model.safetensors")
        return contextlib.nullcontext({"checkpoint": str(folder / kind), "sha256": sha256})

    return source


def _sizes(kind: str, size: int) -> dict[str, Any]:
    square = {"height": size, "width": size}
    if kind.startswith("MobileViT"):
        return {"size": {"shortest_edge": size + 32}, "crop_size": square}
    if kind == "DeiT":
        return {"size": {"height": size + 32, "width": size + 32}, "crop_size": square}
    return {"size": square}


def _labels(folder: Path) -> Path:
    path = folder / "labels.txt"
    path.write_text("\n".join(FASHION_MNIST_CLASSES) + "\n")
    return path
