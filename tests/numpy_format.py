"""A format of its own in one module, as a plugin has it: float weights that numpy runs.

For vision transformers as DeiT: class token, learned positions, exact GELU. Functions import what
they need of the pipeline, since the module is loaded before the rest of it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.formats import Format, register

CONTRACT = "contract"  # an array of bytes beside the weights
HEAD_WIDTH = 64


def export(params, sources, out):
    from safetensors.numpy import load_file

    from pipeline.contract.contract import Artefact
    from pipeline.contract.files import MODEL_FILE, load_contract

    about = Artefact(
        format="numpy",
        quantization="none",
        keep_float=(),
        engine="numpy",
        oldest_runtime="numpy 1.26",
        operators=("matmul",),
    )
    contract = load_contract(sources.rewritten)
    text = contract.for_artefact(about).to_json().encode()
    arrays = load_file(sources.rewritten / MODEL_FILE) | {CONTRACT: np.frombuffer(text, np.uint8)}
    np.savez(out / contract.file_name("float", ".numpy.npz"), allow_pickle=False, **arrays)


def contract(path: Path) -> bytes:
    with np.load(path) as arrays:
        return arrays[CONTRACT].tobytes()


class Runtime:
    def __init__(self, path: Path, threads: int) -> None:
        from pipeline.contract.contract import Contract

        self.contract = Contract.from_json(contract(path).decode())
        with np.load(path) as arrays:
            self.arrays = {name: arrays[name] for name in arrays if name != CONTRACT}

    def logits(self, batch):
        from scipy.special import erf

        side = self.arrays["patch_embed.proj.weight"].shape[-1]
        n, channels, height, width = batch.shape
        patches = batch.reshape(n, channels, height // side, side, width // side, side)
        patches = patches.transpose(0, 2, 4, 1, 3, 5).reshape(n, -1, channels * side * side)
        x = self.linear(patches, "patch_embed.proj")
        first = np.broadcast_to(self.arrays["cls_token"], (n, 1, x.shape[-1]))
        x = np.concatenate([first, x], axis=1) + self.arrays["pos_embed"]
        depth = sum(name.endswith("attn.qkv.weight") for name in self.arrays)
        for block in (f"blocks.{number}" for number in range(depth)):
            x = x + self.attention(self.norm(x, f"{block}.norm1"), f"{block}.attn")
            hidden = self.linear(self.norm(x, f"{block}.norm2"), f"{block}.mlp.fc1")
            hidden = hidden * (1 + erf(hidden / np.float32(np.sqrt(2)))) / 2
            x = x + self.linear(hidden, f"{block}.mlp.fc2")
        return self.linear(self.norm(x, "norm")[:, 0], "head").astype(np.float32)

    def linear(self, x, name):
        weight = self.arrays[f"{name}.weight"]
        return x @ weight.reshape(len(weight), -1).T + self.arrays[f"{name}.bias"]

    def norm(self, x, name):
        x = x - x.mean(-1, keepdims=True)
        x = x / np.sqrt(np.square(x).mean(-1, keepdims=True) + np.float32(1e-6))
        return x * self.arrays[f"{name}.weight"] + self.arrays[f"{name}.bias"]

    def attention(self, x, name):
        n, count, width = x.shape
        qkv = self.linear(x, f"{name}.qkv").reshape(n, count, 3, -1, HEAD_WIDTH)
        query, key, value = qkv.transpose(2, 0, 3, 1, 4)
        scores = query @ key.swapaxes(-1, -2) / np.float32(np.sqrt(HEAD_WIDTH))
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        scores = scores / scores.sum(-1, keepdims=True)
        mixed = (scores @ value).swapaxes(1, 2).reshape(n, count, width)
        return self.linear(mixed, f"{name}.proj")


register(
    Format(
        key="numpy",
        suffix=".numpy.npz",
        folder="plugins/numpy",
        title="numpy float",
        used_by="numpy, in float",
        tag="numpy",
        option="numpy",
        exporter=f"{__name__}:export",
        runtime=f"{__name__}:Runtime",
        contract=f"{__name__}:contract",
    )
)
