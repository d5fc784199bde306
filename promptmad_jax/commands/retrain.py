"""A new run on the data set of another and the images that were enrolled in it."""

import dataclasses

from promptmad_jax.commands.train import run_training
from promptmad_jax.config import relocated
from promptmad_jax.runs.enrolled import ADDED, ENROLLED, enrolled_bytes, file_of, images_by_class
from promptmad_jax.runs.resume import newest_step
from promptmad_jax.runs.workdir import Workdir
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.files import write_bytes_atomic


def retrain(
    workdir: str, output: str, steps: int | None = None, data_dir: str = "", weights: str = ""
) -> dict:
    """Trains a run in `output`, or resumes it; returns its metrics.

    Args:
        steps: length of the training; None takes that of the run in `workdir`.
        data_dir, weights: where the prepared data set and the backbone's weights are, if they
            moved.

    Raises:
        UserError: no image was enrolled in `workdir`, or its data set is gone.
    """
    files = Workdir(workdir)
    config = relocated(files.config(), data_dir, weights)
    enrolled = images_by_class(files, ADDED, ENROLLED)
    if not enrolled:
        raise UserError(
            f"no image was enrolled in {workdir}: there is nothing to add to its training images"
        )
    train = dataclasses.replace(config.train, steps=config.train.steps if steps is None else steps)
    data = dataclasses.replace(config.data, added=True)
    if not data.dataset:
        data = dataclasses.replace(data, cache_dir=str(Workdir(output).path / "cache"))

    def add(new: Workdir) -> None:
        if newest_step(new) is None:
            for name, images in enrolled.items():
                write_bytes_atomic(new.path / file_of(name, ADDED), enrolled_bytes(images))

    return run_training(dataclasses.replace(config, train=train, data=data), output, prepare=add)
