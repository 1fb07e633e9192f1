"""A whole pipeline run on a few samples, made once for all tests that look at its results."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.params import Params, load_params
from pipeline.stages.chain import run as run_stages
from pipeline.stages.chain import stages_of
from tests.import_closure import closure
from tests.prepared import key_of, prepared, state_of

# As many test processes run as there are cores: a second thread of each would mostly wait in a
# loop, which made tests three to ten times as expensive. It holds for torch, which no module above
# imports, and for processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).parent.parent
CACHE = ROOT / ".pytest_cache" / "prepared"
SAMPLES = 96
HEALTHY = ("fetch", "samples", "reference", *stages_of(), "golden", "parity", "latency")
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


@pytest.hookimpl(trylast=True)  # what does not run is no longer among the items
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files with the longest tests first.

    Then one that needs the shared run, those that do not, while it is made, and the others.
    """
    first = {ROOT / "tests" / name: place for place, name in enumerate(LONGEST)}
    long = {item.path for item in items if item.get_closest_marker("full")} & first.keys()
    needing = {item.path: None for item in items if "healthy" in getattr(item, "fixturenames", ())}
    makes = next((path for path in needing if path not in long), None)

    def place(item: pytest.Item) -> tuple[int, bool, bool]:
        order = first[item.path] if item.path in long else len(first)
        return order, item.path != makes, item.path in needing

    items.sort(key=place)


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
    # Ten runs on a machine that also runs other tests say nothing about speed, and 96 images little
    # about accuracy.
    values["gate"]["published_tolerance_pp"] = 20
    for budget in values["gate"]["budgets"].values():
        budget |= dict.fromkeys(("latency_ratio_max", "regression_ratio_max", "baseline_ratio_max"))
        budget |= {"top1_agreement_min": 0.95, "accuracy_drop_max_pp": 5.0}
    return Params.model_validate(values)


@pytest.fixture(scope="session")
def healthy(params: Params) -> Iterator[Path]:
    """The artifacts of a run without faults; shared, so never change them in place.

    Kept from session to session, as long as nothing changes that it is made from.
    """
    if ready := os.environ.get("EDGE_VIT_TEST_RUN"):  # made elsewhere
        yield Path(ready)
        return
    code = set[Path]().union(*(closure(f"pipeline.stages.{stage}") for stage in HEALTHY))
    made_from = [ROOT / path for path in sorted(code)]
    made_from += [*sorted((ROOT / "embedded").rglob("*.*")), ROOT / "requirements.lock"]
    key = key_of(made_from, params.model_dump_json())

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
