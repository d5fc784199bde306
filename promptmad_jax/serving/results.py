"""The files of a prediction: scores.jsonl, scores.csv, and maps and pictures of each image."""

import csv
import filecmp
import io
import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from promptmad_jax.data.image_files import DEFAULT_READING, Reading
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.files import write_text_atomic
from promptmad_jax.serving.picture import draw
from promptmad_jax.serving.prediction import Prediction
from promptmad_jax.serving.result import make_result

SCORES, TABLE = "scores.jsonl", "scores.csv"
_JUDGEMENT = "threshold false_alarm_rate verdict reason novelty".split()
_FILES = ("map", "overlay", "types_picture")  # fields of the rows
_COLUMNS = (
    "file class_name score threshold false_alarm_rate verdict reason novelty regions "
    "largest_region type map overlay warnings error"
).split()


@dataclass(frozen=True)
class Options:
    """Options for reading, judging and drawing images.

    Attributes:
        marked: overlays have the verdict written into them.
        min_region: smallest area of a region, in pixels of the image.
        copies: folder for copies of defective and unknown images; None for none.
    """

    reading: Reading = DEFAULT_READING
    marked: bool = True
    min_region: int = 0
    copies: Path | None = None


@dataclass(frozen=True, eq=False)
class Scored:
    """An image of a prediction.

    Attributes:
        path: of its file.
        name: of its results, relative and without a suffix.
        image: uint8 [H, W, 3]; None if the file cannot be read.
        remarks: what was odd about its pixels.
        error: why it cannot be read, or "".
        prediction: its scores; None if it cannot be read or has not been scored yet.
    """

    path: Path
    name: Path
    image: np.ndarray | None
    remarks: list[str]
    error: str = ""
    prediction: Prediction | None = None


class Results:
    """The results of a prediction in a folder, to which images are added."""

    def __init__(self, folder: Path, options: Options):
        self.folder, self.options = folder, options

    def write(self, rows: list[dict]) -> None:
        """Writes both lists anew.

        Raises:
            UserError: promptmad did not write the table that is there.
        """
        if (self.folder / TABLE).exists() and not _is_ours(self.folder / TABLE):
            raise UserError(
                f"{self.folder / TABLE} was not written by promptmad: move it elsewhere"
            )
        table = "".join(map(_line, (_COLUMNS, *map(_cells, rows))))
        write_text_atomic(self.folder / TABLE, table)
        write_text_atomic(self.folder / SCORES, "".join(json.dumps(row) + "\n" for row in rows))

    def add(self, scored: Scored) -> dict:
        """Writes the files of an image and appends its row to the lists; returns the row."""
        row = {"file": str(scored.path)}
        row |= self._write(scored) if scored.prediction else {"error": scored.error}
        for name, line in ((TABLE, _line(_cells(row))), (SCORES, json.dumps(row) + "\n")):
            with (self.folder / name).open("a", encoding="utf-8", newline="") as file:
                file.write(line)
        if self.options.copies and row.get("verdict") in ("defective", "unknown"):
            target = self.options.copies / scored.name.parent / scored.path.name
            _copy(scored.path, target)
        return row

    def _write(self, scored: Scored) -> dict:
        prediction, options, image = scored.prediction, self.options, scored.image
        result = make_result(prediction, *image.shape[:2], options.min_region)
        place = self.folder / scored.name
        paths = {"map": Path(f"{place}.npy"), "overlay": Path(f"{place}.png")}
        place.parent.mkdir(parents=True, exist_ok=True)
        np.save(paths["map"], result.map)
        draw(image, prediction, result, options.marked).save(paths["overlay"])
        for word, picture in prediction.pictures.items():
            paths[f"{word}_picture"] = Path(f"{place}_{word}.png")
            sized = Image.fromarray(picture).resize(image.shape[1::-1], Image.Resampling.NEAREST)
            sized.save(paths[f"{word}_picture"])
        row = {"class_name": result.class_name, "score": result.score, **result.details}
        if result.verdict is not None:
            regions = [region._asdict() for region in result.regions]
            row |= {name: getattr(result, name) for name in _JUDGEMENT}
            row |= {"regions": regions}
        if scored.remarks:
            row["warnings"] = scored.remarks
        return row | {key: str(path.relative_to(self.folder)) for key, path in paths.items()}


def read_rows(folder: Path) -> list[dict]:
    """The rows of scores.jsonl up to the first that is damaged; none without the file."""
    rows = []
    try:
        for line in (folder / SCORES).read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            rows.append(row if isinstance(row, dict) else {})
    except (OSError, ValueError):
        return rows
    return rows


def listed_files(folder: Path) -> list[str]:
    """The files of an earlier prediction, beside its scores.jsonl."""
    named = [row[key] for row in read_rows(folder) for key in _FILES if key in row]
    paths = [Path(name) for name in named if isinstance(name, str)]
    files = [str(path) for path in paths if not path.is_absolute() and ".." not in path.parts]
    return files + [TABLE] * _is_ours(folder / TABLE)


def _is_ours(table: Path) -> bool:
    try:
        with table.open(encoding="utf-8", newline="") as file:
            return file.readline().startswith(",".join(_COLUMNS[:3]))
    except (OSError, ValueError):
        return False


def _cells(row: dict) -> list:
    """The cells of a row in the table."""
    areas = [region["area"] for region in row.get("regions", ())]
    warnings = "; ".join(row.get("warnings", ()))
    row = row | {"regions": len(areas) if "regions" in row else "", "warnings": warnings}
    row["largest_region"] = max(areas, default="")
    return [row.get(name, "") for name in _COLUMNS]


def _line(cells: Iterable) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _copy(path: Path, target: Path) -> None:
    """Copies a file under its name, numbered if another file has it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    stem, number = target.stem, 1
    while os.path.lexists(target):
        if target.is_file() and filecmp.cmp(path, target, shallow=False):
            return
        number += 1
        target = target.with_name(f"{stem}_{number}{target.suffix}")
    shutil.copy2(path, target)
