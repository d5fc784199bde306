"""Prediction: scores files and folders of images."""

import os
from collections.abc import Callable
from pathlib import Path

from promptmad_jax.runtime import outputs
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.serving.folder import find_images, predict_files, refuse_overlap
from promptmad_jax.serving.prediction import Predictor
from promptmad_jax.serving.results import SCORES, Options
from promptmad_jax.serving.watch import watch, watched_folders

_OBJECT = "object"


def predict(
    make: Callable[[], Predictor],
    paths: list[str],
    class_name: str | None,
    output: str,
    options: Options,
    watching: bool = False,
) -> None:
    """Writes scores, maps and overlays of the images; prints how many were scored.

    Args:
        make: loads the predictor, after the images were found and `output` was tried.
        watching: scores images as they arrive, until a signal ends it.
    """
    places = {"--output": output}
    if options.copies:
        places["--copy_defective_to"] = str(options.copies)
        outputs.check_folder(str(options.copies), "--copy_defective_to")
    if watching:
        found, work = watched_folders(paths, places), watch
    else:
        found, work = find_images(map(os.path.expanduser, paths)), predict_files
        for flag, path in places.items():
            refuse_overlap(found, path, flag)
    with outputs.claim(output, outputs.PREDICT, "--output") as folder:
        predictor, name = make(), class_name or _OBJECT
        if class_name is None and predictor.class_names:
            raise UserError("give --class_name: a class of the run, or auto")
        predictor.check_class(name)
        count = work(predictor, found, name, Path(folder), options)
    print(f"{count} images scored: {output}/{SCORES}")
