"""Fields of the JSON lines, of which each case prints one."""

from typing import Any, NamedTuple

import numpy as np

from promptmad_jax.benchmarking.cost import Cost

Row = dict[str, Any]


class Roof(NamedTuple):
    """Peak rates of the machine, 0 if unknown: 1e9 operations and 1e9 bytes per second."""

    gflops: float = 0.0
    gbytes: float = 0.0


def timed_row(case: str, batch_size: int | None, seconds: np.ndarray) -> Row:
    """The fields of all cases.

    Args:
        batch_size: images per call; None for a call without images.
        seconds: float [samples], per call.
    """
    low, median, high = map(float, np.quantile(seconds, (0.25, 0.5, 0.75)))
    return {
        "case": case,
        "batch_size": batch_size,
        "median_s": median,
        "lower_quartile_s": low,
        "upper_quartile_s": high,
        "samples": len(seconds),
        "images_per_s": None if batch_size is None else _rate(batch_size, median),
    }


def cost_fields(cost: Cost, images: int, seconds: float, roof: Roof) -> Row:
    """Work per image, and the rate of a call of `seconds` compared with the machine's peak.

    The two floors are the shortest possible times of the call's operations and memory traffic;
    `share_of_peak` is the first floor over the time taken.
    """
    flops, accessed = map(float, cost)
    row = {
        "gflop_per_image": flops / images / 1e9,
        "mb_per_image": accessed / images / 1e6,
        "gflop_per_s": _rate(flops / 1e9, seconds),
    }
    if roof.gflops:
        floor = flops / roof.gflops / 1e9
        row |= {"floor_operations_s": floor, "share_of_peak": _rate(floor, seconds)}
    if roof.gbytes:
        row["floor_bytes_s"] = accessed / roof.gbytes / 1e9
    return row


def _rate(amount: float, seconds: float) -> float | None:
    # The difference of two programs' times can be lost in their spread.
    return amount / seconds if seconds > 0 else None


def rounded(row: Row) -> Row:
    """Rounds floats to six digits."""
    return {
        name: float(f"{value:.6g}") if isinstance(value, float) else value
        for name, value in row.items()
    }
