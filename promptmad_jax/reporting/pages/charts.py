"""Charts of the page as SVG paths; templates/charts.html draws them.

SVG rather than matplotlib: its colours follow the page's light or dark style, and page.js brings
one class to the front.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from promptmad_jax.reporting.chart_data import (
    PANELS,
    TRAINING_TITLES,
    Panel,
    Series,
    bounds,
    histogram,
    is_logarithmic,
)
from promptmad_jax.reporting.curves import Points
from promptmad_jax.reporting.pages.rendering import COLOURS
from promptmad_jax.reporting.tables import HEADINGS

Ticks = list[tuple[float, str]]


@dataclass(frozen=True)
class Frame:
    """A drawing area with the ranges `x` and `y`, in a view box of `width` x `height`."""

    x: tuple[float, float]
    y: tuple[float, float]
    width: int = 300
    height: int = 260
    left: int = 46
    top: int = 10

    @property
    def right(self) -> int:
        return self.width - 12

    @property
    def bottom(self) -> int:
        return self.height - 40

    def across(self, x: np.ndarray | float) -> np.ndarray | float:
        """The position of `x` in the view box."""
        low, high = self.x
        return self.left + (x - low) / (high - low) * (self.right - self.left)

    def down(self, y: np.ndarray | float) -> np.ndarray | float:
        """The position of `y` in the view box."""
        low, high = self.y
        return self.bottom - (y - low) / (high - low) * (self.bottom - self.top)

    def path(self, x: np.ndarray, y: np.ndarray) -> str:
        """The path through the points."""
        pairs = zip(self.across(x), self.down(y), strict=True)
        return "M" + "L".join(f"{_short(a)},{_short(b)}" for a, b in pairs)


@dataclass(frozen=True)
class Mark:
    """A path of a chart: its CSS class, what hovering shows, and the number of its class."""

    style: str
    path: str
    hint: str = ""
    index: int | None = None


@dataclass(frozen=True)
class Chart:
    """A drawing; ticks are positions in the view box with their numbers."""

    title: str
    frame: Frame
    x_name: str
    y_name: str
    x_ticks: Ticks
    y_ticks: Ticks
    marks: Sequence[Mark]


def curve_charts(
    curves: Sequence[Mapping[str, Points]], names: Sequence[str]
) -> list[tuple[Panel, Chart]]:
    """One chart for each kind of curve, with the curves of all classes that have one."""
    charts = []
    for key, panel in PANELS.items():
        own = {index: points[key] for index, points in enumerate(curves) if key in points}
        if own:
            charts.append((panel, _curve_chart(panel, own, names)))
    return charts


def _curve_chart(panel: Panel, curves: Mapping[int, Points], names: Sequence[str]) -> Chart:
    last = max(float(points[:, 0].max()) for points in curves.values())
    frame = Frame((0.0, last), (0.0, 1.0))
    marks = [Mark("curve", frame.path(*xy.T), names[i], i) for i, xy in curves.items()]
    x_ticks = [(frame.across(x), number(x)) for x in (0, last / 2, last)]
    y_ticks = [(frame.down(y), number(y)) for y in (0, 0.5, 1)]
    return Chart(panel.title, frame, panel.x, panel.y, x_ticks, y_ticks, marks)


def histogram_chart(
    name: str,
    scores: np.ndarray,
    labels: np.ndarray,
    threshold: float | None,
    kinds: tuple[str, str] = ("normal", "defective"),
    quantity: str = "image score",
) -> Chart:
    """The image scores of a class: normal images above the line, defective ones below it.

    Args:
      kinds: what images are called whose label is 0 and 1.
    """
    edges, normal, defective = histogram(scores, labels, threshold)
    top = 1.08 * max(1, normal.max(), defective.max())
    frame = Frame((edges[0], edges[-1]), (-top, top))
    marks = []
    bars = ("normal", normal, 1), ("defective", defective, -1)
    for kind, (style, counts, sign) in zip(kinds, bars, strict=True):
        for left, right, count in zip(edges[:-1], edges[1:], counts, strict=True):
            if count:
                hint = f"{count} {kind}, {left:.3g} to {right:.3g}"
                x = np.array([left, left, right, right])
                bar = frame.path(x, sign * np.array([0, count, count, 0]))
                marks.append(Mark(f"bar {style}", bar, hint))
    marks.append(Mark("axis", frame.path(edges[[0, -1]], np.zeros(2))))
    if threshold is not None:
        line = frame.path(np.full(2, threshold), np.array(frame.y))
        marks.append(Mark("threshold", line, f"threshold {threshold:.4g}"))
    x_ticks = [(frame.across(x), number(x)) for x in ticks(*frame.x, 3)]
    title = f"Histogram of the {quantity} of {name}"
    return Chart(title, frame, quantity, "images", x_ticks, [], marks)


def training_chart(name: str, series: Mapping[str, Series]) -> Chart:
    """Series over the steps, logarithmic where that shows more."""
    logarithmic = is_logarithmic(series)
    scale = np.log10 if logarithmic else np.asarray
    values = np.concatenate([scale(values) for _, values in series.values()])
    steps = np.concatenate([steps for steps, _ in series.values()])
    frame = Frame(bounds(steps, 0), bounds(values, 0.04), 520, 250)
    marks = [
        Mark(f"series-{i % COLOURS}", frame.path(x, scale(y)), HEADINGS.get(key, key))
        for i, (key, (x, y)) in enumerate(series.items())
    ]
    y_numbers = _decade_ticks(*frame.y) if logarithmic else ticks(*frame.y)
    y_ticks = [(frame.down(scale(y)), number(y)) for y in y_numbers]
    x_ticks = [(frame.across(x), number(x)) for x in ticks(*frame.x) if x == round(x)]
    y_name = "logarithmic" if logarithmic else ""
    return Chart(TRAINING_TITLES[name], frame, "step", y_name, x_ticks, y_ticks, marks)


def ticks(low: float, high: float, target: int = 5) -> list[float]:
    """Round numbers in [low, high], as near to `target` of them as steps of 1, 2 and 5 come."""
    power = 10.0 ** math.floor(math.log10((high - low) / target))
    choices = []
    for step in (power, 2 * power, 5 * power, 10 * power):
        multiples = range(math.ceil(low / step), math.floor(high / step) + 1)
        choices.append([step * i for i in multiples])
    return min(choices, key=lambda values: abs(len(values) - target))


def _decade_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten in [10^low, 10^high], or the powers alone if many."""
    powers = range(math.floor(low), math.ceil(high) + 1)
    factors = (1, 2, 5) if len(powers) < 5 else (1,)
    numbers = [factor * 10.0**power for power in powers for factor in factors]
    return [tick for tick in numbers if low <= math.log10(tick) <= high]


def number(value: float) -> str:
    """Formats the number of a tick, short."""
    if value and not 1e-2 <= abs(value) < 1e6:
        digits, power = f"{value:.1e}".split("e")
        return f"{digits.removesuffix('.0')}e{int(power)}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
