"""New classes, or more normal images of old ones, for a trained run."""

import csv
import json
import os
import time
from pathlib import Path

import numpy as np

from promptmad_jax.commands.calibrate import show
from promptmad_jax.config import Config, relocated
from promptmad_jax.data.image_files import ImageFileError, Reading
from promptmad_jax.data.paths import name_fault
from promptmad_jax.data.preprocess import resize_image
from promptmad_jax.evaluation.constants import Calibration
from promptmad_jax.methods.method import open_method
from promptmad_jax.runs.workdir import Workdir
from promptmad_jax.runtime.console import say, warn
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.lock import locked
from promptmad_jax.runtime.names import matching
from promptmad_jax.serving.folder import find_images

REVIEWED = "reviewed.csv"
_GOOD, _BAD = ("1", "yes", "y", "true", "good", "ok"), ("0", "no", "n", "false", "bad", "defective")


def enroll(
    workdir: str, class_name: str, paths: list[str], reading: Reading, weights: str = ""
) -> Calibration:
    """Enrols the images in files and folders, and prints the class's thresholds.

    Args:
        weights: where the backbone's are, if they moved.

    Raises:
        UserError: there is no run with a memory, the name cannot be one, or there are too few
            images.
    """
    began = time.monotonic()
    files = Workdir(workdir)
    config = relocated(files.config(), "", weights)
    if fault := name_fault(class_name):
        raise UserError(f"--class_name: {fault}")
    images, names = _read(paths, reading, config)
    with locked(files.path):
        name, calibration = open_method(config).enroll(files, class_name, images, names)
    show(calibration, name)
    seconds = time.monotonic() - began
    say(f"{name}: {len(images)} images read, enrolled in {files.path} in {seconds:.0f} s")
    return calibration


def remove(workdir: str, class_name: str) -> None:
    """Takes the enrolled images of a class out of a run."""
    files = Workdir(workdir)
    config = files.config()
    with locked(files.path):
        name, calibration = open_method(config).remove(files, class_name)
    left = "it is as it was trained" if name in calibration.normal else "the class is gone"
    say(f"{name}: the enrolled images are taken out of {files.path}; {left}")


def _read(paths: list[str], reading: Reading, config: Config) -> tuple[np.ndarray, tuple[str, ...]]:
    """The readable images uint8 [n, S, S, 3] at the run's size, and their files."""
    size, images, names = config.data.image_size, [], []
    for path, _ in find_images(map(os.path.expanduser, paths)):
        try:
            image, remarks = reading.rgb(path)
        except ImageFileError as error:
            warn(f"left out: {error}")
            continue
        for remark in remarks:
            warn(f"{path}: {remark}")
        images.append(resize_image(image, size))
        names.append(str(path))
    return np.reshape(images, (-1, size, size, 3)).astype(np.uint8), tuple(names)


def reviewed_good(output: str, class_name: str) -> list[str]:
    """The images of a class that an inspector marked good among the results of `predict`.

    They are listed in `reviewed.csv` in the folder of results: a heading with the columns `file`,
    as in scores.jsonl, and `good`, which is yes or no, or empty for what was not looked at.

    Raises:
        UserError: the list is missing, has other columns or answers, or names other images.
    """
    path = Path(output) / REVIEWED
    classes = {row["file"]: row.get("class_name", "") for row in _rows(Path(output))}
    if not path.exists():
        raise UserError(
            f"{path} is missing: list what was inspected in it, with the columns file (as in "
            "scores.jsonl) and good (yes or no)"
        )
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"file", "good"} <= rows[0].keys():
        raise UserError(f"{path}: its first line must name the columns file and good")
    good = []
    for number, row in enumerate(rows, start=2):
        name, answer = row["file"], matching(row["good"] or "")
        if name not in classes:
            raise UserError(f"{path}, line {number}: {name} is no file of scores.jsonl beside it")
        if answer not in (*_GOOD, *_BAD, ""):
            raise UserError(f"{path}, line {number}: good is {row['good']!r}; give yes or no")
        if answer in _GOOD and matching(classes[name]) == matching(class_name):
            good.append(name)
    if not good:
        raise UserError(f"{path} marks no image of class {class_name} as good")
    return good


def _rows(output: Path) -> list[dict]:
    path = output / "scores.jsonl"
    if not path.exists():
        raise UserError(f"{path} is missing: give a folder that `promptmad predict` wrote")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
