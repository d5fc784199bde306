"""Pixels of a class that do not count: serial numbers, fixtures, what lies beside the part."""

import pathlib
from collections.abc import Mapping

import numpy as np
from PIL import Image

from promptmad_jax.data.preprocess import decode_mask, resize_mask

# A folder beside the shards of a prepared data set, with one mask per class that has one.
_FOLDER = "ignored"

# bool [S, S] by class, stretched as the images are.
Ignored = Mapping[str, np.ndarray]


def write_ignored(folder: pathlib.Path, masks: Ignored) -> None:
    """Writes masks bool [H, W] into the folder of a prepared data set."""
    for name, mask in masks.items():
        (folder / _FOLDER).mkdir(exist_ok=True)
        Image.fromarray(mask).save(folder / _FOLDER / f"{name}.png")


def read_ignored(folder: pathlib.Path, size: int) -> dict[str, np.ndarray]:
    """The masks of a prepared data set at size S."""
    paths = sorted((folder / _FOLDER).glob("*.png"))
    return {path.stem: resize_mask(decode_mask(path), size) for path in paths}
