"""Textures for pseudo-anomalies."""

from pathlib import Path

import numpy as np

from promptmad_jax.data.preprocess import decode_image, resize_image
from promptmad_jax.runtime.errors import UserError

_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp"}


def load_textures(directory: str, size: int, training_images: np.ndarray) -> np.ndarray:
    """uint8 [M, size, size, 3]: all images below `directory`, in sorted order, or, where it is
    empty, the training images themselves.

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
        UserError: there are none.
    """
    paths = sorted(p for p in Path(directory).rglob("*") if p.suffix.lower() in _SUFFIXES)
    if not paths:
        raise UserError(
            f"data.texture_dir={directory}: no .jpg, .png or .bmp below it; "
            "leave it empty to paste from the training images"
        )
    return paths
