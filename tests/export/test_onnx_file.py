"""ONNX files of models that are too large for one file, made small here by a lower limit."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest

from pipeline import paths
from pipeline.errors import IntegrityError
from pipeline.export import onnx_file
from pipeline.images.preprocessing import normalize
from pipeline.images.samples import SampleSet
from pipeline.runtimes import load
from pipeline.stages.chain import run as run_stages

pytestmark = pytest.mark.full


def exported(params, healthy, folder):
    for name in ("samples", "rewritten"):
        (folder / name).symlink_to(healthy / name)
    run_stages(params, folder, "export_onnx")
    return tuple(paths.delivered_files(folder).values())


@pytest.fixture(scope="module")
def split(params, healthy, tmp_path_factory):
    """The float file with its weights beside it, and the int8 file, which fits."""
    folder = tmp_path_factory.mktemp("split")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_file, "MAX_FILE_BYTES", 10_000_000)
        return exported(params, healthy, folder)


def answers(path, healthy):
    runtime = load(path)
    images = SampleSet.load(healthy / "samples").images[:4]
    return runtime.logits(normalize(images, runtime.contract.preprocessing))


def test_weights_beside_the_file_give_the_same_answers(split, healthy):
    for path, whole in zip(split, ("onnx", "int8_onnx"), strict=True):
        assert np.array_equal(
            answers(path, healthy), answers(paths.delivered_file(healthy, whole), healthy)
        )


def test_only_the_file_that_is_too_large_is_split_and_its_size_counts_both(split, healthy):
    large, small = split
    assert paths.companions(large) == [paths.data_file(large)]
    assert paths.companions(small) == []
    whole = paths.delivered_file(healthy, "onnx").stat().st_size
    assert large.stat().st_size < 1_000_000
    assert paths.size_bytes(large) == pytest.approx(whole, rel=0.02)


def test_other_weights_beside_the_file_are_refused(split, healthy, tmp_path):
    for path in (split[0], paths.data_file(split[0])):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    path = tmp_path / split[0].name
    with paths.data_file(path).open("r+b") as file:
        file.seek(1_000_000)
        file.write(b"\x00\x00\x00\x01")
    with pytest.raises(IntegrityError, match=r"\.onnx\.data is not what .*\.onnx was made with"):
        load(path)


def test_the_operators_of_onnx_runtime_compute_the_same(params, healthy, tmp_path):
    quantize = params.quantize.model_copy(update={"keep_float": ("*",)})
    params = params.model_copy(update={"quantize": quantize})
    float_file, fused = exported(params, healthy, tmp_path)
    graph = onnx.load(fused).graph
    own = Counter(node.op_type for node in graph.node if node.domain)
    assert own == {"MultiHeadAttention": 12, "FastGelu": 12}
    expected = answers(float_file, healthy)
    # The tanh form of GELU differs by up to 5e-4.
    np.testing.assert_allclose(answers(fused, healthy), expected, atol=0.01 * np.ptp(expected))
