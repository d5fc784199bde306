"""The course of the training loss as an inline SVG drawing."""

import html
import math
from collections.abc import Mapping, Sequence

import numpy as np

WIDTH, HEIGHT = 720, 240
LEFT, RIGHT, TOP, BOTTOM = 56, 34, 12, 30
POINTS = 240
SERIES = 4

Series = tuple[np.ndarray, np.ndarray]


def loss_series(history: Sequence[Mapping]) -> dict[str, Series]:
    """Collects the losses from the rows of metrics.jsonl.

    Args:
      history: rows with `step`, `kind` ("train" or "eval") and values; null values are passed over.

    Returns:
      Name -> (steps, values) of the training rows whose name contains "loss", the total first,
      at most four of them.
    """
    rows = [row for row in history if row["kind"] == "train"]
    names = sorted({name for row in rows for name in row if "loss" in name}, key=_total_first)
    series = {}
    for name in names[:SERIES]:
        points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
        if len(points) > 1:
            steps, values = np.array(points, np.float64).T
            series[name] = _averaged(steps, values)
    return series


def draw_curves(series: Mapping[str, Series]) -> str:
    """Draws the series over the steps, logarithmic where all are positive and span a decade.

    Returns:
      An `<svg>` element whose colours come from the classes series-0, series-1, ... of the page.
    """
    values = np.concatenate([values for _, values in series.values()])
    logarithmic = bool(values.min() > 0 and values.max() > 10 * values.min())
    scale = np.log10 if logarithmic else np.asarray
    low, high = _bounds(scale(values))
    first = min(float(steps.min()) for steps, _ in series.values())
    last = max(float(steps.max()) for steps, _ in series.values())

    def x(steps):
        return LEFT + (steps - first) / max(last - first, 1e-12) * (WIDTH - LEFT - RIGHT)

    def y(values):
        return HEIGHT - BOTTOM - (values - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    ticks = _decade_ticks(10**low, 10**high) if logarithmic else _ticks(low, high)
    parts = [_horizontal(y(scale(tick)), tick) for tick in ticks]
    parts += [_vertical(x(tick), tick) for tick in _ticks(first, last) if tick == round(tick)]
    for index, (name, (steps, values)) in enumerate(series.items()):
        parts.append(_line(index, name, x(steps), y(scale(values))))
    label = "Training loss by step" + (", logarithmic" if logarithmic else "")
    view = f'viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}"'
    return f"<svg {view}>{''.join(parts)}</svg>"


def _total_first(name: str) -> tuple[bool, str]:
    return name not in ("loss", "total_loss", "loss_total"), name


def _averaged(steps: np.ndarray, values: np.ndarray) -> Series:
    """Averages neighbours up to a step, so that a long run stays a small drawing."""
    if len(steps) <= POINTS:
        return steps, values
    starts = np.arange(0, len(steps), math.ceil(len(steps) / POINTS))
    sizes = np.diff(np.append(starts, len(steps)))
    return steps[starts + sizes - 1], np.add.reduceat(values, starts) / sizes


def _bounds(values: np.ndarray) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    margin = 0.04 * (high - low) or max(abs(low), 1e-6) * 0.1
    return low - margin, high + margin


def _ticks(low: float, high: float, target: int = 5) -> list[float]:
    """Round numbers in [low, high], about `target` of them."""
    if high <= low:
        return [low]
    rough = (high - low) / target
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    return [step * i for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _decade_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten in [low, high], the powers alone where these are many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if len(powers) < 5 else (1,)
    ticks = [factor * 10.0**power for power in powers for factor in factors]
    return [tick for tick in ticks if low <= tick <= high]


def _horizontal(y: float, value: float) -> str:
    return (
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>'
    )


def _vertical(x: float, step: float) -> str:
    return f'<text x="{x:.1f}" y="{HEIGHT - 8}" text-anchor="middle">{step:,.0f}</text>'


def _line(index: int, name: str, x: np.ndarray, y: np.ndarray) -> str:
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    title = f"<title>{html.escape(name)}</title>"
    return f'<polyline class="series-{index}" points="{points}">{title}</polyline>'
