"""Small pictures as data URIs."""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from promptmad_jax.reporting.explanations import Window
from promptmad_jax.reporting.gallery import Example

THUMBNAIL = 224
OUTLINE_COLOUR = np.array([100, 255, 70], np.uint8)
WINDOW_COLOUR = (255, 255, 255)


@dataclass(frozen=True)
class PictureRow:
    """One image as the page shows it; pictures: caption -> data URI."""

    title: str
    filename: str
    pictures: Mapping[str, str]
    explanation: str = ""
    score: float | None = None


def picture_row(example: Example) -> PictureRow:
    """Keeps an example as thumbnails alone."""
    pictures = {
        caption: encode_overlay(picture, example.pictures["mask"], example.window)
        if caption == "final"
        else encode(picture)
        for caption, picture in example.pictures.items()
    }
    return PictureRow(
        example.defect_type, example.filename, pictures, example.explanation, example.score
    )


def encode(picture: np.ndarray) -> str:
    """Encodes uint8 [H, W, 3] as WebP and bool [H, W] as one-bit PNG, shrunk to `THUMBNAIL`."""
    if picture.dtype == bool:
        return _uri(Image.fromarray(_shrink_mask(picture)), "png", optimize=True)
    return _uri(_shrink(picture), "webp", quality=75, method=4)


def encode_overlay(picture: np.ndarray, mask: np.ndarray, window: Window) -> str:
    """Encodes an overlay with the edge of the defect in green and the score's window in white."""
    inside = _shrink_mask(mask)
    edge = ndimage.binary_dilation(inside) & ~inside
    outlined = np.where(edge[..., None], OUTLINE_COLOUR, np.asarray(_shrink(picture)))
    scale = outlined.shape[1] / picture.shape[1]
    left, top = window.left * scale, window.top * scale
    # Drawn inside, so that a window at the border shows all its sides.
    right, bottom = (end + window.width * scale - 1 for end in (left, top))
    drawn = Image.fromarray(outlined)
    ImageDraw.Draw(drawn).rectangle((left, top, right, bottom), outline=WINDOW_COLOUR)
    # WebP halves the resolution of colour, which washes out lines of one pixel.
    return _uri(drawn, "jpeg", quality=80, subsampling=0, optimize=True)


def _shrink(image: np.ndarray) -> Image.Image:
    """Shrinks uint8 [H, W, 3] or [H, W] so that its longer side is at most `THUMBNAIL`."""
    scale = min(1.0, THUMBNAIL / max(image.shape[:2]))
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    return Image.fromarray(image).resize(size, Image.Resampling.BOX)


def _shrink_mask(mask: np.ndarray) -> np.ndarray:
    """Shrinks bool [H, W] so that a defect of one pixel stays visible."""
    return np.asarray(_shrink(mask.astype(np.uint8) * 255)) > 0


def _uri(picture: Image.Image, kind: str, **options: object) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
