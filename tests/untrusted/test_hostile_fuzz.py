"""Damaged files of each format: they load, or there is one clear error; nothing else happens.

Each format's cases run in one process of their own, whose end by a signal would be seen.
"""

from __future__ import annotations

import json
import os
import random
import resource
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pipeline.checkpoints.metadata import info_from_config, info_from_metadata
from pipeline.checkpoints.training import info_from_script
from pipeline.checkpoints.transformers_format import checkpoint_info, is_transformers
from pipeline.errors import EdgeVitError
from pipeline.files import read_json
from pipeline.untrusted.npz import open_npz
from pipeline.untrusted.state_dict import open_checkpoint
from tests.untrusted.test_hostile_config import OF_TIMM, OF_TRANSFORMERS, PREPARED

CASES = 400
CPU_SECONDS = 120
STATE = {"head.weight": torch.arange(6.0).reshape(2, 3), "head.bias": torch.ones(2)}
METADATA = {"architecture": "test_vit", "labels": '["a", "b"]', "mean": "0.5,0.5,0.5"}


def damaged(whole: bytes, seed: int) -> bytes:
    """Flip bits, cut, insert, repeat: one to six times."""
    rng, content = random.Random(seed), bytearray(whole)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(content) + 1)
        what = rng.randrange(5)
        if what == 0 and at < len(content):
            content[at] ^= 1 << rng.randrange(8)
        elif what == 1 and at < len(content):
            content[at] = rng.choice((0, 1, 127, 128, 255))
        elif what == 2:
            content[at:at] = rng.randbytes(rng.randint(1, 9))
        elif what == 3:
            del content[at : at + rng.randint(1, 9)]
        else:
            content[at:at] = content[at : at + rng.randint(1, 40)]
        if rng.random() < 0.03:
            del content[rng.randrange(len(content) + 1) :]
    return bytes(content)


def checkpoint(path: Path) -> None:
    opened = open_checkpoint(path)
    info_from_metadata(opened.metadata, "it")
    info_from_script(opened.about, "it")
    states = opened.states.values()
    assert all(v.isfinite().ndim >= 0 for state in states for v in state.values())  # reads each


def npz(path: Path) -> None:
    assert all(value.sum() is not None for value in open_npz(path, "it").values())


def config(path: Path) -> None:
    values = read_json(path)
    if is_transformers(values):
        of_network = {key: value for key, value in values.items() if key not in PREPARED}
        checkpoint_info(of_network, values, "it")
    else:
        info_from_config(values, "it")


def pth(path: Path) -> None:
    torch.save({"model": STATE}, path)


def legacy(path: Path) -> None:
    torch.save(STATE, path, _use_new_zipfile_serialization=False)


FORMATS: dict[str, tuple[str, Callable[[Path], object], Callable[[Path], None]]] = {
    "pth": ("a.pth", pth, checkpoint),
    "legacy pth": ("a.pth", legacy, checkpoint),
    "safetensors": (
        "a.safetensors",
        lambda path: save_file(STATE, path, METADATA),
        checkpoint,
    ),
    "npz": (
        "a.npz",
        lambda path: np.savez(path, a=np.arange(40.0), b=np.ones((3, 3), np.float32)),
        npz,
    ),
    "timm's config": ("a.json", lambda path: path.write_text(json.dumps(OF_TIMM)), config),
    "transformers' config": (
        "a.json",
        lambda path: path.write_text(json.dumps(OF_TRANSFORMERS | PREPARED)),
        config,
    ),
}


def outcomes(path: Path, read: Callable[[Path], None]) -> Iterator[str]:
    """Read a file damaged in each way; say what came of it."""
    whole = path.read_bytes()
    for seed in range(CASES):
        path.write_bytes(damaged(whole, seed))
        try:
            read(path)
            yield "read"
        except EdgeVitError as error:
            yield "refused" if str(error).isprintable() else f"{seed}: {error!r}"
        except BaseException:
            yield f"{seed}: {traceback.format_exc()}"


@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_file_is_read_or_refused(name: str, tmp_path: Path) -> None:
    file_name, write, read = FORMATS[name]
    write(tmp_path / file_name)
    read(tmp_path / file_name)
    if (child := os.fork()) == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS,) * 2)
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + (1 << 30),) * 2)
        found = list(outcomes(tmp_path / file_name, read))
        (tmp_path / "found.json").write_text(json.dumps(found))
        sys.stdout.flush()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert [f for f in found if f not in ("read", "refused")] == []
    assert found.count("refused") > CASES / 10
