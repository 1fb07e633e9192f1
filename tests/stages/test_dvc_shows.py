"""What DVC shows of a run: few columns of metrics, and plots of columns that the stages write."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import yaml

from pipeline.evidence.latency import LatencyEvidence
from pipeline.evidence.model import read_sealed
from pipeline.evidence.parity import ParityEvidence
from pipeline.stages.latency import _metrics as latency_metrics
from pipeline.stages.latency import _rounds
from pipeline.stages.parity import _metrics as parity_metrics

ROOT = Path(__file__).parents[2]
PLOTS = ROOT / ".dvc" / "plots"


def columns(metrics, prefix=""):
    for name, value in metrics.items():
        if isinstance(value, dict):
            yield from columns(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def test_the_metrics_of_both_stages_fit_a_screen(healthy):
    parity = read_sealed(healthy / "parity" / "evidence.json", ParityEvidence)
    latency = read_sealed(healthy / "latency" / "evidence.json", LatencyEvidence)
    shown = [*columns(parity_metrics(parity)), *columns(latency_metrics(latency))]
    assert sorted(shown) == [
        "agreement",
        "drop_pp",
        "size_mb",
        "sqnr.int8_onnx",
        "sqnr.pte",
        "sqnr.ptl",
        "time.int8_onnx",
        "time.onnx",
        "time.pte",
        "time.ptl",
    ]


def test_the_plot_of_times_has_a_colour_for_each_file(healthy):
    evidence = read_sealed(healthy / "latency" / "evidence.json", LatencyEvidence)
    rows = list(csv.DictReader(io.StringIO(_rounds(evidence))))
    (plot,) = (
        plot["time of each file"]
        for plot in yaml.safe_load((ROOT / "dvc.yaml").read_text())["plots"]
        if "time of each file" in plot
    )
    template = json.loads((PLOTS / f"{plot['template']}.json").read_text())
    colours = {row[template["encoding"]["color"]["field"]] for row in rows}
    assert colours == {"float", ".ptl", ".onnx", ".int8.onnx", ".pte"}
    assert {plot["x"], *plot["y"].values()} <= set(rows[0])
    assert len(rows) == len(colours) * evidence.rounds
