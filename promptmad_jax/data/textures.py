"""Textures of the pseudo-anomalies."""

import sys
from pathlib import Path

import numpy as np

from promptmad_jax.data.preprocess import decode_image, resize_image
from promptmad_jax.data.user_files import images_below, no_images
from promptmad_jax.runtime.errors import UserError


def load_textures(directory: str, size: int, training_images: np.ndarray) -> np.ndarray:
    """Reads all images below `directory`, sorted, or takes the training images if it is empty.

    Returns:
        uint8 [M, size, size, 3].

    Raises:
        UserError: the folder has no images, or one of them cannot be read.
    """
    if not directory:
        return training_images
    images, others = texture_files(directory)
    if others:
        print(f"config.data.texture_dir: {no_images(others)}", file=sys.stderr)
    return np.stack([resize_image(decode_image(path), size) for path in images])


def texture_files(directory: str) -> tuple[list[Path], list[Path]]:
    """All images below `directory`, sorted, and its other files.

    Raises:
        UserError: it has no images.
    """
    folder = Path(directory).expanduser()
    images, others = images_below(folder) if folder.is_dir() else ([], [])
    if not images:
        state = "no image below it" if folder.is_dir() else "no such folder"
        raise UserError(
            f"config.data.texture_dir={directory}: {state}; leave it empty to paste from the "
            "training images"
        )
    return images, others
