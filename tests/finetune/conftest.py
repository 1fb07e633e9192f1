from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.finetune.params import FinetuneParams

TINY = "test_vit"  # 0.4 million weights, patches of 16 px
COLOURS = {"blue": (20, 20, 220), "red": (220, 20, 20)}


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def write_idx(path: Path, array: np.ndarray) -> None:
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    with gzip.open(path, "wb") as file:
        file.write(header + array.astype(np.uint8).tobytes())


def bars(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Grey images 28 x 28 of three classes that differ in which third is bright."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    images = rng.integers(0, 60, (n, 28, 28))
    for image, label in zip(images, labels, strict=True):
        image[9 * label : 9 * label + 9] += 180
    return images.astype(np.uint8), labels.astype(np.uint8)


@pytest.fixture
def idx_root(tmp_path: Path) -> Path:
    root = tmp_path / "idx"
    root.mkdir()
    for part, n, seed in (("train", 60, 0), ("t10k", 15, 1)):
        images, labels = bars(n, seed)
        write_idx(root / f"{part}-images-idx3-ubyte.gz", images)
        write_idx(root / f"{part}-labels-idx1-ubyte.gz", labels)
    return root


@pytest.fixture
def folder_root(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    for name, colour in COLOURS.items():
        (root / name).mkdir(parents=True)
        for number in range(6):
            image = Image.new("RGB", (40 + number, 30), colour)
            image.save(root / name / f"{number}.png")
    return root


def params_for(root: Path, **train: Any) -> FinetuneParams:
    """Two short phases of growing resolution, in exact arithmetic."""
    phases = [
        {"image_size": 32, "epochs": 1, "batch_size": 10, "lr": 1e-3, "lr_end": 5e-4},
        {
            "image_size": 48,
            "epochs": 1,
            "batch_size": 10,
            "lr": 5e-4,
            "patch_drop": 0.4,
        },
    ]
    values = {
        "data": {"root": root, "validation": 0.2, "workers": 0},
        "model": {"architecture": TINY},
        "train": {"phases": phases} | train,
        "run": {
            "precision": "float32",
            "compile": "off",
            "device": "cpu",
            "threads": 1,  # sums of other threads differ in their last bits
            "checkpoint_seconds": 0,
        },
    }
    return FinetuneParams.model_validate(values)


@pytest.fixture
def params(idx_root: Path) -> FinetuneParams:
    return params_for(idx_root)
