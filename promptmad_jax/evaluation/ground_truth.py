"""The masks of one class over all processes, which split its maps into positives and negatives."""

from collections.abc import Sequence

import numpy as np

from promptmad_jax.evaluation.distributed import ALONE, Communicator
from promptmad_jax.evaluation.exact import Sample
from promptmad_jax.evaluation.regions import region_weights
from promptmad_jax.evaluation.sorting import sort_in_place


class GroundTruth:
    """Brings what the processes know of their images into the order of the images' indices.

    The positives of all processes are gathered, 1 to 3 % of the pixels; the negatives stay where
    they are. Regions are labelled once for all maps of the class.

    Args:
      masks: bool [H, W] each, n of them, of this process; sizes may differ.
      indices: int [n], the places of these images in the class; no two images of any process
        share one.
      communicator: the processes.

    Attributes:
      count: number of images of all processes.
      has_defect: bool [count], whether the mask of an image has a defect pixel.

    Raises:
      ValueError: where an index comes twice.
    """

    def __init__(
        self, masks: Sequence[np.ndarray], indices: np.ndarray, communicator: Communicator = ALONE
    ):
        self._masks, self._communicator = masks, communicator
        rows = [(i, mask.sum(), mask.size) for i, mask in zip(indices, masks, strict=True)]
        rows = np.concatenate(communicator.gather(np.array(rows, np.int64).reshape(-1, 3)))
        index, defect, size = rows.T
        self._order = np.argsort(index, kind="stable")
        if (np.diff(index[self._order]) == 0).any():
            raise ValueError("an image was given twice, or two images have one index")
        # Stable, so that the pixels of an image stay in their order.
        self._pixel_order = np.argsort(np.repeat(index, defect), kind="stable")
        self._weights = self._positives(region_weights(masks)[0])
        self._negative_count = int(size.sum() - defect.sum())
        self.count = len(rows)
        self.has_defect = defect[self._order] > 0

    def images(self, values: np.ndarray) -> np.ndarray:
        """The values of all images, by index, from those of this process, [n]."""
        return np.concatenate(self._communicator.gather(values))[self._order]

    def pixels(self, maps: Sequence[np.ndarray], dtype: np.dtype | type = np.float32) -> Sample:
        """The pixels of the maps of this process: n of them, of the sizes of their masks.

        Args:
          maps: float of `dtype`, which is the same on all processes, those without images too.
        """
        negatives, positives = [np.empty(0, dtype)], [np.empty(0, dtype)]
        for values, mask in zip(maps, self._masks, strict=True):
            negatives.append(values[~mask])
            positives.append(values[mask])
        ascending = np.concatenate(negatives)
        sort_in_place(ascending)
        return Sample(
            "pixel",
            ascending,
            self._positives(np.concatenate(positives)),
            self._weights,
            self._negative_count,
            self._communicator,
        )

    def _positives(self, values: np.ndarray) -> np.ndarray:
        return np.concatenate(self._communicator.gather(values))[self._pixel_order]
