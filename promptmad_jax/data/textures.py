"""Textures of the pseudo-anomalies."""

from pathlib import Path

import numpy as np

from promptmad_jax.data.preprocess import decode_image, resize_image
from promptmad_jax.runtime.errors import UserError

_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp"}


def load_textures(directory: str, size: int, training_images: np.ndarray) -> np.ndarray:
    """Reads all images below `directory`, sorted, or takes the training images if it is empty.

    Returns:
        uint8 [M, size, size, 3].

    Raises:
        UserError: the folder has no images.
    """
    if not directory:
        return training_images
    paths = texture_paths(directory)
    return np.stack([resize_image(decode_image(path), size) for path in paths])


def texture_paths(directory: str) -> list[Path]:
    """All images below `directory`, sorted.

    Raises:
        UserError: it has none.
    """
    paths = sorted(p for p in Path(directory).rglob("*") if p.suffix.lower() in _SUFFIXES)
    if not paths:
        raise UserError(
            f"config.data.texture_dir={directory}: no .jpg, .png or .bmp below it; leave it empty "
            "to paste from the training images"
        )
    return paths
