"""The inputs of every peer: the float model as PyTorch and as ONNX, and calibration images."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

from device_tests.cache import made
from pipeline.contract.files import MODEL_FILE, load_contract
from pipeline.files import sha256_file, write_json
from pipeline.images.preprocessing import normalize
from pipeline.images.samples import CALIBRATION_FILE, SampleSet, calibration_input
from pipeline.process import quiet

VERSION = "2"  # of what is written here
INPUTS = "inputs.npy"
CHUNK = 64  # images at a time


def prepare(artifacts: Path, folder: Path) -> Path:
    """Fill ``folder``, unless it was made from the same bytes.

    It gets ``model.json`` (how to create the model, its input's shape), ``model.safetensors``,
    ``model.onnx`` (float) and ``calibration.npy`` (float32 [n, C, H, W]).

    Raises:
        InputError: a file of the run is missing; the message says how to make it.
    """
    contract = load_contract(artifacts / "checkpoint")
    sources = [artifacts / "checkpoint" / MODEL_FILE, artifacts / "samples" / CALIBRATION_FILE]
    description = {
        "create": {
            "architecture": contract.checkpoint.architecture,
            "num_classes": contract.outputs,
            "image_size": contract.preprocessing.size,
            "kwargs": contract.checkpoint.kwargs,
            "norm_eps": contract.checkpoint.norm_eps,
        },
        "input_shape": list(contract.input_shape),
    }

    def make(new: Path) -> None:
        write_json(new / "model.json", description)
        shutil.copyfile(sources[0], new / "model.safetensors")
        np.save(
            new / "calibration.npy",
            calibration_input(artifacts / "samples", contract.preprocessing),
        )
        _export_onnx(sources[0], contract.input_shape, new / "model.onnx")

    hashes = [sha256_file(path) for path in sources]
    preprocessing = repr(contract.preprocessing)
    recipe = json.dumps([VERSION, description, preprocessing, *hashes])
    return made(folder, recipe, make)


def evaluation(artifacts: Path, folder: Path) -> Path:
    """Fill ``folder`` with the samples as models take them, float32 [n, C, H, W]; return the file.

    Raises:
        InputError: the samples are missing or damaged.
    """
    preprocessing = load_contract(artifacts / "checkpoint").preprocessing
    samples = SampleSet.load(artifacts / "samples")

    def make(new: Path) -> None:
        shape = (len(samples), preprocessing.channels, *preprocessing.size)
        array = np.lib.format.open_memmap(new / INPUTS, mode="w+", dtype=np.float32, shape=shape)
        for start in range(0, len(samples), CHUNK):
            chunk = slice(start, start + CHUNK)
            array[chunk] = normalize(samples.images[chunk], preprocessing)
        array.flush()

    return made(folder, f"{VERSION} {samples.sha256} {preprocessing!r}", make) / INPUTS


def _export_onnx(checkpoint: Path, shape: tuple[int, ...], path: Path) -> None:
    """Export as PyTorch's documentation says: its default opset, one image at a time."""
    import torch

    from pipeline.quantization.load import load_model

    model, _ = load_model(checkpoint)
    with quiet():
        program = torch.onnx.export(
            model, (torch.zeros(shape),), dynamo=True, verbose=False, input_names=["input"]
        )
    assert program is not None
    proto = program.model_proto
    # Shapes of inner values: Optimum's quantizer transposes weights and then finds them wrong.
    del proto.graph.value_info[:]
    path.write_bytes(proto.SerializeToString())
