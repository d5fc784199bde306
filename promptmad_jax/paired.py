"""What several runs make of the same test images: their maps, computed again for a comparison."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from promptmad_jax.data.image_set import ImageSet, load_image_set
from promptmad_jax.evaluation_run import restore_experiment
from promptmad_jax.experiment import refuse_zero_shot
from promptmad_jax.reporting.overlay import overlay
from promptmad_jax.reporting.reasons import highest_window
from promptmad_jax.reporting.runs import Key, Shown
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.state_choice import restore_state
from promptmad_jax.workdir import Workdir


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
