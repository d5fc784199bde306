"""Decoding and resizing of images and masks, and the normalisation of the backbones.

Training, evaluation and serving all use these functions, so that a file gives the same array
everywhere.
"""

from typing import Any

import numpy as np
from PIL import Image

from promptmad_jax.data.image_files import MAX_MEGAPIXELS, Source, opened
from promptmad_jax.data.levels import Levels

IMAGENET_MEAN = np.asarray([0.485, 0.456, 0.406], np.float32)
IMAGENET_STD = np.asarray([0.229, 0.224, 0.225], np.float32)
CLIP_KERNEL = "bicubic"  # as in CLIP's own preprocessing
KERNELS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def decode_image(
    source: Source, levels: Levels | None = None, max_megapixels: float = MAX_MEGAPIXELS
) -> np.ndarray:
    """Decodes the first frame of an encoded image completely.

    Grey images are repeated to three channels, palettes are looked up, alpha is dropped, and the
    EXIF orientation is applied.

    Args:
      source: the encoded bytes, or the path of a file.
      levels: the black and the white of an image with more than 8 bits.

    Returns:
      uint8 [H, W, 3], RGB.

    Raises:
      ImageFileError: the source is missing, truncated, too large or not an image, or it has more
        than 8 bits and no levels are given.
    """
    with opened(source, max_megapixels) as file:
        return file.rgb(levels)


def decode_mask(source: Source, max_megapixels: float = MAX_MEGAPIXELS) -> np.ndarray:
    """Decodes a mask as bool [H, W]; see `ImageFile.mask`.

    Raises:
      ImageFileError: the source is missing, truncated, too large or not an image.
    """
    with opened(source, max_megapixels) as file:
        return file.mask()


def decode_ids(source: Source, max_megapixels: float = MAX_MEGAPIXELS) -> np.ndarray:
    """Decodes a mask of class ids, uint8 [H, W]; 0 is no class.

    Raises:
      ImageFileError: as for `decode_mask`, or the image is not of one 8-bit channel.
    """
    with opened(source, max_megapixels) as file:
        return file.ids()


def resize_image(image: np.ndarray, size: int, kernel: str = "bilinear") -> np.ndarray:
    """Antialiased resize (Pillow) of uint8 [H, W, 3] to [size, size, 3], any aspect ratio.

    Args:
      kernel: "bilinear", or "bicubic" as in CLIP's own preprocessing.
    """
    if image.shape[:2] == (size, size):
        return image
    return np.asarray(Image.fromarray(image).resize((size, size), KERNELS[kernel]))


def resize_mask(mask: np.ndarray, size: int) -> np.ndarray:
    """Nearest resize (Pillow) of bool [H, W] to [size, size]."""
    return resize_ids(mask.astype(np.uint8), size) > 0


def resize_ids(ids: np.ndarray, size: int) -> np.ndarray:
    """Nearest resize (Pillow) of uint8 [H, W] to [size, size]."""
    if ids.shape == (size, size):
        return ids
    return np.asarray(Image.fromarray(ids).resize((size, size), Image.Resampling.NEAREST))


def normalize(images: Any, mean: np.ndarray = IMAGENET_MEAN, std: np.ndarray = IMAGENET_STD) -> Any:
    """Normalises RGB values 0..255: (x / 255 - mean) / std.

    Args:
      images: numpy or JAX array [..., 3], uint8 or float, values 0..255.
      mean, std: float32 [3], of values 0..1.

    Returns:
      float32 of the same shape and kind.
    """
    shape = (1,) * (images.ndim - 1) + (3,)
    scaled = images.astype(np.float32) / np.float32(255)
    return (scaled - mean.reshape(shape)) / std.reshape(shape)
