"""Distance of a picture as a whole from a class's normal images: tells what is no picture of it.

An image's description holds mean and deviation of each channel of its features and of its colours
(`Detector.describe`). Its novelty is the distance from the nearest normal image's description, each
number in standard deviations of the class's normal images.
"""

import io
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

# Numbers that hardly vary among the normal images would rule the distance: a share of the typical
# deviation is added.
_FLOOR = 0.05
_COLOURS = 6


class ClassGallery(NamedTuple):
    """Descriptions float32 [n, D] of a class's normal images."""

    descriptions: np.ndarray

    @property
    def _scale(self) -> tuple[np.ndarray, np.ndarray]:
        mean, deviation = self.descriptions.mean(0), self.descriptions.std(0)
        return mean, deviation + _FLOOR * np.median(deviation) + 1e-6

    def novelty(self, descriptions: np.ndarray) -> np.ndarray:
        """Novelties [m] of images [m, D]."""
        return np.sqrt(self._squared(descriptions).min(1))

    def leave_one_out(self) -> np.ndarray:
        """Novelties [n] of the gallery's own images, each beside the others."""
        squared = self._squared(self.descriptions)
        np.fill_diagonal(squared, np.inf)
        return np.sqrt(squared.min(1))

    def _squared(self, descriptions: np.ndarray) -> np.ndarray:
        """Mean squared differences [m, n]."""
        mean, scale = self._scale
        own, other = ((x - mean) / scale for x in (self.descriptions, descriptions))
        squares = (other**2).sum(1)[:, None] + (own**2).sum(1) - 2 * other @ own.T
        return np.maximum(squares, 0) / own.shape[1]

    def reason(self, description: np.ndarray) -> str:
        """Says in words where an image [D] differs from the normal ones."""
        grey, contrast = _grey(self.descriptions)
        level, spread = (float(value[0]) for value in _grey(description[None]))
        if level < grey.min() - (grey.max() - grey.min()) and level < 0.8 * grey.min():
            return "darker than all normal images"
        if level > grey.max() + (grey.max() - grey.min()) and level > 1.2 * grey.max():
            return "brighter than all normal images"
        if spread < 0.6 * contrast.min():
            return "flatter than all normal images"
        return "unlike all normal images as a whole"


def nearest_class(descriptions: np.ndarray, galleries: Sequence[ClassGallery]) -> np.ndarray:
    """The place int [m] of the gallery with the nearest description, for images [m, D].

    Each number is in standard deviations over all galleries: one scale, in contrast to `novelty`.
    """
    owners = np.repeat(np.arange(len(galleries)), [len(g.descriptions) for g in galleries])
    own = np.concatenate([gallery.descriptions for gallery in galleries])
    scale = own.std(0) + 1e-6
    own, other = own / scale, descriptions / scale
    return owners[((own**2).sum(1)[None] - 2 * other @ own.T).argmin(1)]


Gallery = Mapping[str, ClassGallery]
GALLERY_FILE = "normal_images.npz"


def gallery_bytes(gallery: Gallery) -> bytes:
    """The content of `normal_images.npz`."""
    content = io.BytesIO()
    arrays = {str(i): own.descriptions for i, own in enumerate(gallery.values())}
    np.savez_compressed(content, class_names=np.array(list(gallery), str), **arrays)
    return content.getvalue()


def gallery_of(content: bytes) -> Gallery:
    """The gallery from the bytes of its file."""
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        names = map(str, arrays["class_names"])
        return {name: ClassGallery(arrays[str(i)]) for i, name in enumerate(names)}


def _grey(descriptions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean [n] and deviation [n] of the colours."""
    colours = descriptions[:, -_COLOURS:]
    return colours[:, :3].mean(1), colours[:, 3:].mean(1)
