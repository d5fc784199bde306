"""Random anomaly maps and masks in the numbers of MVTec-AD's test set."""

from collections.abc import Iterator, Mapping

import numpy as np

from promptmad_jax.evaluation.class_maps import ClassMaps

Counts = Mapping[str, tuple[int, int]]

# Normal and defective test images of MVTec-AD's classes, by alphabet.
_NORMAL = (20, 58, 23, 28, 21, 40, 32, 22, 26, 41, 33, 12, 60, 19, 32)
_DEFECTIVE = (63, 92, 109, 89, 57, 70, 92, 93, 141, 119, 84, 30, 40, 60, 119)
MVTEC_AD = {f"class_{i}": pair for i, pair in enumerate(zip(_NORMAL, _DEFECTIVE, strict=True))}
_POSITIVE = 0.024  # share of anomalous pixels
_COARSE = 14
_NOISE, _CONTRAST = 0.3, 1.5


def draw_classes(counts: Counts, size: int, seed: int = 0) -> Iterator[ClassMaps]:
    """Yields noisy smooth maps, and an elliptic defect in each defective image.

    Args:
        counts: normal and defective images by class name.
        size: side of the maps in pixels.
    """
    normal, defective = np.sum(list(counts.values()), axis=0)
    area = _POSITIVE * (normal + defective) / defective
    for index, (name, (good, bad)) in enumerate(counts.items()):
        rng = np.random.default_rng([seed, index])
        masks = np.zeros((good + bad, size, size), bool)
        for mask in masks[good:]:
            mask[:] = _ellipse(rng, size, area)
        yield ClassMaps(
            name,
            tuple(f"{i:03d}.png" for i in range(good + bad)),
            ("good",) * good + ("defect",) * bad,
            np.arange(good + bad) >= good,
            np.broadcast_to(np.uint8(0), (*masks.shape, 3)),
            masks,
            {"final": _draw_maps(rng, masks)},
        )


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
    """A mask [S, S] that covers half to one and a half times `area`, a share of the image."""
    aspect = rng.uniform(0.5, 2)
    radius = np.sqrt(rng.uniform(0.5, 1.5) * area / np.pi) * size
    height, width = radius * np.sqrt(aspect), radius / np.sqrt(aspect)
    y, x = (rng.uniform(r, size - r) for r in (height, width))
    rows, columns = np.ogrid[:size, :size]
    return ((rows - y) / height) ** 2 + ((columns - x) / width) ** 2 <= 1
