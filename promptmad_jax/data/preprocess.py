"""Decoding and resizing of images and masks, and the normalisation of the backbones.

Training, evaluation and serving all use these functions, so that a file gives the same array
everywhere.
"""

import io
import os
import pathlib
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from promptmad_jax.runtime.errors import UserError

IMAGENET_MEAN = np.asarray([0.485, 0.456, 0.406], np.float32)
IMAGENET_STD = np.asarray([0.229, 0.224, 0.225], np.float32)
CLIP_KERNEL = "bicubic"  # as in CLIP's own preprocessing
KERNELS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}

Source = bytes | str | os.PathLike[str]


class ImageFileError(UserError):
    """A file that cannot be decoded.

    Attributes:
      kind: `not_an_image` (no known image format) or `unreadable` (missing, truncated, damaged, of
        an unsupported pixel type).
      reason: the reason without the file name.
    """

    def __init__(self, source: Source, kind: str, reason: str):
        name = "image bytes" if isinstance(source, bytes) else os.fspath(source)
        super().__init__(f"{name}: {reason}")
        self.kind = kind
        self.reason = reason


def decode_image(source: Source) -> np.ndarray:
    """Decodes the first frame of an encoded image completely.

    Grey images are repeated to three channels, palettes are looked up, alpha is dropped, 16-bit
    values keep their high byte, and the EXIF orientation is applied.

    Args:
      source: the encoded bytes, or the path of a file.

    Returns:
      uint8 [H, W, 3], RGB.

    Raises:
      ImageFileError: the source is missing, truncated or not an image.
    """
    return to_rgb(open_image(source), source)


def decode_mask(source: Source) -> np.ndarray:
    """Decodes a mask: foreground is every pixel with a value above 0 in any channel but alpha.

    This makes small class ids, 255, colours and 16-bit values foreground.

    Args:
      source: the encoded bytes, or the path of a file.

    Returns:
      bool [H, W].

    Raises:
      ImageFileError: the source is missing, truncated or not an image.
    """
    return to_mask(open_image(source), source)


def decode_ids(source: Source) -> np.ndarray:
    """Decodes a mask of class ids, uint8 [H, W]; 0 is no class.

    Raises:
      ImageFileError: the source is missing, truncated, not an image, or not of one 8-bit channel.
    """
    return to_ids(open_image(source), source)


def open_image(source: Source) -> Image.Image:
    """Reads and decodes all pixels of a file; mode and EXIF orientation are as stored.

    Raises:
      ImageFileError: see `decode_image`.
    """
    try:
        data = source if isinstance(source, bytes) else pathlib.Path(source).read_bytes()
    except OSError as error:
        raise ImageFileError(source, "unreadable", error.strerror or str(error)) from error
    if not data:
        raise ImageFileError(source, "unreadable", "the file is empty")
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    except UnidentifiedImageError as error:
        raise ImageFileError(source, "not_an_image", "not an image of a known format") from error
    except Exception as error:  # Pillow's decoders raise many types on damaged bytes.
        raise ImageFileError(source, "unreadable", f"cannot be decoded ({error})") from error
    return image


def to_rgb(image: Image.Image, source: Source) -> np.ndarray:
    """An opened image as upright uint8 [H, W, 3]; `source` is named in errors."""
    image = _upright(image, source)
    if image.mode == "F":
        raise ImageFileError(source, "unreadable", "float pixels have no defined range")
    if image.mode.startswith("I"):
        grey = np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)
    return np.asarray(image.convert("RGB"))


def to_mask(image: Image.Image, source: Source) -> np.ndarray:
    """An opened mask as upright bool [H, W]; `source` is named in errors."""
    image = _upright(image, source)
    if image.mode in ("LA", "La"):
        image = image.getchannel(0)
    elif image.mode not in ("1", "L", "F") and not image.mode.startswith("I"):
        image = image.convert("RGB")
    values = np.asarray(image)
    return values > 0 if values.ndim == 2 else (values > 0).any(axis=-1)


def to_ids(image: Image.Image, source: Source) -> np.ndarray:
    """An opened mask's stored values, upright uint8 [H, W]; `source` is named in errors."""
    if image.mode not in ("1", "L", "P"):
        raise ImageFileError(source, "unreadable", f"pixels of mode {image.mode} hold no class ids")
    return np.asarray(_upright(image, source)).astype(np.uint8)


def _upright(image: Image.Image, source: Source) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception as error:  # As above; an image from Python may not be decoded yet.
        raise ImageFileError(source, "unreadable", f"damaged pixels or EXIF ({error})") from error


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
