"""Sorting on several cores: most of the time that exact figures take."""

import threading

import numpy as np

from promptmad_jax.runtime.cores import core_count

# Below this a second thread is not worth its start.
_LEAST = 2**18


def sort_in_place(values: np.ndarray, cores: int | None = None) -> None:
    """Sorts [N], without NaN, into ascending order: parted at its median, both sides at once.

    Args:
      cores: how many threads; as many as the process may use, where nothing is given.
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
