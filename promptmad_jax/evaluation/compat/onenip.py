"""The compatibility modes of OneNIP's own evaluation."""

from typing import NamedTuple

import numpy as np

from promptmad_jax.evaluation.class_maps import ClassMaps
from promptmad_jax.evaluation.metrics.blocks import Block, ClassScores, score_maps
from promptmad_jax.evaluation.metrics.exact import build_curve, image_sample, measure
from promptmad_jax.evaluation.metrics.ground_truth import GroundTruth
from promptmad_jax.evaluation.metrics.metrics import IMAGE_FIGURES, IMAGE_METRICS
from promptmad_jax.evaluation.scratch import Keep
from promptmad_jax.runtime.processes import Communicator, gather_objects


class _Kept(NamedTuple):
    reconstruction: np.ndarray
    segmentation: np.ndarray
    masks: np.ndarray
    indices: np.ndarray


class OneNipFusion:
    """OneNIP's evaluation: final = 0.5 rec + 0.5 (M + m) / 2 seg.

    M and m are the largest and the smallest value of all reconstruction maps of the whole test set,
    so the maps are kept on disk until the last class is known. seg is the refined map, or the
    coarse one without it. An image is defective if its resized mask is not empty. The rule needs
    the test set: it is for comparison, not for deployment.
    """

    def __init__(self, pool: int, limit: float, keep: Keep, communicator: Communicator):
        self._pool, self._limit = pool, limit
        self._keep, self._communicator = keep, communicator
        self._kept: dict[str, _Kept] = {}
        self._bounds: list[float] = []
        self.left_out = ""

    def add(self, class_maps: ClassMaps, scored: ClassScores) -> None:
        """Keeps the maps of one class on disk, or records that it lacks them."""
        del scored
        maps = class_maps.maps
        segmentation = maps["refined"] if "refined" in maps else maps.get("coarse")
        if "reconstruction" not in maps or segmentation is None:
            self.left_out = (
                f"class {class_maps.class_name} has no reconstruction and segmentation maps to fuse"
            )
            return
        reconstruction = maps["reconstruction"]
        if len(reconstruction):
            self._bounds += [float(reconstruction.max()), float(reconstruction.min())]
        arrays = reconstruction, segmentation, class_maps.masks
        self._kept[class_maps.class_name] = _Kept(*map(self._keep, arrays), class_maps.indices)

    def result(self) -> dict:
        """The metrics of the fused maps as a block, with `scale` = (M + m) / 2."""
        bounds = np.concatenate(self._communicator.gather(np.array(self._bounds, np.float64)))
        scale = float(bounds.max() + bounds.min()) / 2
        block = Block()
        for name, kept in self._kept.items():
            fused = 0.5 * kept.reconstruction + np.float32(0.5 * scale) * kept.segmentation
            truth = GroundTruth(np.asarray(kept.masks), kept.indices, self._communicator)
            scored = score_maps(fused, truth, truth.has_defect, self._pool)
            block.add(name, *scored.figures(self._limit))
        return block.result() | {"scale": scale}


class ResizedMaskLabel:
    """Image metrics with OneNIP's label: an image is defective if its resized mask is not empty."""

    left_out = ""

    def __init__(self, communicator: Communicator):
        self._communicator = communicator
        self._block = Block(IMAGE_METRICS)
        self._differ: dict[str, list[str]] = {}

    def add(self, class_maps: ClassMaps, scored: ClassScores) -> None:
        """Measures one class and records the files whose label changes."""
        name, labels = class_maps.class_name, class_maps.labels.astype(bool)
        sample = image_sample(scored.scores, scored.truth.has_defect)
        self._block.add(name, *measure(build_curve([sample]), IMAGE_FIGURES))
        differ = np.flatnonzero(class_maps.masks.any(axis=(1, 2)) != labels)
        rows = [[int(class_maps.indices[i]), class_maps.filenames[i]] for i in differ]
        every = sorted(row for part in gather_objects(self._communicator, rows) for row in part)
        if every:
            self._differ[name] = [filename for _, filename in every]

    def result(self) -> dict:
        """The block, with `differ`: class -> files whose label is not the data set's."""
        return self._block.result() | {"differ": self._differ}
