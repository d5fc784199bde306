"""Small pictures as data URIs."""

import base64
import io

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from promptmad_jax.reporting.explanations import Window

THUMBNAIL = 224
OUTLINE = np.array([96, 214, 255], np.uint8)
WINDOW = (255, 255, 255)


def encode(picture: np.ndarray) -> str:
    """uint8 [H, W, 3] as WebP, bool [H, W] as PNG of one bit a pixel; shrunk to `THUMBNAIL`."""
    if picture.dtype == bool:
        return _uri(Image.fromarray(shrink_mask(picture)), "png", optimize=True)
    return _uri(Image.fromarray(shrink(picture)), "webp", quality=75, method=4)


def encode_overlay(picture: np.ndarray, mask: np.ndarray, window: Window) -> str:
    """An overlay with the edge of the defect in blue and the window of the score in white."""
    outlined = Image.fromarray(outline(shrink(picture), mask))
    scale = outlined.width / picture.shape[1]
    left, top = window.left * scale, window.top * scale
    # Drawn inside, so that a window at the border shows all its sides.
    right, bottom = (end + window.width * scale - 1 for end in (left, top))
    ImageDraw.Draw(outlined).rectangle((left, top, right, bottom), outline=WINDOW)
    # WebP halves the resolution of colour, which washes out lines of one pixel.
    return _uri(outlined, "jpeg", quality=80, subsampling=0, optimize=True)


def shrink(image: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] so that its longer side is at most `THUMBNAIL`."""
    resized = Image.fromarray(image).resize(_size(image.shape), Image.Resampling.BOX)
    return np.asarray(resized)


def shrink_mask(mask: np.ndarray) -> np.ndarray:
    """bool [H, W] as `shrink`; a defect of one pixel is still seen."""
    grey = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(grey.resize(_size(mask.shape), Image.Resampling.BOX)) > 0


def outline(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Draws the edge of the mask, given at full size, around its inside."""
    inside = shrink_mask(mask)
    edge = ndimage.binary_dilation(inside) & ~inside
    return np.where(edge[..., None], OUTLINE, image)


def _size(shape: tuple[int, ...]) -> tuple[int, int]:
    scale = min(1.0, THUMBNAIL / max(shape[:2]))
    return max(1, round(shape[1] * scale)), max(1, round(shape[0] * scale))


def _uri(picture: Image.Image, kind: str, **options: object) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
