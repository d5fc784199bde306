"""What several runs make of the same test images: their maps, computed again for a comparison."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from promptmad_jax.data.image_set import ImageSet, load_image_set
from promptmad_jax.methods.reconstruction.assembly import refuse_zero_shot
from promptmad_jax.methods.reconstruction.evaluation import restore_experiment
from promptmad_jax.reporting.compared_runs import Disputed, Key, Run, Shown, disputed, load_runs
from promptmad_jax.reporting.explanations import highest_window
from promptmad_jax.reporting.overlay import overlay
from promptmad_jax.reporting.pages.comparison import comparison_body, paired_rows
from promptmad_jax.reporting.pages.page import escape, make_page, write_page
from promptmad_jax.runs.restore import restore_state
from promptmad_jax.runs.workdir import Workdir
from promptmad_jax.runtime.errors import UserError


def shown_images(directory: Path, keys: Sequence[Key]) -> list[Shown]:
    """What a run makes of test images, at the checkpoint that it was evaluated at.

    Args:
        directory: its working directory; the prepared data set must lie where it was.
        keys: class and file name of each image.

    Raises:
        UserError: the directory holds figures but no model, or the data set lacks an image.
    """
    files = Workdir(str(directory))
    config = files.config()
    refuse_zero_shot(config)
    calibration = files.read_calibration()
    data, settings = config.data, config.eval
    test = load_image_set(data.dataset, data.data_dir, "test", data.image_size, data.classes)
    rows = _rows(test, keys)
    experiment, maker = restore_experiment(config, files)
    state = restore_state(experiment, files, calibration.step)
    bank = maker.bank(state.params, state.stats)
    images, names = np.asarray(test.images[rows]), [name for name, _ in keys]
    maps = maker.maps(state.params, state.stats, bank, images, test.class_ids[rows])
    final = calibration.final_map(maps, settings.fusion, names)
    return [
        Shown(
            image,
            mask,
            overlay(image, values, *calibration.score_range[name]),
            highest_window(values, settings.image_pool),
        )
        for name, image, mask, values in zip(names, images, test.masks[rows], final, strict=True)
    ]


def _rows(test: ImageSet, keys: Sequence[Key]) -> np.ndarray:
    """The places of the images, int [n]."""
    names = (test.class_names[k] for k in test.class_ids)
    places = {key: i for i, key in enumerate(zip(names, test.filenames, strict=True))}
    missing = [key for key in keys if key not in places]
    if missing:
        raise UserError(f"the prepared data set has no test image {missing[0][1]} any more")
    return np.array([places[key] for key in keys])


# (folder of a run, images) to what it makes of them.
Pictures = Callable[[Path, Sequence[Key]], Sequence[Shown]]


def compare_runs(
    directories: Sequence[str | Path],
    output: str | Path,
    pictures: Pictures | None = None,
    count: int = 0,
) -> Path:
    """Writes the comparison of two or more runs, the first of which is the reference.

    Args:
      pictures, count: show so many images that the runs disagree on. Where a run cannot give them,
        terminal and page say why, and the rest stands without.

    Returns:
      The path of the page.

    Raises:
      UserError: fewer than two runs, a run without stored figures, or runs on different data.
    """
    if len(directories) < 2:
        raise UserError("give the folders of two or more runs: compare DIR_A DIR_B --output=DIR")
    runs = load_runs([Path(directory) for directory in directories])
    unscored = [run for run in runs if run.scores is None]
    images = [] if unscored else disputed(runs)
    paired = _paired(runs, images[:count], pictures) if pictures and images[:count] else ""
    body = comparison_body(runs, images, unscored, paired)
    title = " and ".join(run.label for run in runs)
    return write_page(Path(output), make_page(title, body))


def _paired(runs: Sequence[Run], images: Sequence[Disputed], pictures: Pictures) -> str:
    keys = [(entry.image.class_name, entry.image.filename) for entry in images]
    shown = []
    for run in runs:
        try:
            shown.append(pictures(run.path, keys))
        except UserError as error:
            print(f"no pictures of single images: {error}")
            return f'<p class="soft">No pictures: {escape(str(error))}</p>'
    return paired_rows(runs, images, shown)
