"""Hostile `.npz` files: each is refused with one message, in little memory and time."""

from __future__ import annotations

import io
import os
import struct
import warnings
import zipfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from benchmarks.checkpoints.google_npz import arrays_of
from pipeline.models.build import create
from tests.untrusted.pickles import Call
from tests.untrusted.sandbox import CLASSES, RAN, Attack, Outcome, assert_refused, attack_all

pytestmark = pytest.mark.full

OF_ITSELF = {"architecture": None}  # the file says what it is
SMALL = 32  # pixels
POSITIONS = "Transformer/posembed_input/pos_embedding"
NORM = "Transformer/encoderblock_3/LayerNorm_0/scale"
Change = Callable[[dict[str, Any]], object]


def npy(array: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def header(text: str | bytes, content: bytes = b"", length: int | None = None) -> bytes:
    """An array of which ``text`` tells; ``length`` is that which is said of the text."""
    raw = text if isinstance(text, bytes) else text.encode()
    said = struct.pack("<I", len(raw) if length is None else length)
    return b"\x93NUMPY\x02\x00" + said + raw + content


def described(shape: str = "(3,)", descr: str = "'<f4'", content: bytes = bytes(12)) -> bytes:
    return header(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n", content)


def members(contents: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> Attack:
    def write(folder: Path) -> Mapping[str, Any]:
        with warnings.catch_warnings(), zipfile.ZipFile(folder / "it.npz", "w", method) as file:
            warnings.simplefilter("ignore")  # of names that are there twice
            for name, content in contents.items():
                file.writestr(name.rstrip("+"), content)
        return OF_ITSELF

    return write


def array(content: bytes) -> Attack:
    return members({"embedding/kernel.npy": content})


def arrays(**given: NDArray[Any]) -> Attack:
    """Arrays of a vision transformer without its blocks."""
    usual = {
        "embedding/kernel": np.zeros((16, 16, 3, 192), np.float32),
        POSITIONS: np.zeros((1, 5, 192), np.float32),
        "head/kernel": np.zeros((192, 3), np.float32),
    }
    names = {"kernel": "embedding/kernel", "positions": POSITIONS, "head": "head/kernel"}
    usual |= {names.get(name, name): value for name, value in given.items()}
    return members({f"{name}.npy": npy(value) for name, value in usual.items()})


@cache
def _whole() -> Mapping[str, Any]:
    torch.manual_seed(0)
    return arrays_of(create("vit_tiny_patch16_224", num_classes=CLASSES, image_size=SMALL))


def whole() -> dict[str, Any]:
    return dict(_whole())


def changed(change: Change) -> Attack:
    def write(folder: Path) -> Mapping[str, Any]:
        contents = whole()
        change(contents)
        np.savez(folder / "it.npz", allow_pickle=False, **contents)
        return OF_ITSELF

    return write


def flagged(folder: Path) -> Mapping[str, Any]:
    """An archive that calls its member encrypted."""
    array(npy(np.zeros(3)))(folder)
    content = bytearray((folder / "it.npz").read_bytes())
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (folder / "it.npz").write_bytes(content)
    return OF_ITSELF


def understated(folder: Path) -> Mapping[str, Any]:
    """A member that unpacks to more than the directory says."""
    members({"a.npy": npy(np.zeros(1 << 24))}, zipfile.ZIP_DEFLATED)(folder)
    content = bytearray((folder / "it.npz").read_bytes())
    for place in (22, content.index(b"PK\x01\x02") + 24):
        content[place : place + 4] = struct.pack("<I", 1000)
    (folder / "it.npz").write_bytes(content)
    return OF_ITSELF


def bytes_(content: bytes) -> Attack:
    def write(folder: Path) -> Mapping[str, Any]:
        (folder / "it.npz").write_bytes(content)
        return OF_ITSELF

    return write


def cut(part: int) -> Attack:
    def write(folder: Path) -> Mapping[str, Any]:
        arrays()(folder)
        path = folder / "it.npz"
        os.truncate(path, path.stat().st_size * part // 8)
        return OF_ITSELF

    return write


def zeros(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """An array that claims a shape, where one of the numbers is 0."""
    return np.zeros(shape, np.float32)


DAMAGED = r"it\.npz is damaged"
NO_MODEL = "not a vision transformer of Google's"
SHAPES = "is not a vision transformer|does not fit"
HARM = npy(np.array([Call(os.system, f"touch {RAN}")], object), allow_pickle=True)

ATTACKS: dict[str, tuple[str, Attack]] = {
    "code": ("Python objects, which could run code", array(HARM)),
    "code in a header": (DAMAGED, array(header(f"__import__('os').system('touch {RAN}')\n"))),
    "code in a dtype": (DAMAGED, array(described(descr=f"__import__('os').system('touch {RAN}')"))),
    "pickle in the place of an array": (DAMAGED, array(b"\x80\x02cos\nsystem\n(U\x03x\ntR.")),
    "zip bomb": (
        "would unpack",
        members({"a.npy": npy(np.zeros(1 << 24))}, zipfile.ZIP_DEFLATED),
    ),
    "zip bomb, understated": (DAMAGED + "|says", understated),
    "other methods": (
        DAMAGED + "|would unpack|not read",
        members({"a.npy": npy(np.zeros(1 << 20))}, zipfile.ZIP_BZIP2),
    ),
    "two members of a name": (
        "two members",
        members({"a.npy": npy(np.zeros(3)), "a.npy+": npy(np.ones(3))}),
    ),
    "one array by two names": (
        "a, which is not an array",
        members({"a.npy": npy(np.zeros(3)), "a": npy(np.ones(3))}),
    ),
    "name out of the folder": (NO_MODEL, members({f"../{RAN}.npy": npy(np.zeros(3))})),
    "absolute name": (NO_MODEL, members({f"/srv/{RAN}.npy": npy(np.zeros(3))})),
    "name that controls a terminal": (
        r"fine\.npy is of \.npy version",
        members({"\x1b[2J\r\nfine.npy": b"\x93NUMPY\x09\x00"}),
    ),
    "long name": ("is not an array", members({"a" * 60_000: b"a"})),
    "encrypted": ("encrypted", flagged),
    "header of 4 GB": (DAMAGED, array(header("{}", length=0xFFFFFFFF))),
    "header of 60 MB": (DAMAGED, array(header(b" " * 60_000_000))),
    "deep header": (DAMAGED, array(header("(" * 4000))),
    "deep dtype": (DAMAGED, array(described(descr="[('a'," * 300 + "'<f4'" + ")]" * 300))),
    "header that is not text": (DAMAGED, array(header(b"\xff\xfe\x00" * 30))),
    "header of Python 2": ("says", array(described(shape="(10L,)"))),
    "long number": ("says 39+", array(described(shape=f"({'9' * 3900},)"))),
    "shape that overflows": ("says", array(described(shape=f"({1 << 62}, {1 << 62})"))),
    "terabytes": ("says", array(described(shape=f"({1 << 40},)"))),
    "negative shape": (DAMAGED + "|says", array(described(shape="(-3,)"))),
    "shape of flags": (
        DAMAGED + "|" + NO_MODEL,
        array(described(shape="(True,)", content=bytes(4))),
    ),
    "shape of a list": (DAMAGED, array(described(shape="[3]"))),
    "wide shape of nothing": (DAMAGED, array(described(shape=f"(0, {10**30})", content=b""))),
    "shape of many": (DAMAGED, array(described(shape="(" + "1," * 100 + ")", content=bytes(4)))),
    "structured": ("no type for", array(npy(np.zeros(2, [("a", "f4"), ("b", "O")][:1])))),
    "structured with objects": ("could run code", array(described(descr="[('a', '|O')]"))),
    "text": ("no type for", array(npy(np.array(["text"])))),
    "dates": ("no type for", array(npy(np.zeros(2, "M8[s]")))),
    "no archive": (DAMAGED, bytes_(npy(np.zeros(3)))),
    "pickle for an archive": (DAMAGED, bytes_(b"\x80\x02cos\nsystem\n(U\x03x\ntR.")),
    "empty archive": (NO_MODEL, members({})),
    "empty file": (DAMAGED, bytes_(b"")),
    "kernel of no axes": (SHAPES, arrays(kernel=np.float32(3))),
    "kernel of no pixels": (SHAPES, arrays(kernel=zeros((0, 0, 3, 192)))),
    "kernel of no width": (SHAPES, arrays(kernel=zeros((16, 16, 3, 0)))),
    "giant kernel of nothing": (SHAPES, arrays(kernel=zeros((16, 16, 0, 1 << 40)))),
    "head of no axes": (SHAPES, arrays(head=np.float32(3))),
    "giant head of nothing": (SHAPES, arrays(head=zeros((0, 1 << 40)))),
    "no classes": (SHAPES, arrays(head=zeros((192, 0)))),
    "no positions": (SHAPES, arrays(positions=zeros((1, 0, 192)))),
    "giant positions of nothing": (SHAPES, arrays(positions=zeros((1, (1 << 40) + 1, 0)))),
    "a larger model than the file": (
        "does not fit",
        arrays(
            kernel=zeros((14, 14, 3, 1280)),
            positions=zeros((1, 257, 1280)),
            head=zeros((1280, 3)),
            **{"head/bias": zeros((3,))},
            **{f"Transformer/encoderblock_{i}/x": np.float32(0) for i in range(32)},
        ),
    ),
    "one number for a layer": ("does not fit", changed(lambda it: it.update({NORM: zeros((1,))}))),
    "another shape": ("does not fit", changed(lambda it: it.update({NORM: zeros((7,))}))),
    "a head without its bias": ("head/bias|does not fit", changed(lambda it: it.pop("head/bias"))),
    "big-endian": ("byte order", changed(lambda it: it.update({NORM: it[NORM].astype(">f4")}))),
    "integers": ("int32", changed(lambda it: it.update({NORM: np.ones(192, np.int32)}))),
    "NaN": (
        r"blocks\.3\.norm1\.weight holds NaN or infinity",
        changed(lambda it: it.update({NORM: np.full(192, np.nan, np.float32)})),
    ),
    "too large for float32": (
        r"blocks\.3\.norm1\.weight holds NaN or infinity",
        changed(lambda it: it.update({NORM: np.full(192, 1e300)})),
    ),
    "numbers that PyTorch has not": (
        "does not fit|no type for",
        changed(lambda it: it.update({NORM: np.ones(192, np.longdouble)})),
    ),
}
ATTACKS |= {f"cut, {part}": (DAMAGED, cut(part)) for part in range(1, 8)}
HARMLESS: dict[str, Attack] = {
    "harmless": changed(lambda it: None),
    "Fortran order": changed(
        lambda it: it.update({"head/kernel": np.asfortranarray(it["head/kernel"])})
    ),
}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    attacks = {name: attack for name, (_, attack) in ATTACKS.items()}
    return attack_all(tmp_path_factory.mktemp("npz"), attacks | HARMLESS)


@pytest.mark.parametrize("name", ATTACKS)
def test_it_is_refused(name: str, outcomes: dict[str, Outcome]) -> None:
    assert_refused(outcomes[name], ATTACKS[name][0])


@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_harmless_is_taken_within_the_same_limits(
    name: str, outcomes: dict[str, Outcome]
) -> None:
    assert outcomes[name].status == 0, outcomes[name]
    assert outcomes[name].left == ["out"]
