"""Maps and masks of the size of a full test set, drawn from a seed, class after class."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

# MVTec-AD's test images: (normal, defective).
MVTEC_AD = {
    "bottle": (20, 63),
    "cable": (58, 92),
    "capsule": (23, 109),
    "carpet": (28, 89),
    "grid": (21, 57),
    "hazelnut": (40, 70),
    "leather": (32, 92),
    "metal_nut": (22, 93),
    "pill": (26, 141),
    "screw": (41, 119),
    "tile": (33, 84),
    "toothbrush": (12, 30),
    "transistor": (60, 40),
    "wood": (19, 60),
    "zipper": (32, 119),
}
# Of all pixels.
_POSITIVE = 0.024
_COARSE = 14
_NOISE, _CONTRAST = 0.3, 1.5


@dataclass(frozen=True, eq=False)
class DrawnClass:
    """maps float32 [n, S, S]; masks bool [n, S, S]; labels bool [n]."""

    name: str
    maps: np.ndarray
    masks: np.ndarray
    labels: np.ndarray


def draw_classes(
    counts: dict[str, tuple[int, int]], size: int, seed: int = 0
) -> Iterator[DrawnClass]:
    """Smooth maps with noise, and one elliptic defect in each defective image, of which the map
    shows more or less."""
    normal, defective = np.sum(list(counts.values()), axis=0)
    area = _POSITIVE * (normal + defective) / defective
    for index, (name, (good, bad)) in enumerate(counts.items()):
        rng = np.random.default_rng([seed, index])
        labels = np.arange(good + bad) >= good
        masks = np.zeros((good + bad, size, size), bool)
        for mask in masks[good:]:
            mask[:] = _ellipse(rng, size, area)
        yield DrawnClass(name, _draw_maps(rng, masks), masks, labels)


def _draw_maps(rng: np.random.Generator, masks: np.ndarray) -> np.ndarray:
    count, size, _ = masks.shape
    coarse = rng.standard_normal((count, _COARSE, _COARSE), np.float32)
    place = np.linspace(0, _COARSE - 1, size)[:, None]
    weights = np.maximum(0, 1 - np.abs(place - np.arange(_COARSE)[None])).astype(np.float32)
    maps = np.einsum("yi,nij,xj->nyx", weights, coarse, weights, optimize=True)
    for values, mask in zip(maps, masks, strict=True):
        values += np.float32(_NOISE) * rng.standard_normal(values.shape, np.float32)
        values += np.float32(_CONTRAST * rng.uniform(0.5, 1.5)) * mask
    return maps


def _ellipse(rng: np.random.Generator, size: int, area: float) -> np.ndarray:
    """A mask [S, S] of half to one and a half times `area`, a share of the image."""
    aspect = rng.uniform(0.5, 2)
    radius = np.sqrt(rng.uniform(0.5, 1.5) * area / np.pi) * size
    height, width = radius * np.sqrt(aspect), radius / np.sqrt(aspect)
    y, x = (rng.uniform(r, size - r) for r in (height, width))
    rows, columns = np.ogrid[:size, :size]
    return ((rows - y) / height) ** 2 + ((columns - x) / width) ** 2 <= 1
