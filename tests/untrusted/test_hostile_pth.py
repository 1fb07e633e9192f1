"""Hostile pickles: each is refused with one message, in little memory and time."""

from __future__ import annotations

import argparse
import collections
import copy
import fractions
import os
import pathlib
import pickle
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.untrusted.pickles import (
    Call,
    Storage,
    pickled,
    tensor,
    write_legacy,
    write_tar,
    write_zip,
)
from tests.untrusted.sandbox import (
    ARCHITECTURE,
    RAN,
    Attack,
    Outcome,
    assert_refused,
    attack_all,
    usual_state,
)

pytestmark = pytest.mark.full

HARM = Call(os.system, f"touch {RAN}")
ONE = {"head.bias": tensor(Storage(3), (3,))}
MEMORY = {"0": bytes(12)}
DEEP = 100_000


def saved(content: Any, **options: Any) -> Attack:
    return lambda folder: torch.save(content, folder / "it.pth", **options)


def zipped(content: Any, records: Mapping[str, bytes] = MEMORY, **options: Any) -> Attack:
    pickle_ = content if isinstance(content, bytes) else pickled(content)
    return lambda folder: write_zip(folder / "it.pth", pickle_, records, **options)


def legacy(content: Any, keys: list[str], memory: bytes = b"") -> Attack:
    return lambda folder: write_legacy(folder / "it.pth", content, keys, memory)


def bytes_(content: bytes) -> Attack:
    def write(folder: Path) -> None:
        (folder / "it.pth").write_bytes(content)

    return write


def with_(changes: Mapping[str, torch.Tensor]) -> Attack:
    """The usual weights with some of them changed."""
    return lambda folder: torch.save({**usual_state(), **changes}, folder / "it.pth")


def torchscript(folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(folder / "it.pt"))


def twice(folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of zipfile
        write_zip(folder / "it.pth", pickled(ONE), MEMORY, [("it/data.pkl", pickled(HARM))])


def overlapping(folder: Path) -> None:
    """Many names for one record, as in Fifield's zip bomb."""
    write_zip(folder / "it.pth", pickled(ONE), {"0": bytes(1 << 20)})
    with zipfile.ZipFile(folder / "it.pth", "a") as file:
        first = file.getinfo("it/data/0")
        for number in range(1, 200):
            entry = zipfile.ZipInfo(f"it/data/{number}")
            for key in ("header_offset", "CRC", "compress_size", "file_size"):
                setattr(entry, key, getattr(first, key))
            file.filelist.append(entry)
        file._didModify = True  # type: ignore[attr-defined]


def two_in_one(folder: Path) -> None:
    """Pickles to PyTorch, which looks at the first bytes; a harmless archive to `zipfile`."""
    write_zip(folder / "zip", pickled(ONE), MEMORY)
    write_legacy(folder / "it.pth", key_of(folded(64, 2)), [])
    with open(folder / "it.pth", "ab") as file:
        file.write((folder / "zip").read_bytes())


def cut(share: float, zipped_: bool = True) -> Attack:
    def write(folder: Path) -> None:
        path = folder / "it.pth"
        torch.save(usual_state(), path, _use_new_zipfile_serialization=zipped_)
        os.truncate(path, int(share * path.stat().st_size))

    return write


def key_of(opcodes: bytes) -> bytes:
    """A pickle of a dictionary with the key that ``opcodes`` make."""
    return b"\x80\x02}" + opcodes + b"K\x01s."


def folded(levels: int, copies: int) -> bytes:
    """Opcodes of a tuple of ``copies`` of a tuple of ``copies`` of ... a one."""
    again = (b"q%c" % i + b"h%c" % i * (copies - 1) + b"t" for i in range(levels))
    return b"(" * levels + b"K\x01" + b"".join(again)


def laughs() -> list[Any]:
    value: list[Any] = []
    for _ in range(64):
        value = [value, value]
    return value


class Build:
    """Makes an object of a class, and gives it a state."""

    def __init__(self, kind: type, state: Any) -> None:
        self.kind, self.state = kind, state

    def __reduce__(self) -> tuple[Any, ...]:
        return self.kind, (), self.state


def endless() -> argparse.Namespace:
    args = argparse.Namespace()
    args.itself = [args]
    return args


def deep() -> Any:
    value: Any = 1
    for _ in range(100):
        value = {"a": [value]}
    return value


def many_weights(folder: Path) -> None:
    """More state dicts than anybody trains."""
    state = usual_state()
    torch.save({f"model{n}": dict(state) for n in range(100)}, folder / "it.pth")


class Shadowed(dict[str, Any]):
    """An ordered dictionary with something else in the place of its methods."""

    def __reduce__(self) -> tuple[Any, ...]:
        instead = dict.fromkeys(("get", "items", "keys", "__iter__"), 1)
        return collections.OrderedDict, (), instead, None, iter(ONE.items())


def crowded(folder: Path) -> None:
    """A directory of 200 000 members."""
    write_zip(folder / "it.pth", pickled(ONE), MEMORY)
    with zipfile.ZipFile(folder / "it.pth", "a") as file:
        for number in range(200_000):
            entry = copy.copy(file.getinfo("it/data/0"))
            entry.filename = f"it/data/x{number}"
            file.filelist.append(entry)
        file._didModify = True  # type: ignore[attr-defined]


def keys(folder: Path) -> None:
    torch.save({str(number): None for number in range(2_000_000)}, folder / "it.pth")


def tarred(folder: Path) -> None:
    write_tar(folder / "it.pth", pickle.dumps(HARM, 2))


def gigantic(folder: Path) -> Mapping[str, Any]:
    torch.save(usual_state(), folder / "it.pth")
    return {"architecture": "vit_gigantic_patch14_224"}


def no_pickle(folder: Path) -> None:
    with zipfile.ZipFile(folder / "it.pth", "w") as file:
        file.writestr("it/data/0", bytes(12))


NOT_WHOLE = r"it\.pth is not a whole PyTorch checkpoint|it\.pth is damaged"
CODE = r"more than tensors \((posix|nt)\.system\), which could run code"
OTHER = r"torch\.save did not write"
LIES = "bytes and claims tensors of"
UNFOLDS = "a tuple that unfolds"
PLAIN = "not a dense tensor"
FIT = "does not fit the model"
MISFIT = r"does not fit the model: its keys are as head\.bias"
NAN, INF = float("nan"), float("inf")


def beside(value: Any) -> Attack:
    """A training script's file, with ``value`` where its arguments are."""
    return zipped({"state_dict": ONE, "args": value})


def namespace(**values: Any) -> argparse.Namespace:
    return argparse.Namespace(**values)


def told(**values: Any) -> Attack:
    """A whole file of timm's script, whose arguments have ``values``."""

    def write(folder: Path) -> Mapping[str, Any]:
        args = argparse.Namespace(model=ARCHITECTURE, **values)
        content = {"arch": ARCHITECTURE, "args": args, "state_dict": usual_state()}
        torch.save(content, folder / "it.pth.tar")
        return {"architecture": None}

    return write


def billions() -> Any:
    """A list of lists of lists of ..., each a hundred times the same."""
    value: Any = 1
    for _ in range(20):
        value = [value] * 100
    return value


ATTACKS: dict[str, tuple[str, Attack]] = {
    "script: code in arguments": (CODE, beside(namespace(lr=HARM))),
    "script: code in a path": (CODE, beside(Call(pathlib.PosixPath, HARM))),
    "script: code for a class": (CODE, beside(Call(argparse.Namespace, HARM))),
    "script: state of no dictionary": (MISFIT, beside(Build(argparse.Namespace, [1, 2]))),
    "script: methods in others' place": (MISFIT, beside(namespace(get=1, items=1, state=1))),
    "script: another class": (r"\(fractions\.Fraction\)", beside(fractions.Fraction(1, 2))),
    "script: attributes of a class": (
        r"\(argparse\.ArgumentParser\)",
        beside(argparse.ArgumentParser),
    ),
    "script: billions of values": (MISFIT, beside(namespace(a=billions()))),
    "script: arguments within themselves": (MISFIT, beside(endless())),
    "script: deep arguments": (MISFIT, beside(deep())),
    "script: gigabytes by a scalar": (MISFIT, beside(Call(np.dtype, "V" + "9" * 9))),
    "script: a file to open": (
        "args has checkpoint_path",
        told(model_kwargs={"checkpoint_path": "/etc/passwd"}),
    ),
    "script: an address to load": (
        "args has pretrained_cfg",
        told(model_kwargs={"pretrained_cfg": {"url": "http://x"}}),
    ),
    "script: a network without end": ("depth is", told(model_kwargs={"depth": 10**9})),
    "script: a wide network": (FIT, told(model_kwargs={"embed_dim": 16_384, "mlp_ratio": 64})),
    "script: many blocks": (FIT, told(model_kwargs={"depth": 256})),
    "script: an unknown layer": ("cannot be made", told(model_kwargs={"act_layer": "os_system"})),
    "script: a layer that controls a terminal": (
        "act_layer is",
        told(model_kwargs={"act_layer": "\x1b[2J\n" * 999}),
    ),
    "script: an argument that does": ("args has", told(model_kwargs={"\x1b[2J\n" * 999: 1})),
    "script: mean": ("mean", told(mean=[NAN, 0, 0])),
    "script: crop": ("crop_pct", told(crop_pct=1e9)),
    "many weights": (r"model\.weights is missing", many_weights),
    "keys of dots": (FIT, with_({"." * 500_000: torch.ones(1)})),
    "kernel that takes forever to fit": (
        FIT,
        with_({"patch_embed.proj.weight": torch.zeros(64, 3, 999, 999)}),
    ),
    "a tensor for timm's module": (FIT, with_({"encoder": torch.ones(3), "model": torch.ones(3)})),
    "code, zip": (CODE, zipped(HARM)),
    "code, legacy": (CODE, legacy(HARM, [])),
    "code in the first pickle": (CODE, bytes_(pickle.dumps(HARM, 2))),
    "code, protocol 0": (OTHER + "|" + CODE, zipped(pickle.dumps(HARM, 0))),
    "code, protocol 4": (OTHER, zipped(pickle.dumps(HARM, 4))),
    "code, nested": (CODE, zipped({"state_dict": {"a": {"b": [HARM]}}})),
    "code, in torch": (r"\(torch\.hub\.load\)", zipped(Call(torch.hub.load, "a/b", "c"))),
    "code, tar": ("tar archive", tarred),
    "TorchScript": (r"it\.pt is a TorchScript program", torchscript),
    "terabytes claimed, zip": (NOT_WHOLE, zipped({"a": tensor(Storage(1 << 40), (1 << 40,))})),
    "megabytes claimed, zip": (NOT_WHOLE, zipped({"a": tensor(Storage(1 << 26), (1 << 26,))})),
    "bytes swapped out of memory": (
        NOT_WHOLE,
        zipped({"a": tensor(Storage(1 << 26), (1 << 26,))}, byteorder=b"big"),
    ),
    "terabytes claimed, legacy": (
        NOT_WHOLE,
        legacy({"a": tensor(Storage(1 << 40), (1 << 40,))}, ["0"]),
    ),
    "megabytes claimed, legacy": (LIES, legacy({"a": tensor(Storage(1 << 26), (1 << 26,))}, [])),
    "negative storage": (NOT_WHOLE, zipped({"a": tensor(Storage(-4), (3,))})),
    "stride out of storage": (NOT_WHOLE, zipped({"a": tensor(Storage(3), (3,), (1 << 40,))})),
    "offset out of storage": (NOT_WHOLE, zipped({"a": tensor(Storage(3), (3,), (1,), 1 << 40)})),
    "negative offset": (NOT_WHOLE, zipped({"a": tensor(Storage(3), (3,), (1,), -8)})),
    "negative size": (NOT_WHOLE, zipped({"a": tensor(Storage(3), (-3,))})),
    "size that overflows": (NOT_WHOLE, zipped({"a": tensor(Storage(3), (1 << 33,) * 2, (1, 1))})),
    "3 GB of zeros": (
        r"tensors \(.*bytearray\)",
        zipped(Call(bytearray, 3 << 30)),
    ),
    "key that takes forever to hash": (UNFOLDS, zipped(key_of(folded(64, 2)))),
    "wide key": (UNFOLDS, zipped(key_of(folded(9, 1000)))),
    "key that takes forever, legacy": (UNFOLDS, legacy(key_of(folded(64, 2)), [])),
    "key that takes forever, two formats": (UNFOLDS, two_in_one),
    "deep key": (UNFOLDS, zipped(key_of(b")" + b"\x85" * DEEP))),
    "deep tuple": (UNFOLDS, zipped(b"\x80\x02)" + b"\x85" * DEEP + b".")),
    "deep list": ("a list", zipped(b"\x80\x02" + b"]" * DEEP + b"a" * (DEEP - 1) + b".")),
    "marks without end": (NOT_WHOLE, zipped(b"\x80\x02" + b"(" * 1_000_000)),
    "laughs": (PLAIN, zipped({"a": laughs()})),
    "methods in others' place": (FIT, zipped(Shadowed())),
    "giant string": (NOT_WHOLE, zipped(b"\x80\x02X\xff\xff\xff\xffabc.")),
    "giant number": (OTHER + "|" + NOT_WHOLE, zipped(b"\x80\x02\x8b\xff\xff\xff\x7fabc.")),
    "no end": (NOT_WHOLE, zipped(b"\x80\x02}")),
    "empty stack": (NOT_WHOLE, zipped(b"\x80\x02\x86s.")),
    "memory of nothing": (NOT_WHOLE, zipped(b"\x80\x02h\x07.")),
    "long pickle": ("larger than", zipped(b"\x80\x02]" + b"Na" * 20_000_000 + b".")),
    "long pickle, legacy": ("larger than", legacy(b"\x80\x02]" + b"Na" * 20_000_000 + b".", [])),
    "zip bomb": ("is compressed", zipped(ONE, {"0": bytes(1 << 27)}, method=zipfile.ZIP_DEFLATED)),
    "zip bomb, lzma": ("compressed", zipped(ONE, {"0": bytes(1 << 24)}, method=zipfile.ZIP_LZMA)),
    "two members of a name": (r"two members it/data\.pkl", twice),
    "overlapping members": ("lie over one another", overlapping),
    "members without end": ("a directory larger than", crowded),
    "zip header only": (NOT_WHOLE, bytes_(b"PK\x03\x04" + bytes(26))),
    "zip of noise": (NOT_WHOLE, bytes_(b"PK\x03\x04" + os.urandom(2000))),
    "no pickle in it": (NOT_WHOLE, no_pickle),
    "empty file": (NOT_WHOLE, bytes_(b"")),
    "sparse": ("_rebuild_sparse", saved({"a": torch.eye(3).to_sparse()})),
    "quantized": (
        "_rebuild_qtensor",
        saved({"a": torch.quantize_per_tensor(torch.ones(3), 1, 0, torch.qint8)}),
    ),
    "meta": ("_rebuild_meta", saved({"a": torch.empty(1 << 40, device="meta")})),
    "complex": (PLAIN, saved({"a": torch.zeros(3, dtype=torch.complex64)})),
    "expanded": (PLAIN, saved({"head.weight": torch.zeros(1).expand(1 << 40, 64)})),
    "values that are not tensors": ("epoch is not a dense tensor", saved({"epoch": 3, "lr": 0.1})),
    "text": ("holds a str", saved("weights")),
    "keys that are not text": (PLAIN, saved({1: torch.ones(3), (2, 3): torch.ones(3)})),
    "integers": (r"head\.weight is int8", with_({"head.weight": torch.ones(3, 64).char()})),
    "float8": (
        r"head\.weight is float8",
        with_({"head.weight": torch.ones(3, 64).to(torch.float8_e5m2)}),
    ),
    "NaN": (r"head\.bias holds NaN", with_({"head.bias": torch.tensor([0, NAN, 0])})),
    "infinity": (r"head\.bias holds NaN", with_({"head.bias": torch.tensor([0, INF, 0])})),
    "too large for float32": (
        r"head\.bias holds NaN or infinity",
        with_({"head.bias": torch.full((3,), 1e300, dtype=torch.float64)}),
    ),
    "head of no width": (FIT, with_({"head.weight": torch.zeros(10**9, 0)})),
    "narrow head": (FIT, with_({"head.weight": torch.zeros(10**8, 1, dtype=torch.bool)})),
    "head of no rows": (FIT, with_({"head.weight": torch.zeros(0, 64)})),
    "positions of no grid": (
        "6 patches, which are no square",
        with_({"pos_embed": torch.zeros(1, 7, 64)}),
    ),
    "no positions": (r"pos_embed is \(1, 0", with_({"pos_embed": torch.zeros(1, 0, 64)})),
    "integer positions": (
        "pos_embed is int32",
        with_({"pos_embed": torch.zeros(1, 5, 64, dtype=torch.int32)}),
    ),
    "key that controls a terminal": (FIT, with_({"\x1b[2J\r\nedge-vit: well": torch.ones(1)})),
    "value's key that does": (PLAIN, saved({"\x1b[2J\r\nfine": 1})),
    "key of a megabyte": (FIT, with_({"a" * (1 << 20): torch.ones(1)})),
    "millions of keys": ("larger than", keys),
    "a larger model than the file": (FIT, gigantic),
}
ATTACKS |= {
    f"cut, {'zip' if zipped_ else 'legacy'}, {part}": (NOT_WHOLE, cut(part / 16, zipped_))
    for zipped_ in (True, False)
    for part in range(1, 16)
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    attacks = {name: attack for name, (_, attack) in ATTACKS.items()}
    attacks["none"] = lambda folder: torch.save(usual_state(), folder / "it.pth")
    return attack_all(tmp_path_factory.mktemp("pth"), attacks)


@pytest.mark.parametrize("name", ATTACKS)
def test_it_is_refused(name: str, outcomes: dict[str, Outcome]) -> None:
    assert_refused(outcomes[name], ATTACKS[name][0])


def test_what_is_harmless_is_taken_within_the_same_limits(outcomes: dict[str, Outcome]) -> None:
    assert outcomes["none"].status == 0, outcomes["none"]
    assert outcomes["none"].left == ["out"]
