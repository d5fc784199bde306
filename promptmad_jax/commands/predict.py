"""Prediction: scores files and folders of images."""

import os
from collections.abc import Callable

from promptmad_jax.data.image_files import DEFAULT_READING, Reading
from promptmad_jax.runtime import outputs
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.serving.folder import find_images, predict_files, refuse_overlap
from promptmad_jax.serving.prediction import Predictor

_OBJECT = "object"


def predict(
    make: Callable[[], Predictor],
    paths: list[str],
    class_name: str | None,
    output: str,
    reading: Reading = DEFAULT_READING,
) -> None:
    """Writes scores.jsonl, maps and overlays of the images; prints how many were scored.

    Args:
        make: loads the predictor, after the images were found and `output` was tried.
    """
    images = find_images(map(os.path.expanduser, paths))
    refuse_overlap(images, output)
    with outputs.claim(output, outputs.PREDICT, "--output") as folder:
        predictor = make()
        if class_name is None and predictor.class_names:
            raise UserError("give --class_name: a class of the run, or auto")
        name = class_name or _OBJECT
        predictor.check_class(name)
        count = predict_files(predictor, images, name, folder, reading)
    print(f"{count} images scored: {output}/scores.jsonl")
