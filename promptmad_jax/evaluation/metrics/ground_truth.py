"""The masks of one class over all processes; they split its maps into positives and negatives."""

import threading
from collections.abc import Sequence

import numpy as np

from promptmad_jax.evaluation.metrics.exact import Sample
from promptmad_jax.evaluation.metrics.regions import region_weights
from promptmad_jax.runtime.cpu.processor import core_count
from promptmad_jax.runtime.processes import ALONE, Communicator


class GroundTruth:
    """Joins the images of all processes in the order of their indices.

    The positives of all processes are gathered, 1 to 3 % of the pixels; the negatives stay on their
    process. Regions are labelled once for all maps of the class.

    Args:
      masks: n masks bool [H, W] of this process; sizes may differ.
      indices: int [n], the unique places of these images in the class.
      communicator: the processes.

    Attributes:
      count: number of images of all processes.
      has_defect: bool [count], true for an image whose mask has a defect pixel.

    Raises:
      ValueError: an index comes twice.
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
        """The values of all images, in the order of the indices, from those of this process [n]."""
        return np.concatenate(self._communicator.gather(values))[self._order]

    def pixels(self, maps: Sequence[np.ndarray], dtype: np.dtype | type = np.float32) -> Sample:
        """The sample of the pixels of this process's n maps, which have the sizes of their masks.

        Args:
          maps: float of `dtype`, which is the same on all processes, also on those without images.
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


# Below this number of values a second thread is not worth starting.
_LEAST = 2**18


def sort_in_place(values: np.ndarray, cores: int | None = None) -> None:
    """Sorts [N], without NaN, into ascending order: split at its median, both halves in parallel.

    Args:
      cores: number of threads; by default as many as the process may use.
    """
    cores = core_count() if cores is None else cores
    if cores < 2 or len(values) < 2 * _LEAST:
        values.sort()
        return
    middle = len(values) // 2
    values.partition(middle)
    lower = threading.Thread(target=sort_in_place, args=(values[:middle], cores // 2))
    lower.start()
    sort_in_place(values[middle:], cores - cores // 2)
    lower.join()
