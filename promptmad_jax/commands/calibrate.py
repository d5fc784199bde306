"""Thresholds set anew, from the scores of normal images that a run keeps."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from rich.console import Console
from rich.table import Table

from promptmad_jax.evaluation.constants import Calibration, Change
from promptmad_jax.evaluation.thresholds import Rates, parse_thresholds, unsupported
from promptmad_jax.runs.workdir import Workdir
from promptmad_jax.runtime.console import warn
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.lock import locked


def calibrate(workdir: str, rates: Mapping[str, float], given: Iterable[str]) -> Calibration:
    """Sets, writes and prints the thresholds of a run.

    Args:
        rates: by field of `Rates`; those left out stay.
        given: CLASS=VALUE, image thresholds set by hand.

    Raises:
        UserError: there is no calibrated run, a rate is not between 0 and 1, or a class is unknown.
    """
    files = Workdir(workdir)
    calibration = files.read_calibration()
    for name, rate in rates.items():
        if not 0 < rate < 1:
            raise UserError(f"--{name}_fpr={rate:g}: it must be above 0 and below 1")
    values = parse_thresholds(given, calibration.thresholds)
    if rates or values:
        with locked(files.path):
            # Anew: another command may have changed it before the lock was taken.
            calibration = files.read_calibration()
            calibration = changed(calibration, calibration.rates._replace(**rates), values)
            files.write_calibration(calibration)
    show(calibration)
    return calibration


def changed(calibration: Calibration, rates: Rates, values: Mapping[str, float]) -> Calibration:
    """Other rates, and image thresholds set by hand, which stay until rates change."""
    set_anew = calibration.with_rates(rates) if rates != calibration.rates else calibration
    what = " ".join(
        [f"{name}_fpr={rate:g}" for name, rate in rates._asdict().items()]
        + [f"{name}={value:g}" for name, value in values.items()]
    )
    history = (*calibration.history, Change.now("calibrate", what))
    return replace(set_anew.by_hand(values), history=history)


def show(calibration: Calibration, only: str = "") -> None:
    """Prints the thresholds with the rates that they stand for; warns of unsupported rates.

    Args:
        only: the class to show; all if empty.
    """
    table = Table("class", "threshold", "false alarms", "95 % interval", "rests on")
    for name, thresholds in calibration.thresholds.items():
        if only not in ("", name):
            continue
        rate, interval = "unknown", "-"
        if thresholds.rate is not None:
            rate = f"{100 * thresholds.rate:.1f} %"
            interval = "{:.1f} to {:.1f} %".format(*(100 * end for end in thresholds.interval))
        origin = calibration.scores[name].origin if name in calibration.scores else "-"
        table.add_row(name, f"{thresholds.image:.4g}", rate, interval, origin)
        fault = unsupported(thresholds.images, calibration.rates.image)
        if thresholds.rate is not None and fault:
            warn(f"{name}: {fault}")
    Console().print(table)
