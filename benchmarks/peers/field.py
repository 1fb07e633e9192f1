"""Who takes part: peers with their recipes, and which of our files each is held against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import device_tests

HERE = Path(__file__).parent
DEVICES = Path(device_tests.__file__).parent
ARM64 = DEVICES / "arm64"
RECIPES = "benchmarks.peers.recipes"


@dataclass(frozen=True)
class Peer:
    """A tool with recipes of its own."""

    name: str
    suffix: str  # of the file that its runtime loads
    rival: str  # the format of ours that goes to the same devices
    variants: dict[str, str]  # the recipe's name for it, and ours in the table
    recipe: str  # module
    lock: Path  # packages of its environment


def _peer(name: str, suffix: str, rival: str, **variants: str) -> Peer:
    return Peer(name, suffix, rival, variants, f"{RECIPES}.{name}", HERE / "locks" / f"{name}.lock")


PEERS = (
    _peer("tutorial", ".ptl", "ptl", dynamic="PyTorch's ViT tutorial"),
    _peer(
        *("onnxruntime", ".onnx", "int8_onnx"),
        dynamic="ONNX Runtime quantize_dynamic",
        static="ONNX Runtime quantize_static",
    ),
    _peer(
        *("optimum", ".onnx", "int8_onnx"),
        arm64_dynamic="Optimum arm64, dynamic",
        arm64_static="Optimum arm64, static",
    ),
    _peer(
        *("openvino", ".xml", "int8_onnx"),
        performance="OpenVINO with NNCF, performance mode",
        accuracy="OpenVINO with NNCF, accuracy mode",
    ),
    _peer(
        *("executorch", ".pte", "pte"),
        fused_dynamic="ExecuTorch XNNPACK, dynamic, fused attention",
        dynamic="ExecuTorch XNNPACK, dynamic",
        static="ExecuTorch XNNPACK, static",
    ),
    _peer("litert", ".tflite", "pte", dynamic="LiteRT wi8_afp32", static="LiteRT wi8_ai8"),
)
BY_NAME = {peer.name: peer for peer in PEERS}


@dataclass(frozen=True)
class Runtime:
    """What loads files of one ending, ours and peers' alike."""

    peer: str  # whose environment has it
    arm64: Path  # lock of its aarch64 wheels


# The newest that run under qemu 7.2: onnxruntime from 1.28 on stops at import, ai-edge-litert from
# 2.2 on when it loads a file. `device_tests/arm64` has onnxruntime 1.20.1, which lacks ConvInteger
# with int8 weights, and so runs no file of `quantize_dynamic` that has a convolution.
RUNTIMES = {
    ".ptl": Runtime("tutorial", ARM64 / "torch-2.1.2.lock"),
    ".onnx": Runtime("onnxruntime", HERE / "locks" / "onnxruntime-arm64.lock"),
    ".pte": Runtime("executorch", ARM64 / "executorch-1.0.1.lock"),
    ".xml": Runtime("openvino", HERE / "locks" / "openvino-arm64.lock"),
    ".tflite": Runtime("litert", HERE / "locks" / "litert-arm64.lock"),
}


@dataclass(frozen=True)
class Contender:
    """One file in the field."""

    key: str  # e.g. "openvino/transformer", "ours/ptl"
    label: str
    suffix: str
    rival: str  # a format of ours; its own, for one of ours
    peer: Peer | None = None  # None: ours
    variant: str = ""

    @property
    def runtime(self) -> Runtime:
        return RUNTIMES[self.suffix]


def contenders(peers: Sequence[Peer]) -> list[Contender]:
    """All variants of some peers, each rival of ours before those that are held against it."""
    found = []
    for rival in dict.fromkeys(peer.rival for peer in peers):
        suffix = f".{rival.rpartition('_')[2]}"
        found.append(Contender(f"ours/{rival}", "", suffix, rival))
        found += [
            Contender(f"{peer.name}/{variant}", label, peer.suffix, rival, peer, variant)
            for peer in peers
            if peer.rival == rival
            for variant, label in peer.variants.items()
        ]
    return found
