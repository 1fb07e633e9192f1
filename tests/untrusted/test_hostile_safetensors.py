"""Hostile safetensors files: each is refused with one message, in little memory and time."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from tests.untrusted.sandbox import Attack, Outcome, assert_refused, attack_all, usual_state

pytestmark = pytest.mark.full

ONE = {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}
NOT_WHOLE = r"it\.safetensors is not a whole safetensors file"
DEEP = 100_000


def raw(header: Any, content: bytes = bytes(12), length: int | None = None) -> Attack:
    """A file of which ``header`` tells; ``length`` is that which is said of the header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()

    def write(folder: Path) -> None:
        said = struct.pack("<Q", len(text) if length is None else length)
        (folder / "it.safetensors").write_bytes(said + text + content)

    return write


def one(**changes: Any) -> Attack:
    return raw({"a": ONE | changes})


def metadata(**values: Any) -> Attack:
    """The usual weights with metadata that say what params.yaml does not."""
    texts = {key: v if isinstance(v, str) else json.dumps(v) for key, v in values.items()}

    def write(folder: Path) -> Mapping[str, Any]:
        (folder / "it.safetensors").write_bytes(save(usual_state(), texts))
        return {"labels": None, "architecture": None}

    return write


def holding(key: str, value: torch.Tensor) -> Attack:
    def write(folder: Path) -> None:
        (folder / "it.safetensors").write_bytes(save({**usual_state(), key: value}))

    return write


def cut(part: int) -> Attack:
    def write(folder: Path) -> None:
        path = folder / "it.safetensors"
        path.write_bytes(save(usual_state()))
        os.truncate(path, path.stat().st_size * part // 8)

    return write


def hollow(folder: Path) -> None:
    """A file of a terabyte that takes no room on the disk, all of it header."""
    raw(b"", b"", length=(1 << 40) - 8)(folder)
    os.truncate(folder / "it.safetensors", 1 << 40)


def many(folder: Path) -> None:
    """A header of 1.6 million tensors of nothing."""
    nothing = b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}'
    raw(b"{" + b",".join(nothing % number for number in range(1_600_000)) + b"}")(folder)


def spaces(folder: Path) -> None:
    raw(b"{}" + b" " * 90_000_000)(folder)


def long_metadata(folder: Path) -> None:
    raw({"__metadata__": {"a": "b" * 50_000_000}, "b": ONE})(folder)


LABELS = ["cat", "dog", "cow"]
KNOWN = {"architecture": "test_vit", "labels": LABELS}

ATTACKS: dict[str, tuple[str, Attack]] = {
    "header of 2^63 bytes": (NOT_WHOLE, raw({"a": ONE}, length=1 << 63)),
    "header of 2^64 - 1 bytes": (NOT_WHOLE, raw({"a": ONE}, length=(1 << 64) - 1)),
    "header of 90 MB": (NOT_WHOLE, many),
    "header of 90 MB of spaces": (NOT_WHOLE, spaces),
    "header of nothing": (NOT_WHOLE, raw(b"")),
    "deep header": (NOT_WHOLE, raw(b'{"a":' + b"[" * DEEP + b"]" * DEEP + b"}")),
    "header that is a list": (NOT_WHOLE, raw(b"[1, 2]")),
    "header that is not text": (NOT_WHOLE, raw(b"\xff\xfe\x00\x00")),
    "no tensors": ("does not fit", raw({}, b"")),
    "offsets out of the file": (NOT_WHOLE, one(data_offsets=[0, 1 << 40])),
    "offsets backwards": (NOT_WHOLE, one(data_offsets=[12, 0])),
    "negative offsets": (NOT_WHOLE, one(data_offsets=[-12, 0])),
    "overlapping tensors": (NOT_WHOLE, raw({"a": ONE, "b": ONE})),
    "bytes that nobody owns": (NOT_WHOLE, raw({"a": ONE}, bytes(1000))),
    "a key twice": (
        NOT_WHOLE + "|does not fit",
        raw(b'{"a":%b,"a":%b}' % ((json.dumps(ONE).encode(),) * 2)),
    ),
    "shape of another size": (NOT_WHOLE, one(shape=[4])),
    "shape that overflows": (NOT_WHOLE, one(shape=[1 << 62, 1 << 62, 3])),
    "negative shape": (NOT_WHOLE, one(shape=[-3])),
    "wide shape of nothing": (
        "does not fit|is not a whole",
        raw({"a": ONE | {"shape": [0, 1 << 62], "data_offsets": [0, 0]}}, b""),
    ),
    "unknown dtype": (NOT_WHOLE, one(dtype="F31")),
    "dtype of parts of a byte": (NOT_WHOLE + "|does not fit", one(dtype="F4", shape=[24])),
    "dtype of exponents": ("does not fit|is not a whole", one(dtype="F8_E8M0", shape=[12])),
    "complex": (
        "does not fit",
        raw({"a": {"dtype": "C64", "shape": [1], "data_offsets": [0, 8]}}, bytes(8)),
    ),
    "metadata that is not text": (NOT_WHOLE, raw({"__metadata__": {"a": 1}, "b": ONE})),
    "metadata that is a list": (NOT_WHOLE, raw({"__metadata__": [1], "b": ONE})),
    "metadata of 50 MB": (NOT_WHOLE, long_metadata),
    "metadata nested deep": ("edge_vit is not JSON", metadata(edge_vit="[" * DEEP)),
    "labels nested deep": ("labels", metadata(**KNOWN | {"labels": "[" * DEEP})),
    "number of many digits": ("metadata", metadata(**KNOWN, crop_pct="1" * 5000)),
    "number without end": ("crop_pct", metadata(**KNOWN, crop_pct="1e999")),
    "no number": ("mean", metadata(**KNOWN, mean="[NaN, NaN, NaN]")),
    "deviation of nothing": ("std", metadata(**KNOWN, std="[0, 0, 0]")),
    "size without end": ("input_size", metadata(**KNOWN, input_size="[3, 1e999, 1e999]")),
    "size of 10^9": ("input_size", metadata(**KNOWN, input_size=[3, 10**9, 10**9])),
    "size of 0": ("input_size", metadata(**KNOWN, input_size=[3, 0, 0])),
    "labels with lines in them": ("class name", metadata(**KNOWN | {"labels": ["a\nb", "c", "d"]})),
    "labels that control a terminal": (
        "class name",
        metadata(**KNOWN | {"labels": ["\x1b[2J", "c", "d"]}),
    ),
    "labels of halves": ("class name", metadata(**KNOWN | {"labels": '["\\ud800", "c", "d"]'})),
    "labels of 100 000 classes": (
        "3 classes, but 100000",
        metadata(**KNOWN | {"labels": [str(n) for n in range(100_000)]}),
    ),
    "labels that are numbers": ("labels", metadata(**KNOWN | {"labels": [1, 2, 3]})),
    "unknown architecture": (
        "timm knows no",
        metadata(**KNOWN | {"architecture": "\x1b[2J\n" * 3000}),
    ),
    "architecture of the hub": (
        "timm knows no",
        metadata(**KNOWN | {"architecture": "hf-hub:a/b"}),
    ),
    "a larger model than the file": (
        "does not fit",
        metadata(**KNOWN | {"architecture": "eva02_enormous_patch14_clip_224"}),
    ),
    "integers": (r"head\.weight is uint8", holding("head.weight", torch.ones(3, 64).byte())),
    "flags": (r"head\.weight is bool", holding("head.weight", torch.ones(3, 64).bool())),
    "NaN": (r"head\.bias holds NaN", holding("head.bias", torch.full((3,), float("nan")))),
    "key that controls a terminal": ("does not fit", holding("\x1b[2J\r\nfine", torch.ones(1))),
    "key of a megabyte": ("does not fit", holding("a" * (1 << 20), torch.ones(1))),
    "hollow": ("has 1099511627776 bytes", hollow),
    "empty file": (NOT_WHOLE, lambda folder: (folder / "it.safetensors").touch()),
}
ATTACKS |= {f"cut, {part}": (NOT_WHOLE, cut(part)) for part in range(1, 8)}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    attacks = {name: attack for name, (_, attack) in ATTACKS.items()}
    attacks["none"] = metadata(**KNOWN)
    return attack_all(tmp_path_factory.mktemp("safetensors"), attacks)


@pytest.mark.parametrize("name", ATTACKS)
def test_it_is_refused(name: str, outcomes: dict[str, Outcome]) -> None:
    assert_refused(outcomes[name], ATTACKS[name][0])


def test_what_is_harmless_is_taken_within_the_same_limits(outcomes: dict[str, Outcome]) -> None:
    assert outcomes["none"].status == 0, outcomes["none"]
    assert outcomes["none"].left == ["out"]
