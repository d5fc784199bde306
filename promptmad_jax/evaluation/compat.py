"""Figures as other code bases define them, under names of their own."""

from dataclasses import dataclass

import numpy as np

from promptmad_jax.evaluation.blocks import Block, class_metrics
from promptmad_jax.evaluation.class_maps import ClassMaps
from promptmad_jax.evaluation.metrics import IMAGE_METRICS, image_metrics, split_pixels
from promptmad_jax.evaluation.scratch import Scratch

COMPAT_MODES = ("onenip_fusion", "resized_mask_label")


@dataclass(frozen=True, eq=False)
class _Kept:
    reconstruction: np.ndarray
    segmentation: np.ndarray
    masks: np.ndarray


class OneNipFusion:
    """OneNIP's evaluation: final = 0.5 rec + 0.5 (M + m) / 2 seg.

    M and m are the largest and the smallest value of all reconstruction maps of the whole test
    set, so nothing is known before the last class: the maps wait on disk. seg is the refined map,
    or the coarse one where there is no refined. The image label is OneNIP's: whether any defect is
    left in the resized mask. Needs the test set, so it is for comparison and not for deployment.
    """

    def __init__(self, pool: int, limit: float, scratch: Scratch):
        self._pool, self._limit, self._scratch = pool, limit, scratch
        self._kept: dict[str, _Kept] = {}
        self._bounds: list[float] = []
        self.left_out = ""

    def add(self, class_maps: ClassMaps) -> None:
        """Keeps the maps of one class on disk, or notes that it lacks them."""
        maps = class_maps.maps
        segmentation = maps["refined"] if "refined" in maps else maps.get("coarse")
        if "reconstruction" not in maps or segmentation is None:
            self.left_out = (
                f"class {class_maps.class_name} has no reconstruction and segmentation maps to fuse"
            )
            return
        reconstruction = maps["reconstruction"]
        self._bounds += [float(reconstruction.max()), float(reconstruction.min())]
        keep = self._scratch.keep
        self._kept[class_maps.class_name] = _Kept(
            keep(reconstruction), keep(segmentation), keep(class_maps.masks)
        )

    def result(self) -> dict:
        """The fused figures as a block, with `scale` = (M + m) / 2."""
        scale = (max(self._bounds) + min(self._bounds)) / 2
        block = Block()
        for name, kept in self._kept.items():
            fused = 0.5 * kept.reconstruction + np.float32(0.5 * scale) * kept.segmentation
            masks = np.asarray(kept.masks)
            labels = masks.any(axis=(1, 2))
            pixels = split_pixels(fused, masks)
            block.add(name, *class_metrics(fused, pixels, labels, self._pool, self._limit))
        return block.result() | {"scale": scale}


class ResizedMaskLabel:
    """Image figures with the label of OneNIP: defective where the resized mask is not empty."""

    left_out = ""

    def __init__(self):
        self._block = Block(IMAGE_METRICS)
        self._differ: dict[str, list[str]] = {}

    def add(self, class_maps: ClassMaps, scores: np.ndarray) -> None:
        """Takes the image scores [n] of one class."""
        labels = class_maps.masks.any(axis=(1, 2))
        self._block.add(class_maps.class_name, *image_metrics(scores, labels))
        differ = np.flatnonzero(labels != class_maps.labels.astype(bool))
        if len(differ):
            self._differ[class_maps.class_name] = [class_maps.filenames[i] for i in differ]

    def result(self) -> dict:
        """The block, with `differ`: class -> files whose label is not the data set's."""
        return self._block.result() | {"differ": self._differ}
