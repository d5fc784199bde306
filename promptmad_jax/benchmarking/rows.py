"""The JSON lines: one a case."""

from typing import Any

from promptmad_jax.benchmarking.cost import Cost, Roof
from promptmad_jax.benchmarking.timing import Timing

Row = dict[str, Any]


def timed_row(case: str, batch_size: int | None, timing: Timing) -> Row:
    """The fields that every case has, besides those of its process.

    Args:
        batch_size: images a call; None where there are none.
    """
    low, high = timing.quartiles
    return {
        "case": case,
        "batch_size": batch_size,
        "median_s": timing.median,
        "lower_quartile_s": low,
        "upper_quartile_s": high,
        "samples": len(timing.seconds),
        "images_per_s": None if batch_size is None else _rate(batch_size, timing.median),
    }


def cost_fields(cost: Cost, images: int, seconds: float, roof: Roof) -> Row:
    """Work an image, the rate it is done at, and how that compares with the machine's.

    The two floors are the times that the roof leaves for the operations and for the bytes of one
    call; `share_of_peak` is the first of them over the time taken.
    """
    row = {
        "gflop_per_image": cost.flops / images / 1e9,
        "mb_per_image": cost.accessed / images / 1e6,
        "gflop_per_s": _rate(cost.flops / 1e9, seconds),
    }
    if roof.gflops:
        floor = cost.flops / roof.gflops / 1e9
        row |= {"floor_operations_s": floor, "share_of_peak": _rate(floor, seconds)}
    if roof.gbytes:
        row["floor_bytes_s"] = cost.accessed / roof.gbytes / 1e9
    return row


def _rate(amount: float, seconds: float) -> float | None:
    # The difference of two programs' times can be lost in their spread.
    return amount / seconds if seconds > 0 else None


def rounded(row: Row) -> Row:
    """Floats to six digits: more is noise."""
    return {
        name: float(f"{value:.6g}") if isinstance(value, float) else value
        for name, value in row.items()
    }
