from __future__ import annotations

from pipeline.evidence.devices import Devices
from pipeline.report import device_matrix
from tests.verdict.test_devices import ANSWERS, case, cell


def test_a_row_says_how_a_file_fares_on_a_runtime() -> None:
    cost = {"runs_ms": [3.0, 1.0, 2.0], "peak_memory_mb": 99.6, "instructions": [600_000_000]}
    got = case(cell(cost=cost))
    (row,) = device_matrix.rows(got.devices, got.gate)
    found = dict(zip(device_matrix.HEADER, row, strict=True))
    assert (found["file"], found["runtime"]) == (".ptl", "PyTorch Lite 1.13.1")
    assert (found["loads"], found["runs"], found["agrees"]) == ("yes", "yes", "yes")
    assert (found["top-1 as here"], found["SQNR dB"]) == ("4 of 4", "equal")
    assert (found["p50 ms"], found["peak MB"], found["M instructions"]) == ("2.0", "100", "600.0")


def test_what_does_not_load_stands_out() -> None:
    cost = {"runs_ms": [], "peak_memory_mb": None, "instructions": []}
    got = case(cell(loads=False, runs=False, logits=None, error="x", cost=cost))
    (row,) = device_matrix.rows(got.devices, got.gate)
    assert row[3:] == ("NO", "NO", "NO", *["-"] * 6)


def test_evidence_of_other_golden_images_has_no_row() -> None:
    got = case(cell(), golden="0" * 64)
    assert device_matrix.rows(got.devices, got.gate) == []
    assert device_matrix.lines(Devices(ANSWERS), got.gate) == []
