"""The scores of all test images, as a CSV file beside metrics.json."""

import csv
import io
from collections.abc import Sequence
from typing import NamedTuple

from etils import epath

from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.files import write_text_atomic

SCORES_FILE = "image_scores.csv"


class ImageScore(NamedTuple):
    """One test image. label: 0 normal, 1 defective; score: higher is more anomalous."""

    class_name: str
    filename: str
    defect_type: str
    label: int
    score: float


def write_scores(directory: epath.PathLike, scores: Sequence[ImageScore]) -> epath.Path:
    """Writes `image_scores.csv`, from which the scores are read back to the bit."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(ImageScore._fields)
    writer.writerows(score._replace(score=repr(float(score.score))) for score in scores)
    path = epath.Path(directory) / SCORES_FILE
    write_text_atomic(path, text.getvalue())
    return path


def read_scores(directory: epath.PathLike) -> list[ImageScore]:
    """Reads `image_scores.csv`.

    Raises:
      UserError: the file is missing or damaged.
    """
    path = epath.Path(directory) / SCORES_FILE
    if not path.exists():
        raise UserError(f"{path} is missing; promptmad evaluate --workdir={path.parent} writes it")
    try:
        text = path.read_bytes().decode("utf-8")
        rows = list(csv.reader(io.StringIO(text, newline="")))
        if not rows or tuple(rows[0]) != ImageScore._fields:
            raise ValueError("its first line is not the header")
        return [ImageScore(c, f, d, int(label), float(s)) for c, f, d, label, s in rows[1:]]
    except ValueError as error:
        raise UserError(
            f"{path} is damaged ({error}); promptmad evaluate --workdir={path.parent} writes it "
            "again"
        ) from error
