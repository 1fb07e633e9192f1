"""A whole pipeline run on a few samples, made once for all tests that look at its results."""

from __future__ import annotations

import inspect
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from pipeline.params import Params, load_params
from pipeline.process import end_with_parent
from tests.prepared import key_of, modules_of, prepared, state_of

ROOT = Path(__file__).parent.parent
CACHE = ROOT / ".pytest_cache" / "prepared"
SAMPLES = 96
HEALTHY = (
    *("fetch", "samples", "reference", "rewrite", "quantize", "script", "optimize", "lite"),
    *("export_onnx", "export_executorch", "golden", "parity", "latency"),
)
# Of two processes one would otherwise end minutes before the other.
LONGEST = (
    "benchmarks/test_checkpoint_rows.py",
    "tuning/test_search.py",
    "stages/test_faults.py",
    "tuning/test_repair.py",
    "quantization/test_static.py",
    "release/test_rebuild.py",
    "test_cli.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files with the longest tests first."""
    first = {ROOT / "tests" / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: first.get(item.path, len(first)))


def alone(function: Callable[..., object], *arguments: object) -> None:
    """Call a function in a process of its own, as DVC does; what it raises is raised here."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, initializer=end_with_parent) as process:
        process.submit(function, *arguments).result()


def run_stages(params: Params, artifacts: Path, *stages: str) -> None:
    """Run stages in this process, in the order given, on the folder ``artifacts``.

    But for ``script``: TorchScript gives a class another name where the process knows one of that
    name already, and each test's file would depend on which tests ran before.
    """
    from pipeline.contract.files import load_contract
    from pipeline.stages.export_executorch import export_executorch
    from pipeline.stages.export_onnx import export_onnx
    from pipeline.stages.fetch import fetch
    from pipeline.stages.golden import golden
    from pipeline.stages.latency import latency
    from pipeline.stages.lite import lite
    from pipeline.stages.optimize import optimize
    from pipeline.stages.parity import parity
    from pipeline.stages.quantize import quantize
    from pipeline.stages.reference import reference
    from pipeline.stages.rewrite import rewrite
    from pipeline.stages.samples import samples
    from pipeline.stages.script import script

    a = artifacts
    checkpoint, rewritten = a / "checkpoint", a / "rewritten"
    run: dict[str, Callable[[], object]] = {
        "fetch": lambda: fetch(params, checkpoint),
        "samples": lambda: samples(params.samples, load_contract(checkpoint), a / "samples"),
        "reference": lambda: reference(
            params.reference, checkpoint, a / "samples", a / "reference"
        ),
        "rewrite": lambda: rewrite(params.rewrite, checkpoint, a / "samples", rewritten),
        "quantize": lambda: quantize(params.quantize, rewritten, a / "samples", a / "quantized"),
        "script": lambda: alone(script, a / "quantized", a / "scripted"),
        "optimize": lambda: optimize(a / "scripted", a / "optimized"),
        "lite": lambda: lite(params.quantize, a / "optimized", a / "lite"),
        "export_onnx": lambda: export_onnx(
            params.quantize,
            rewritten,
            a / "samples",
            a / "onnx",
            a / "onnx_int8",
            params.export_onnx,
        ),
        "export_executorch": lambda: export_executorch(
            params.quantize, rewritten, a / "samples", a / "executorch"
        ),
        "golden": lambda: golden(params, a, a / "golden"),
        "parity": lambda: parity(params.parity, a, a / "parity"),
        "latency": lambda: latency(params.latency, a, a / "latency"),
    }
    for stage in stages:
        run[stage]()


@pytest.fixture(scope="session")
def params() -> Params:
    """The default parameters, on few samples and with few timed runs.

    Weights are those of the checkpoint and int8 is dynamic in each file, which eight calibration
    images are enough for.
    """
    values = load_params(ROOT / "params.yaml").model_dump()
    values |= {"rewrite": {}}
    values["quantize"] |= {"scheme": "per_channel", "rounding": "nearest"}
    values["export_onnx"]["smooth_hidden"] = None
    values["samples"] |= {
        "source": ROOT / "embedded" / "fashion_mnist",
        "limit": SAMPLES,
        "calibration": 8,
    }
    values["golden"] = {"samples": 2, "photographs": ROOT / "embedded" / "photos"}
    values["reference"]["noise_samples"] = 16
    values["parity"]["step_samples"] = 16
    values["latency"] |= {"warmup": 1, "runs": 10, "min_seconds": 0}
    # Ten runs on a machine that also runs other tests say nothing about speed.
    for budget in values["gate"]["budgets"].values():
        budget["latency_ratio_max"] = None
    return Params.model_validate(values)


@pytest.fixture(scope="session")
def healthy(params: Params) -> Iterator[Path]:
    """The artifacts of a run without faults; shared, so never change them in place.

    Kept from session to session, as long as nothing changes that it is made from.
    """
    if ready := os.environ.get("EDGE_VIT_TEST_RUN"):  # made elsewhere
        yield Path(ready)
        return
    made_from = modules_of(f"pipeline.stages.{stage}" for stage in HEALTHY)
    made_from += [*sorted((ROOT / "embedded").rglob("*.*")), ROOT / "requirements.lock"]
    key = key_of(made_from, params.model_dump_json(), inspect.getsource(run_stages))

    def make(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(ROOT)
            run_stages(params, folder / "artifacts", *HEALTHY)

    entry = prepared(CACHE, key, make)
    before = state_of(entry)
    yield entry / "artifacts"
    if state_of(entry) != before:
        shutil.rmtree(entry)
        pytest.fail("a test changed the shared run in place; it is removed from the cache")


@pytest.fixture
def artifacts(healthy: Path, tmp_path: Path) -> Path:
    """A copy of the healthy run, to plant a fault in."""
    return Path(shutil.copytree(healthy, tmp_path / "artifacts"))
