"""Networks that timm makes for images of any size have one size here, and every format has them."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from pipeline import paths
from pipeline.contract.files import load_contract
from pipeline.files import sha256_file
from pipeline.formats import FORMATS
from pipeline.images.preprocessing import normalize
from pipeline.images.samples import SampleSet
from pipeline.params import Params
from pipeline.runtimes import load
from pipeline.stages.chain import run as run_stages

pytestmark = pytest.mark.full

ARCHITECTURE = "test_vit"  # 0.4 million weights


@pytest.fixture(scope="module")
def artifacts(params, healthy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("any_size")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = timm.create_model(ARCHITECTURE, num_classes=10)
    assert network.dynamic_img_size
    weights, labels = folder / "own.safetensors", folder / "labels.txt"
    save_file(network.state_dict(), weights)
    labels.write_text("\n".join(load_contract(healthy / "checkpoint").labels))
    values = params.model_dump()
    values["model"] = {
        "checkpoint": str(weights),
        "architecture": ARCHITECTURE,
        "sha256": sha256_file(weights),
        "labels": str(labels),
        "image_size": 96,
    }
    values["samples"] |= {"limit": 10}
    run_stages(
        Params.model_validate(values),
        folder / "artifacts",
        *("fetch", "samples", "rewrite", "quantize", "script", "optimize", "lite"),
        *("export_onnx", "export_executorch"),
    )
    return folder / "artifacts"


@pytest.mark.parametrize("key", FORMATS)
def test_every_format_has_it(artifacts, key):
    images = SampleSet.load(artifacts / "samples").images[:4]
    whole = load(artifacts / "checkpoint" / "model.safetensors")
    batch = normalize(images, whole.contract.preprocessing)
    expected = whole.logits(batch)
    runtime = load(paths.delivered_file(artifacts, key))
    found = np.concatenate([runtime.logits(batch[n : n + 1]) for n in range(len(batch))])
    limit = 1e-4 if key == "onnx" else 0.1 * np.ptp(expected)
    assert np.abs(found - expected).max() < limit
