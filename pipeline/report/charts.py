"""Charts of the report page, by matplotlib: each a pair of SVG data URIs, for light and for dark.

Equal values are equal bytes: no date, no random identifiers, none of the user's own styles.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.formats import FORMATS, name_of
from pipeline.metrics.intervals import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

POINTS = 4000  # of a scatter; a page of 50 000 images is no larger than one of 500
LINE_POINTS = 400
CSS_PIXELS = 96  # an inch
SMALL, LARGE = (3.3, 3.7), (4.4, 3.8)  # inches; a phone shows them at nearly this size
RASTER_DPI = 200
LOG_FROM = 8.0  # largest to smallest time, from which an axis is logarithmic

FLOAT = "float"


@dataclass(frozen=True)
class Style:
    """How one file is drawn in every chart: float by the first, formats by the rest in turn."""

    marker: str
    dashes: str | tuple[int, tuple[int, ...]]
    light: str  # colours, on paper of either theme
    dark: str


STYLES = (
    Style("*", "-", "#59636e", "#9aa4af"),
    Style("o", "--", "#0072b2", "#56b4e9"),
    Style("s", "-.", "#b35900", "#f0a030"),
    Style("^", ":", "#007a55", "#3ccb9c"),
    Style("D", (0, (6, 1, 1, 1, 1, 1)), "#a03b85", "#e58cc6"),
    Style("v", (0, (1, 1)), "#8a6d00", "#e6d44a"),
    Style("P", (0, (8, 2)), "#9b1c1c", "#ff8f87"),
)
STYLE = {FLOAT: STYLES[0]} | dict(zip(FORMATS, cycle(STYLES[1:]), strict=False))


@dataclass(frozen=True)
class Theme:
    """Colours of one rendering; the page's style sheet has the same."""

    paper: str
    ink: str
    muted: str
    grid: str
    series: Mapping[str, str]


LIGHT = Theme(
    paper="#ffffff",
    ink="#1f2328",
    muted="#59636e",
    grid="#d8dee4",
    series={key: style.light for key, style in STYLE.items()},
)
DARK = Theme(
    paper="#161b22",
    ink="#e6edf3",
    muted="#9aa4af",
    grid="#343b44",
    series={key: style.dark for key, style in STYLE.items()},
)


@dataclass(frozen=True)
class Chart:
    """One chart in light and dark colours, and its text alternative."""

    light: str  # data URI
    dark: str
    alt: str
    width: int  # CSS pixels
    height: int


@dataclass(frozen=True)
class Place:
    """A file among others: what it costs, and how often it answers as float does."""

    cost: float  # megabytes or milliseconds
    agreement: float  # 0..1
    interval: Interval | None  # None for float itself, which agrees by definition


def scatter(key: str, reference: NDArray[np.float32], candidate: NDArray[np.float32]) -> Chart:
    """Logits [n, classes] of one file over float's, and below them the difference."""
    x, y = reference.ravel(), candidate.ravel()
    difference = y.astype(np.float64) - x
    shown = chosen_points(difference)

    def draw(figure: Figure, theme: Theme) -> None:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(5, 3))
        ends = [float(min(x.min(), y.min())), float(max(x.max(), y.max()))]
        above.plot(ends, ends, color=theme.muted, linewidth=0.8)
        below.axhline(0, color=theme.muted, linewidth=0.8)
        for axes, values in ((above, y), (below, difference)):
            axes.plot(
                x[shown],
                values[shown],
                linestyle="none",
                marker="o",
                markersize=2.5,
                markeredgewidth=0,
                color=theme.series[key],
                alpha=0.5,
                rasterized=True,
            )
        above.set_ylabel(FORMATS[key].suffix)
        below.set_ylabel("difference")
        below.set_xlabel("float")
        figure.align_ylabels()

    alt = (
        f"Logits of {FORMATS[key].suffix} over those of float, {len(x)} pairs, {len(shown)} drawn. "
        "On the diagonal they are equal; the largest difference is "
        f"{np.abs(difference).max():.3g}, of logits from {x.min():.3g} to {x.max():.3g}."
    )
    return _chart(draw, SMALL, alt)


def chosen_points(difference: NDArray[np.float64]) -> NDArray[np.int64]:
    """Indices of the pairs to draw, sorted: half of them evenly by rank, half the worst.

    The worst ones thin out by and by, since a sharp border would be seen as a gap in the cloud.
    """
    count = len(difference)
    if count <= POINTS:
        return np.arange(count)
    evenly = np.linspace(0, count - 1, POINTS // 2).astype(np.int64)
    worst = np.geomspace(1, count, POINTS // 2).astype(np.int64) - 1
    ranks = np.union1d(evenly, worst)
    return np.sort(np.argsort(-np.abs(difference), kind="stable")[ranks])


def distributions(runs: Mapping[str, Sequence[float]]) -> Chart:
    """Which part of each file's runs, in milliseconds, took at most so long."""

    def draw(figure: Figure, theme: Theme) -> None:
        axes = figure.subplots()
        for key, values in runs.items():
            share = np.linspace(0, 1, min(len(values), LINE_POINTS) + 1)[1:]
            times = np.quantile(values, share, method="inverted_cdf")
            axes.plot(times, 100 * share, **_line(key, theme), drawstyle="steps-post")
        axes.set_xlabel("milliseconds for one image")
        axes.set_ylabel("% of the runs took at most that")
        axes.set_yticks([0, 25, 50, 75, 90, 100])
        _plain_log(axes, runs, "x")
        _legend(figure)

    medians = ", ".join(f"{name_of(key)} {np.median(values):.3g}" for key, values in runs.items())
    return _chart(draw, LARGE, f"Distribution of latency. Medians in milliseconds: {medians}.")


def rounds(runs: Mapping[str, Sequence[float]]) -> Chart:
    """The same runs in the order they were taken: a machine that changes shows here."""

    def draw(figure: Figure, theme: Theme) -> None:
        axes = figure.subplots()
        for key, values in runs.items():
            parts = np.array_split(np.asarray(values), min(len(values), LINE_POINTS))
            places = np.cumsum([len(part) for part in parts])
            line = _line(key, theme) | {"linestyle": "-", "linewidth": 1.0}
            axes.plot(places, [np.median(part) for part in parts], **line)
        axes.set_xlabel("round")
        axes.set_ylabel("milliseconds for one image")
        _plain_log(axes, runs, "y")
        _legend(figure)

    count = max(len(values) for values in runs.values())
    spread = ", ".join(
        f"{name_of(key)} {min(values):.3g} to {max(values):.3g}" for key, values in runs.items()
    )
    return _chart(
        draw,
        LARGE,
        f"Latency in the order of the {count} rounds. Range in milliseconds: {spread}.",
    )


def pareto(places: Mapping[str, Place], unit: str, what: str) -> Chart:
    """Agreement over what it costs; a line joins the files that no other beats in both."""
    best = frontier(places)

    def draw(figure: Figure, theme: Theme) -> None:
        axes = figure.subplots()
        axes.plot(
            [places[key].cost for key in best],
            [100 * places[key].agreement for key in best],
            color=theme.muted,
            linewidth=0.8,
        )
        for key, place in places.items():
            ends = place.interval or Interval(place.agreement, place.agreement)
            axes.errorbar(
                [place.cost],
                [100 * place.agreement],
                # Rounding may leave an end a hair on the wrong side of the value.
                yerr=[
                    [100 * max(0.0, place.agreement - ends.low)],
                    [100 * max(0.0, ends.high - place.agreement)],
                ],
                fmt=STYLE[key].marker,
                markersize=9 if key == FLOAT else 6,
                color=theme.series[key],
                capsize=3,
                label=name_of(key),
            )
        axes.set_xlim(left=0)
        axes.set_xlabel(f"{what}, {unit}")
        axes.set_ylabel("% of answers as float's")
        _legend(figure)

    seen = ", ".join(
        f"{name_of(key)} {place.cost:.3g} {unit} and {100 * place.agreement:.2f}%"
        for key, place in places.items()
    )
    alt = f"Agreement over {what}: {seen}. Not beaten in both: {', '.join(map(name_of, best))}."
    return _chart(draw, LARGE, alt)


def frontier(places: Mapping[str, Place]) -> list[str]:
    """The keys that no other place beats, by cost: as cheap and as near, and better in one."""

    def beaten(place: Place) -> bool:
        return any(
            other.cost <= place.cost
            and other.agreement >= place.agreement
            and (other.cost, other.agreement) != (place.cost, place.agreement)
            for other in places.values()
        )

    return sorted(
        (key for key, place in places.items() if not beaten(place)),
        key=lambda key: places[key].cost,
    )


def _line(key: str, theme: Theme) -> dict[str, Any]:
    return {
        "color": theme.series[key],
        "linestyle": STYLE[key].dashes,
        "linewidth": 1.5,
        "label": name_of(key),
    }


def _legend(figure: Figure) -> None:
    figure.legend(loc="outside lower center", ncols=3, frameon=False)


def _plain_log(axes: Axes, runs: Mapping[str, Sequence[float]], side: str) -> None:
    """Make an axis of times logarithmic, with plain numbers, where they differ by much."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low = min(min(values) for values in runs.values())
    high = max(max(values) for values in runs.values())
    axis = axes.xaxis if side == "x" else axes.yaxis
    if low <= 0 or high / low < LOG_FROM:
        (axes.set_xlim if side == "x" else axes.set_ylim)(0)
        return
    (axes.set_xscale if side == "x" else axes.set_yscale)("log")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _chart(draw: Callable[[Figure, Theme], None], inches: tuple[float, float], alt: str) -> Chart:
    light, dark = (_render(draw, inches, theme) for theme in (LIGHT, DARK))
    return Chart(light, dark, alt, *(round(CSS_PIXELS * inch) for inch in inches))


def _render(
    draw: Callable[[Figure, Theme], None], inches: tuple[float, float], theme: Theme
) -> str:
    from matplotlib import style
    from matplotlib.figure import Figure

    with style.context(["default", _settings(theme)]):
        figure = Figure(figsize=inches, layout="constrained")
        draw(figure, theme)
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", dpi=RASTER_DPI, metadata=nothing)
    text = buffer.getvalue()
    svg = text[text.index("<svg") :]  # without the document type, which names an address
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


def _settings(theme: Theme) -> dict[str, Any]:
    return {
        "svg.hashsalt": "edge-vit",
        "svg.fonttype": "none",  # the reader's own sans-serif: sharp, and a tenth of the bytes
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": 10,
        "figure.facecolor": theme.paper,
        "axes.facecolor": theme.paper,
        "text.color": theme.ink,
        "axes.labelcolor": theme.ink,
        "axes.edgecolor": theme.grid,
        "xtick.color": theme.muted,
        "ytick.color": theme.muted,
        "axes.grid": True,
        "grid.color": theme.grid,
        "grid.linewidth": 0.6,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
