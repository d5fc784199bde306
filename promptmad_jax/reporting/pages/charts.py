"""Curves and histograms as inline SVG; their colours come from the page's style."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from promptmad_jax.reporting.curves import Points, Series
from promptmad_jax.reporting.pages.page import escape

LEFT, RIGHT, TOP, BOTTOM = 46, 12, 10, 40
BINS = 24
COLOURS = 8


@dataclass(frozen=True)
class Frame:
    """A drawing area [low, high] on both axes, in a view box of `width` x `height`.

    Attributes:
      x, y: the ranges. logarithmic: the y range and its values are logarithms to base 10.
    """

    x: tuple[float, float]
    y: tuple[float, float]
    width: int = 300
    height: int = 260
    logarithmic: bool = False

    def at(self, x: np.ndarray | float, y: np.ndarray | float) -> tuple:
        """Positions in the view box."""
        right, bottom = self.width - RIGHT, self.height - BOTTOM
        across = LEFT + (np.asarray(x) - self.x[0]) / (self.x[1] - self.x[0]) * (right - LEFT)
        return across, bottom - (np.asarray(y) - self.y[0]) / (self.y[1] - self.y[0]) * (
            bottom - TOP
        )

    def grid(self, x_ticks: Sequence[float], y_ticks: Sequence[float]) -> str:
        """Lines at the ticks of y, numbers at those of both axes."""
        right, bottom = self.width - RIGHT, self.height - BOTTOM
        parts = []
        for tick in y_ticks:
            _, y = self.at(self.x[0], math.log10(tick) if self.logarithmic else tick)
            parts.append(
                f'<path class="grid" d="M{LEFT},{y:.1f}H{right}"/>'
                f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{number(tick)}</text>'
            )
        for tick in x_ticks:
            x, _ = self.at(tick, self.y[0])
            anchor = "end" if tick == x_ticks[-1] and x > right - 20 else "middle"
            parts.append(
                f'<text x="{x:.1f}" y="{bottom + 17}" text-anchor="{anchor}">{number(tick)}</text>'
            )
        return "".join(parts)

    def line(self, x: np.ndarray, y: np.ndarray) -> str:
        """The path through the points."""
        pairs = zip(*self.at(x, y), strict=True)
        return "M" + "L".join(f"{_short(a)},{_short(b)}" for a, b in pairs)

    def names(self, x: str, y: str) -> str:
        """What the axes show."""
        middle = (TOP + self.height - BOTTOM) / 2
        return (
            f'<text x="{(LEFT + self.width - RIGHT) / 2:.0f}" y="{self.height - 5}" '
            f'text-anchor="middle">{x}</text><text transform="translate(11 {middle:.0f}) '
            f'rotate(-90)" text-anchor="middle" class="upright">{y}</text>'
        )

    def svg(self, label: str, *parts: str) -> str:
        """The drawing."""
        return (
            f'<svg viewBox="0 0 {self.width} {self.height}" role="img" '
            f'aria-label="{escape(label)}">{"".join(parts)}</svg>'
        )


def draw_classes(curves: Mapping[int, Points], names: Sequence[str], axes: Sequence[str]) -> str:
    """The curves of the classes that have one, of which the page brings one to the front.

    Args:
      curves: number of the class -> points, y in [0, 1].
      names: of all classes.
      axes: title of the drawing, names of x and y.
    """
    last = max(points[:, 0].max() for points in curves.values())
    frame = Frame((0.0, float(last)), (0.0, 1.0))
    half = (0.0, last / 2, last)
    lines = (
        f'<path class="curve" data-class="{index}" d="{frame.line(*points.T)}">'
        f"<title>{escape(names[index])}</title></path>"
        for index, points in curves.items()
    )
    return frame.svg(axes[0], frame.grid(half, (0, 0.5, 1)), frame.names(*axes[1:]), *lines)


def draw_histogram(
    scores: np.ndarray, labels: np.ndarray, threshold: float | None, title: str
) -> str:
    """Image scores: normal images above the line, defective ones below it."""
    labels = np.asarray(labels).astype(bool)
    ends = scores if threshold is None else np.append(scores, threshold)
    low, high = bounds(ends, 0.02)
    edges = np.linspace(low, high, BINS + 1)
    counts = [np.histogram(scores[labels == kind], edges)[0] for kind in (False, True)]
    top = max(1, *(int(count.max()) for count in counts))
    frame = Frame((low, high), (-1.08 * top, 1.08 * top))
    bars = []
    for kind, count, sign in zip(("normal", "defective"), counts, (1, -1), strict=True):
        for left, right, height in zip(edges[:-1], edges[1:], count, strict=True):
            if height:
                bars.append(_bar(frame, left, right, sign * int(height), kind))
    _, zero = frame.at(low, 0)
    axis = f'<path class="axis" d="M{LEFT},{zero:.1f}H{frame.width - RIGHT}"/>'
    line = "" if threshold is None else _threshold(frame, threshold)
    grid = frame.grid(ticks(low, high, 3), ())
    return frame.svg(title, grid, frame.names("image score", "images"), *bars, axis, line)


def _bar(frame: Frame, left: float, right: float, height: int, kind: str) -> str:
    x0, y0 = frame.at(left, max(height, 0))
    x1, y1 = frame.at(right, min(height, 0))
    return (
        f'<rect class="{kind}" x="{x0 + 0.4:.1f}" y="{y0:.1f}" width="{x1 - x0 - 0.8:.1f}" '
        f'height="{y1 - y0:.1f}"><title>{abs(height)} {kind}, {left:.3g} to {right:.3g}</title>'
        "</rect>"
    )


def _threshold(frame: Frame, threshold: float) -> str:
    x, _ = frame.at(threshold, 0)
    return (
        f'<path class="threshold" d="M{x:.1f},{TOP}V{frame.height - BOTTOM}">'
        f"<title>threshold {threshold:.4g}</title></path>"
    )


def draw_training(series: Mapping[str, Series], label: str) -> str:
    """Series over the steps, logarithmic where all are positive and span a decade."""
    values = np.concatenate([values for _, values in series.values()])
    logarithmic = bool(values.min() > 0 and values.max() > 10 * values.min())
    scale = np.log10 if logarithmic else np.asarray
    steps = np.concatenate([steps for steps, _ in series.values()])
    first, last = float(steps.min()), float(steps.max())
    low, high = bounds(scale(values), 0.04)
    frame = Frame((first, last), (low, high), 520, 250, logarithmic)
    marks = _decade_ticks(10**low, 10**high) if logarithmic else ticks(low, high)
    lines = (
        f'<path class="series-{index % COLOURS}" d="{frame.line(steps, scale(values))}">'
        f"<title>{escape(name)}</title></path>"
        for index, (name, (steps, values)) in enumerate(series.items())
    )
    x_ticks = [tick for tick in ticks(first, last) if tick == round(tick)]
    words = f"{label} by step" + (", logarithmic" if logarithmic else "")
    return frame.svg(words, frame.grid(x_ticks, marks), frame.names("step", ""), *lines)


def legend(names: Sequence[str]) -> str:
    """The names of the series with their colours, where there are several."""
    if len(names) < 2:
        return ""
    key = '<svg viewBox="0 0 22 8"><path class="series-{}" d="M0,4H22"/></svg>'
    items = (
        f"<li>{key.format(index % COLOURS)}{escape(name)}</li>" for index, name in enumerate(names)
    )
    return f'<ul class="legend">{"".join(items)}</ul>'


def bounds(values: np.ndarray, margin: float) -> tuple[float, float]:
    """The range of the values with a margin, never empty."""
    low, high = float(values.min()), float(values.max())
    extra = margin * (high - low) or max(abs(low), 1e-6) * 0.1
    return low - extra, high + extra


def ticks(low: float, high: float, target: int = 5) -> list[float]:
    """Round numbers in [low, high], as near to `target` of them as steps of 1, 2 and 5 come."""
    if high <= low:
        return [low]
    power = 10.0 ** math.floor(math.log10((high - low) / target))
    marks = (_multiples(low, high, power * factor) for factor in (1, 2, 5, 10))
    return min(marks, key=lambda values: abs(len(values) - target))


def _multiples(low: float, high: float, step: float) -> list[float]:
    return [step * i for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _decade_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten in [low, high], the powers alone where these are many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if len(powers) < 5 else (1,)
    marks = [factor * 10.0**power for power in powers for factor in factors]
    return [tick for tick in marks if low <= tick <= high]


def number(value: float) -> str:
    """A tick's number, short."""
    if value and not 1e-2 <= abs(value) < 1e6:
        digits, power = f"{value:.1e}".split("e")
        return f"{digits.removesuffix('.0')}e{int(power)}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
