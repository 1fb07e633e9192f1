from __future__ import annotations

import argparse
import fractions
import os
import random
import struct
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pipeline.checkpoints.read import read_weights
from pipeline.errors import InputError
from pipeline.files import sha256_file
from pipeline.untrusted.state_dict import open_checkpoint

STATE = {"head.weight": torch.arange(6.0).reshape(2, 3), "head.bias": torch.ones(2)}


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_safetensors_come_with_their_metadata(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "a.safetensors", {"architecture": "x"})
    opened = open_checkpoint(tmp_path / "a.safetensors")
    assert equal(opened.state, STATE)
    assert opened.metadata == {"architecture": "x"}


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".ckpt", ".pth.tar"])
@pytest.mark.parametrize(
    "content",
    [STATE, {"model": STATE}, {"state_dict": STATE, "epoch": 300}],
    ids=["plain", "model", "state_dict"],
)
def test_pickled_state_dicts_are_read(tmp_path: Path, suffix: str, content: Any) -> None:
    torch.save(content, tmp_path / f"a{suffix}")
    opened = open_checkpoint(tmp_path / f"a{suffix}")
    assert equal(opened.state, STATE)
    assert opened.metadata == {}


def test_the_old_pickle_format_is_read(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    assert equal(open_checkpoint(tmp_path / "a.pth").state, STATE)


class Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.marker),))


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_named_and_not_run(tmp_path: Path, zipped: bool) -> None:
    evil = {"model": STATE, "extra": Evil(tmp_path / "ran")}
    torch.save(evil, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match=r"a\.pth is a pickle .*(posix|nt)\.mkdir.*safetensors"):
        open_checkpoint(tmp_path / "a.pth")
    assert not (tmp_path / "ran").exists()


def test_what_training_scripts_write_beside_weights_becomes_plain_data(tmp_path: Path) -> None:
    args = argparse.Namespace(
        lr=0.1, model="vit", out=Path("runs/1"), size=(96, 128), nested={"a": [None, True]}
    )
    beside = {"args": args, "epoch": 3, "best": np.float64(0.5), "scheduler": Counter({30: 1})}
    torch.save({"model": STATE} | beside, tmp_path / "a.pth")
    opened = open_checkpoint(tmp_path / "a.pth")
    assert equal(opened.state, STATE)
    expected = {"lr": 0.1, "model": "vit", "out": None, "size": [96, 128]}
    assert opened.about == {"args": expected | {"nested": {"a": [None, True]}}}


def test_another_object_beside_the_weights_is_named(tmp_path: Path) -> None:
    torch.save({"model": STATE, "args": fractions.Fraction(1, 2)}, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"fractions\.Fraction"):
        open_checkpoint(tmp_path / "a.pth")


def test_every_state_dict_of_a_file_is_found_but_no_optimizer(tmp_path: Path) -> None:
    layer = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    content = {
        "student": STATE,
        "ema": {"module": dict(STATE)},
        "optimizer": optimizer.state_dict(),
    }
    torch.save(content, tmp_path / "a.pth")
    opened = open_checkpoint(tmp_path / "a.pth")
    assert sorted(opened.states) == ["ema.module", "student"]
    assert all(equal(state, STATE) for state in opened.states.values())


def whole_safetensors(tmp_path: Path) -> bytes:
    save_file(STATE, tmp_path / "whole.safetensors")
    return (tmp_path / "whole.safetensors").read_bytes()


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole[:-1],
        lambda whole: whole[:20],
        lambda whole: b"",
        lambda whole: struct.pack("<Q", 1 << 62) + whole[8:],
        lambda whole: struct.pack("<Q", 99_000_000) + b"{" * 1000,
        lambda whole: whole[:8] + b"x" * (len(whole) - 8),
        lambda whole: b"<html>not found</html>",
    ],
    ids=["cut", "cut header", "empty", "giant header", "large header", "garbage", "html"],
)
def test_damaged_safetensors_are_refused(tmp_path: Path, damage: Any) -> None:
    (tmp_path / "a.safetensors").write_bytes(damage(whole_safetensors(tmp_path)))
    with pytest.raises(InputError, match=r"a\.safetensors is not a whole safetensors file"):
        open_checkpoint(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole[: len(whole) // 2],
        lambda whole: b"",
        lambda whole: b"\x80\x02",
        lambda whole: b"<html>not found</html>",
        lambda whole: random.Random(0).randbytes(1000),
    ],
    ids=["cut", "empty", "bare pickle", "html", "noise"],
)
def test_damaged_pickles_are_refused(tmp_path: Path, damage: Any) -> None:
    torch.save(STATE, tmp_path / "whole.pth")
    (tmp_path / "a.pth").write_bytes(damage((tmp_path / "whole.pth").read_bytes()))
    with pytest.raises(InputError, match=r"a\.pth is (not a whole PyTorch checkpoint|damaged)"):
        open_checkpoint(tmp_path / "a.pth")


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1 << 20)}, tmp_path / "a.pth")
    with (
        zipfile.ZipFile(tmp_path / "a.pth") as old,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(InputError, match="compressed"):
        open_checkpoint(tmp_path / "bomb.pth")


def test_a_tensor_larger_than_its_memory_is_refused(tmp_path: Path) -> None:
    torch.save({"head.weight": torch.zeros(1).expand(1 << 40, 192)}, tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"head\.weight is not a dense tensor"):
        open_checkpoint(tmp_path / "a.pth")


@pytest.mark.parametrize(
    "content", [[1, 2], {}, {"epoch": 3}, {"a": torch.zeros(2, dtype=torch.complex64)}]
)
def test_a_pickle_without_a_state_dict_is_refused(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(InputError, match="state dict"):
        open_checkpoint(tmp_path / "a.pth")


def test_another_format_is_refused_with_those_that_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.h5").write_bytes(b"HDF")
    with pytest.raises(InputError, match=r"\.safetensors, \.pth, \.pt, \.bin"):
        open_checkpoint(tmp_path / "a.h5")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".npz"])
def test_a_file_that_vanished_after_it_was_hashed_is_named(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(InputError, match=rf"gone\{suffix} is missing"):
        read_weights(tmp_path / f"gone{suffix}", "it")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".npz"])
def test_a_pipe_or_a_device_is_not_waited_for(tmp_path: Path, suffix: str) -> None:
    os.mkfifo(tmp_path / f"pipe{suffix}")
    (tmp_path / f"zero{suffix}").symlink_to("/dev/zero")
    for name in ("pipe", "zero"):
        with pytest.raises(InputError, match="a file is needed"):
            read_weights(tmp_path / f"{name}{suffix}", "it")
        with pytest.raises(InputError, match="a file is needed"):
            sha256_file(tmp_path / f"{name}{suffix}")
