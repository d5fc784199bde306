"""Compares runs on the same test images."""

from collections.abc import Sequence
from pathlib import Path

from promptmad_jax.config import relocated
from promptmad_jax.methods.method import open_method
from promptmad_jax.reporting.compared_runs import (
    Disagreement,
    ImageView,
    Key,
    Run,
    find_disagreements,
    load_runs,
)
from promptmad_jax.reporting.pages.comparison import side_by_side, write_comparison
from promptmad_jax.reporting.pages.thumbnails import PictureRow
from promptmad_jax.reporting.seed_groups import group_seeds, write_summaries
from promptmad_jax.runs.workdir import Workdir
from promptmad_jax.runtime import outputs
from promptmad_jax.runtime.errors import UserError


def shown_images(
    directory: Path, keys: Sequence[Key], places: tuple[str, str] = ("", "")
) -> list[ImageView]:
    """Test images as a run sees them; for `places` see `relocated`.

    Raises:
        UserError: if the directory holds figures but no model, or the data set lacks an image.
    """
    files = Workdir(str(directory))
    return open_method(relocated(files.config(), *places)).shown_images(files, keys)


def compare_runs(
    directories: Sequence[str | Path],
    output: str | Path,
    pictures: int = 0,
    seeds: bool = False,
    summaries: str | Path | None = None,
    places: tuple[str, str] = ("", ""),
) -> Path:
    """Writes the comparison of two or more runs, the first of which is the reference.

    Args:
      pictures: number of images to show, of those that the runs rank most differently. If a run
        cannot give its pictures, terminal and page say why, and the page is written without them.
      seeds: merge runs that differ only in their seeds, see `group_seeds`.
      summaries: folder for a small JSON file per run or group of seeds.
      places: of the prepared data set and of the backbone's weights, if they have moved.

    Returns:
      The path of the page.

    Raises:
      UserError: if fewer than two runs are given, a run has no stored figures, or the data differ.
    """
    if len(directories) < 2:
        raise UserError(
            "give the folders of two or more runs: promptmad compare DIR_A DIR_B --output=DIR"
        )
    runs = load_runs([Path(directory) for directory in directories])
    if seeds:
        runs = group_seeds(runs)
    scored = all(run.scores is not None for run in runs)
    images = find_disagreements(runs) if scored else []
    rows, no_pictures = [], ""
    with outputs.claim(str(output), outputs.COMPARE, "--output"):
        if summaries:
            write_summaries(Path(summaries), runs)
        try:
            rows = _side_by_side(runs, images[:pictures], places)
        except UserError as error:
            no_pictures = str(error)
            print(f"no pictures of single images: {no_pictures}")
        return write_comparison(Path(output), runs, images, rows, no_pictures)


def _side_by_side(
    runs: Sequence[Run], images: Sequence[Disagreement], places: tuple[str, str]
) -> list[PictureRow]:
    """The images as each run sees them."""
    if not images:
        return []
    keys = [(entry.image.class_name, entry.image.filename) for entry in images]
    labels, views = (
        [run.label for run in runs],
        [shown_images(run.path, keys, places) for run in runs],
    )
    return [
        side_by_side(labels, image, own)
        for image, own in zip(images, zip(*views, strict=True), strict=True)
    ]
