from __future__ import annotations

import base64
from xml.etree import ElementTree

import numpy as np
import pytest

from pipeline.metrics.intervals import Interval
from pipeline.report import charts
from pipeline.report.charts import Place

SVG = "{http://www.w3.org/2000/svg}"
XLINK = "{http://www.w3.org/1999/xlink}"


def tree(uri: str) -> ElementTree.Element:
    kind, _, content = uri.partition(",")
    assert kind == "data:image/svg+xml;base64"
    return ElementTree.fromstring(base64.b64decode(content))


def words(uri: str) -> set[str]:
    return {"".join(text.itertext()).strip() for text in tree(uri).iter(f"{SVG}text")}


@pytest.fixture(scope="module")
def runs() -> dict[str, list[float]]:
    rng = np.random.default_rng(0)
    return {key: rng.uniform(10, 200, 50).tolist() for key in ("float", "ptl", "onnx")}


def test_a_chart_is_two_pictures_that_refer_to_nothing_outside(runs):
    chart = charts.distributions(runs)
    assert chart.light != chart.dark
    for uri in (chart.light, chart.dark):
        assert base64.b64decode(uri.partition(",")[2]).startswith(b"<svg")  # no DTD address
        for element in tree(uri).iter():
            for name in ("href", f"{XLINK}href"):
                assert element.get(name, "#").startswith(("#", "data:"))
            assert element.tag.startswith(SVG)  # and no metadata, which would hold a date


def test_equal_values_are_equal_charts(runs):
    assert charts.distributions(runs) == charts.distributions(runs)


def test_the_users_own_style_changes_nothing(runs):
    import matplotlib

    plain = charts.rounds(runs)
    with matplotlib.rc_context({"lines.marker": "x", "svg.hashsalt": "other", "font.size": 30}):
        assert charts.rounds(runs) == plain


def test_each_file_has_its_name_in_the_legend_and_its_median_in_words(runs):
    chart = charts.distributions(runs)
    assert {"float", ".ptl", ".onnx"} <= words(chart.light)
    for values in runs.values():
        assert f"{np.median(values):.3g}" in chart.alt


def test_a_scatter_says_the_largest_difference():
    reference = np.zeros((30, 4), np.float32)
    candidate = reference.copy()
    candidate[7, 2] = -0.75
    chart = charts.scatter("pte", reference, candidate)
    assert "120 pairs" in chart.alt
    assert "largest difference is 0.75" in chart.alt


def test_of_too_many_points_the_worst_are_drawn_and_always_the_same_ones():
    difference = np.random.default_rng(0).normal(size=60_000)
    chosen = charts.chosen_points(difference)
    assert len(chosen) <= charts.POINTS
    assert len(set(chosen.tolist())) == len(chosen)
    assert set(np.argsort(-np.abs(difference))[:100]) <= set(chosen.tolist())
    assert np.array_equal(chosen, charts.chosen_points(difference))


def test_of_few_points_all_are_drawn():
    assert charts.chosen_points(np.zeros(17)).tolist() == list(range(17))


def test_the_frontier_is_what_nothing_beats():
    places = {
        "float": Place(22.0, 1.0, None),
        "onnx": Place(23.0, 1.0, Interval(0.99, 1.0)),  # larger, without a higher SQNR
        "ptl": Place(6.6, 0.98, Interval(0.97, 0.99)),
        "int8_onnx": Place(6.9, 0.97, Interval(0.96, 0.98)),  # larger and worse
        "pte": Place(6.0, 0.96, Interval(0.95, 0.97)),
    }
    assert charts.frontier(places) == ["pte", "ptl", "float"]


def test_equal_places_are_both_on_the_frontier():
    twins = {"ptl": Place(6.0, 0.9, None), "pte": Place(6.0, 0.9, None)}
    assert set(charts.frontier(twins)) == {"ptl", "pte"}
