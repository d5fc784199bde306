"""The shuffled-text control: a permutation after which nothing matches."""

from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np

_SWAPS = 20  # attempts per position to mix the first valid arrangement


def deranged(groups: Sequence[Hashable], rng: np.random.Generator) -> np.ndarray:
    """Draws a permutation that gives no position an element of its own group.

    Where the largest group is more than half of all, which allows none, no position keeps its own
    element.

    Args:
        groups: the group of each of n >= 2 positions.

    Returns:
        order, int [n]: position i receives element order[i].
    """
    if max(Counter(groups).values()) * 2 > len(groups):
        groups = range(len(groups))
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    labels = np.array([numbers[group] for group in groups])
    order = _shifted(labels, rng)
    for first, second in rng.integers(len(order), size=(_SWAPS * len(order), 2)):
        if labels[order[second]] != labels[first] and labels[order[first]] != labels[second]:
            order[[first, second]] = order[[second, first]]
    return order


def _shifted(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Sorts by group and rolls by the largest group's size, so that none meets itself."""
    shuffled = rng.permutation(len(labels))
    grouped = shuffled[np.argsort(labels[shuffled], kind="stable")]
    order = np.empty_like(grouped)
    order[grouped] = np.roll(grouped, -np.bincount(labels).max())
    return order
