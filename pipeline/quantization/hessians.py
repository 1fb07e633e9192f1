"""Input statistics of all linear layers, kept in a file, since every exporter needs the same ones.

They depend on the float weights and the calibration images only: exporters collect them on the form
of `efficient.to_efficient`, before any of them smooths or rounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import nn

from pipeline.contract.contract import Preprocessing
from pipeline.files import atomic, write_bytes
from pipeline.images.samples import calibration_input
from pipeline.models.hooks import split
from pipeline.process import one_thread
from pipeline.quantization.gptq import InputStats, input_stats, linears

FILE = "hessians.safetensors"


def collect(
    network: nn.Module,
    kept: Sequence[str],
    samples: Path,
    preprocessing: Preprocessing,
    asking: str,
) -> dict[str, InputStats]:
    """Return statistics of each linear layer's input, except those that ``kept`` matches.

    Args:
        network: of `efficient.to_efficient`.
        kept: patterns of layer names.
        samples: the folder that has the calibration images.
        preprocessing: of the network.
        asking: the parameter that needs the images, for the error.

    Raises:
        ParamsError: there are no calibration images.
    """
    batches = split(calibration_input(samples, preprocessing, asking))
    # On one thread: how many share a sum decides its last bits.
    with one_thread():
        return input_stats(network, linears(network, kept), batches)


def write(stats: dict[str, InputStats], folder: Path) -> None:
    """Write folder ``folder``; with no ``stats`` its file is empty."""
    arrays: dict[str, torch.Tensor] = {}
    for name, layer in stats.items():
        arrays |= {f"{name}.hessian": layer.hessian, f"{name}.max_abs": layer.max_abs}
    with atomic(folder) as new:
        new.mkdir()
        write_bytes(new / FILE, save(arrays))


def read(folder: Path, names: Sequence[str]) -> dict[str, InputStats]:
    """Return what :func:`write` wrote of the layers ``names``.

    Raises:
        SafetensorError: a layer is not in the file.
    """
    with safe_open(folder / FILE, framework="pt") as file:
        return {
            name: InputStats(file.get_tensor(f"{name}.hessian"), file.get_tensor(f"{name}.max_abs"))
            for name in names
        }
