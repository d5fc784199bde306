"""Chooses the telling images of a class and draws their maps on one scale, as small data URIs."""

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

from promptmad_jax.evaluation.class_maps import ClassMaps
from promptmad_jax.evaluation.metrics import image_scores
from promptmad_jax.evaluation.overlay import colorize, overlay

THUMBNAIL = 160
MAP_ORDER = ("reconstruction", "coarse", "refined")
OUTLINE = np.array([96, 214, 255], np.uint8)


@dataclass(frozen=True)
class Row:
    """One image of the gallery.

    Attributes:
      filename, defect_type: of the image.
      score: its image score.
      pictures: caption -> data URI.
    """

    filename: str
    defect_type: str
    score: float
    pictures: dict[str, str]


@dataclass(frozen=True)
class Gallery:
    """The rows of one class by group, and the scale of each map, which all its images share."""

    class_name: str
    groups: dict[str, tuple[Row, ...]]
    scales: dict[str, tuple[float, float]]


def make_gallery(class_maps: ClassMaps, rows: int = 3, pool: int = 16) -> Gallery:
    """Picks up to `rows` misses, hits and false alarms and encodes their pictures.

    Misses are the defective images with the lowest scores, hits those with the highest, false
    alarms the normal images with the highest; no image comes twice.
    """
    scores = image_scores(class_maps.maps["final"], pool)
    scales = {name: colour_scale(class_maps, name) for name in class_maps.maps}
    groups = {
        title: tuple(_row(class_maps, index, float(scores[index]), scales) for index in indices)
        for title, indices in choose(scores, class_maps.labels, rows).items()
    }
    return Gallery(class_maps.class_name, groups, scales)


def choose(scores: np.ndarray, labels: np.ndarray, rows: int) -> dict[str, list[int]]:
    """The indices of the images to show, most telling first, by title of the group."""
    ascending = np.argsort(scores, kind="stable")
    defective = [int(i) for i in ascending if labels[i]]
    normal = [int(i) for i in ascending if not labels[i]]
    misses = defective[: min(rows, (len(defective) + 1) // 2)]
    hits = defective[len(misses) :][::-1][:rows]
    return {
        "Worst misses": misses,
        "Best hits": hits,
        "Worst false alarms": normal[::-1][:rows],
    }


def colour_scale(class_maps: ClassMaps, name: str) -> tuple[float, float]:
    """The colour scale of one map for all images of the class, never of one image.

    From the median of the normal images' pixels to the larger of their 99.9 % quantile and the
    99 % quantile of the pixels on defects. A class without normal images takes the pixels off the
    defects instead.
    """
    values = class_maps.maps[name]
    normal = values[~class_maps.labels.astype(bool)].ravel()
    background = normal if normal.size else values[~class_maps.masks]
    background = background if background.size else values.ravel()
    low, high = np.quantile(background, [0.5, 0.999])
    if class_maps.masks.any():
        high = max(high, np.quantile(values[class_maps.masks], 0.99))
    low, high = float(low), float(high)
    return (low, high) if high > low else (low, low + max(abs(low), 1.0) * 1e-3)


def _row(class_maps: ClassMaps, index: int, score: float, scales: dict) -> Row:
    image, mask = class_maps.images[index], class_maps.masks[index]
    pictures = {"image": _jpeg(_shrink(image)), "mask": _png(mask)}
    for name in MAP_ORDER:
        if name in class_maps.maps:
            heat = colorize(class_maps.maps[name][index], *scales[name])
            pictures[name] = _jpeg(_shrink(heat))
    final = overlay(image, class_maps.maps["final"][index], *scales["final"])
    pictures["overlay"] = _jpeg(_outlined(_shrink(final), mask))
    filename, kind = class_maps.filenames[index], class_maps.defect_types[index]
    return Row(filename, kind, score, pictures)


def _size(shape: tuple[int, ...]) -> tuple[int, int]:
    scale = min(1.0, THUMBNAIL / max(shape[:2]))
    return max(1, round(shape[1] * scale)), max(1, round(shape[0] * scale))


def _shrink(image: np.ndarray) -> np.ndarray:
    resized = Image.fromarray(image).resize(_size(image.shape), Image.Resampling.BOX)
    return np.asarray(resized)


def _shrink_mask(mask: np.ndarray) -> np.ndarray:
    # Averaging first, so that a defect of one pixel is still seen.
    grey = Image.fromarray(mask.astype(np.uint8) * 255).resize(
        _size(mask.shape), Image.Resampling.BOX
    )
    return np.asarray(grey) > 0


def _outlined(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    inside = _shrink_mask(mask)
    edge = ndimage.binary_dilation(inside) & ~inside
    return np.where(edge[..., None], OUTLINE, image)


def _jpeg(image: np.ndarray) -> str:
    return _encode(Image.fromarray(image), "jpeg", quality=72, optimize=True)


def _png(mask: np.ndarray) -> str:
    # Mode 1 takes one bit a pixel.
    return _encode(Image.fromarray(_shrink_mask(mask)), "png", optimize=True)


def _encode(picture: Image.Image, kind: str, **options: object) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
