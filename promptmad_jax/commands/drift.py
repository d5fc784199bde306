"""Do the thresholds of a run still hold, by its recent predictions?"""

import json
from pathlib import Path

from promptmad_jax.evaluation.drift import ClassDrift, compare
from promptmad_jax.reporting.drift import sentences, write_drift
from promptmad_jax.runs.workdir import Workdir
from promptmad_jax.runtime import outputs
from promptmad_jax.runtime.console import say
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.files import write_text_atomic
from promptmad_jax.serving.results import SCORES, read_rows


def drift(workdir: str, folders: list[str], output: str) -> list[ClassDrift]:
    """Prints for each class if its thresholds hold.

    Args:
        folders: results of `predict`.
        output: folder for `index.html` and `drift.json`; "" for none.

    Raises:
        UserError: there is no calibrated run, or a folder has no verdicts.
    """
    calibration, rows = Workdir(workdir).read_calibration(), []
    for folder in folders:
        own = [row for row in read_rows(Path(folder)) if row.get("verdict") is not None]
        if not own:
            raise UserError(
                f"{folder} has no verdicts in {SCORES}: give folders that `promptmad predict` "
                "wrote with this run"
            )
        rows += own
    found = compare(rows, calibration)
    for one in found:
        say("\n  ".join([f"{one.class_name}: {sentences(one)[0]}", *sentences(one)[1:]]))
    if output:
        with outputs.claim(output, outputs.DRIFT, "--output") as place:
            write_text_atomic(place / "drift.json", json.dumps(_json(found), indent=2) + "\n")
            say(f"report: {write_drift(place, found)}")
    return found


def _json(found: list[ClassDrift]) -> dict:
    return {
        one.class_name: {
            "holds": one.holds,
            "words": sentences(one),
            "images": one.images,
            "alarms": one.alarms,
            "p": {sample.quantity: sample.p for sample in one.samples},
        }
        for one in found
    }
