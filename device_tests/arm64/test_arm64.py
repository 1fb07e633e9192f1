"""Faults that show on ARM64, and what the count of instructions counts."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from device_tests import cache, program
from device_tests.arm64 import RUNNER, RUNTIMES
from device_tests.arm64.emulator import Emulator
from device_tests.target import Bundle, Cell
from pipeline.params import Gate, load_params
from pipeline.verdict.criteria import devices

KEY = "int8_onnx"  # the quickest here


@pytest.fixture(scope="session")
def emulator() -> Emulator:
    found = Emulator(cache.folder("arm64"))
    found.install()
    return found


@pytest.fixture(scope="session")
def gate() -> Gate:
    return load_params().gate


def answers(emulator: Emulator, bundle: Bundle, path: Path) -> Cell:
    """Run a file on all the images that a target must run at least, without counting."""
    count = str(devices.IMAGES_MIN)
    return program.cell(
        [*emulator.command(), RUNNER, path, bundle.golden.inputs_file, count, "0", "0"],
        file_format=KEY,
        path=path,
        runtime=RUNTIMES["onnx"].name,
        machine="aarch64",
        env=emulator.environment(emulator.site(RUNTIMES["onnx"].lock)),
    )


def test_a_truncated_file_does_not_load(emulator: Emulator, bundle: Bundle, tmp_path: Path) -> None:
    cut = tmp_path / "cut.int8.onnx"
    cut.write_bytes(bundle.files[KEY].read_bytes()[:1_000_000])
    found = answers(emulator, bundle, cut)
    assert (found.loads, found.runs, found.logits) == (False, False, None)
    assert found.error


def test_a_model_of_other_weights_does_not_agree(
    emulator: Emulator, bundle: Bundle, gate: Gate, tmp_path: Path
) -> None:
    model = onnx.load(bundle.files[KEY])
    sizes = {t.name: np.prod(t.dims) for t in model.graph.initializer if t.data_type == 1}
    largest = max(sizes, key=lambda name: sizes[name])
    (tensor,) = (t for t in model.graph.initializer if t.name == largest)
    tensor.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(tensor), largest))
    other = tmp_path / "other.int8.onnx"
    onnx.save(model, other)
    found = answers(emulator, bundle, other)
    assert found.loads
    assert found.runs
    assert not devices.agrees(gate, bundle.golden.content, found)


def count(emulator: Emulator, scratch: Path, code: str) -> list[int]:
    """Instructions between the marks that ``code`` makes, with `mark` at hand."""
    marks = scratch / "marks"
    script = f"import sys; sys.path.insert(0, {str(RUNNER.parent)!r}); from runner import mark\n"
    site = emulator.site(RUNTIMES["onnx"].lock)  # has the numpy that runner.py imports
    environment = emulator.environment(site)
    program.call([*emulator.command(marks), "-c", script + code], env=environment)
    return [after - before for before, after in pairwise(map(int, marks.read_text().split()))]


def test_what_is_counted_grows_with_the_work_and_repeats(
    emulator: Emulator, tmp_path: Path
) -> None:
    code = """
def work(n):
    for _ in range(n):
        pass
for n in (0, 10**6, 2 * 10**6, 10**6):
    work(n)
    mark()
"""
    once, twice, again = count(emulator, tmp_path, code)
    assert 1.9 < twice / once < 2.1
    assert abs(again - once) / once < devices.SPREAD_MAX


def test_start_up_is_not_counted(emulator: Emulator, tmp_path: Path) -> None:
    (between,) = count(emulator, tmp_path, "mark(); mark()")
    assert between < 100_000
