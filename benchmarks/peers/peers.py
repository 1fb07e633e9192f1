"""The peers with their recipes, and which of our files each is compared with."""

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
    """A toolchain and its recipes."""

    name: str
    suffix: str  # of the file that its runtime loads
    counterpart: str  # the format of ours that goes to the same devices
    variants: dict[str, str]  # the recipe's name for it, and ours in the table
    recipe: str  # module
    lock: Path  # packages of its environment


def _peer(name: str, suffix: str, counterpart: str, **variants: str) -> Peer:
    return Peer(
        name, suffix, counterpart, variants, f"{RECIPES}.{name}", HERE / "locks" / f"{name}.lock"
    )


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
    """What loads files with one suffix, ours and peers' alike."""

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
class ComparedFile:
    """One file of the comparison."""

    key: str  # e.g. "openvino/transformer", "ours/ptl"
    label: str
    suffix: str
    counterpart: str  # a format of ours; its own, for one of ours
    peer: Peer | None = None  # None: ours
    variant: str = ""

    @property
    def runtime(self) -> Runtime:
        """What loads the file."""
        return RUNTIMES[self.suffix]


def compared_files(peers: Sequence[Peer]) -> list[ComparedFile]:
    """Return all variants of some peers, each after the file of ours that it is compared with."""
    files = []
    for counterpart in dict.fromkeys(peer.counterpart for peer in peers):
        suffix = f".{counterpart.rpartition('_')[2]}"
        files.append(ComparedFile(f"ours/{counterpart}", "", suffix, counterpart))
        files += [
            ComparedFile(f"{peer.name}/{variant}", label, peer.suffix, counterpart, peer, variant)
            for peer in peers
            if peer.counterpart == counterpart
            for variant, label in peer.variants.items()
        ]
    return files
