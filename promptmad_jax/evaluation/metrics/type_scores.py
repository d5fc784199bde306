"""Scores of many states per pixel: their storage by state, ranking and confusion matrix."""

from collections.abc import Iterable, Sequence

import numpy as np

from promptmad_jax.data.defect_types.taxonomy import UNKNOWN
from promptmad_jax.evaluation.metrics.exact import count_above
from promptmad_jax.evaluation.metrics.metrics import check_finite
from promptmad_jax.evaluation.scratch import Scratch

CHUNK = 1 << 20  # Positive scores ranked together.


class TypeScores:
    """The scores of one product by state, on disk until the context manager exits.

    Args:
      product: its name, for messages.
      truth: integers [n, H, W], the true states, 255 where unknown.
      states: their number.

    Attributes:
      truth: [N], of all pixels.
      pixels: int64 [states, states], counts of the pixels of known type by true and predicted
        state; the first of equal scores is the predicted one.
    """

    def __init__(self, product: str, truth: np.ndarray, states: int):
        self._product = product
        self._shape = (*truth.shape, states)
        self._scratch = Scratch()
        self._parts: list[np.ndarray] = []
        self.truth = truth.ravel()
        self.pixels = np.zeros((states, states), np.int64)

    def __enter__(self) -> "TypeScores":
        return self

    def __exit__(self, *exception: object) -> None:
        self._parts.clear()
        self._scratch.close()

    def fill(self, scores: Iterable[np.ndarray]) -> None:
        """Stores the scores, given as batches [b, H, W, states] of all images.

        Raises:
          UserError: a score is NaN or infinite, or the disk is full.
          ValueError: the shapes do not fit.
        """
        count, states = 0, self._shape[-1]
        for batch in scores:
            if batch.shape[1:] != self._shape[1:] or count + len(batch) > self._shape[0]:
                raise ValueError(f"{self._product}: scores {batch.shape}, wanted {self._shape}")
            names = [f"{self._product}, image {count + i}" for i in range(len(batch))]
            check_finite(batch, names)
            by_state = batch.reshape(-1, states).T
            start = count * self._shape[1] * self._shape[2]
            truth = self.truth[start : start + by_state.shape[1]]
            self.pixels += _confusion(truth, by_state, states)
            self._parts.append(self._scratch.keep(np.ascontiguousarray(by_state)))
            count += len(batch)
        if count != self._shape[0]:
            raise ValueError(f"{self._product}: {count} images have scores, {self._shape[0]} masks")

    def column(self, state: int) -> np.ndarray:
        """The scores of a state, [N]."""
        return np.concatenate([part[state] for part in self._parts])


def _confusion(truth: np.ndarray, by_state: np.ndarray, states: int) -> np.ndarray:
    known = truth != UNKNOWN
    pairs = truth[known].astype(np.int64) * states + by_state.argmax(axis=0)[known]
    return np.bincount(pairs, minlength=states**2).reshape(states, states)


def rank(scores: np.ndarray, truth: np.ndarray, state: int) -> tuple[float, float]:
    """AUROC and step-wise AP of a state against the rest, exact, ties included.

    AUROC is P(positive > negative) + P(equal) / 2, summed in integers; AP the mean over the
    positives of the precision at their score. Positives are ranked in chunks, because the normal
    state has nearly all pixels.

    Args:
      scores: float [N].
      truth: integers [N], 255 for pixels to leave out; both `state` and others must occur.
      state: the positive one.
    """
    positives = np.sort(scores[truth == state])
    negatives = np.sort(scores[(truth != state) & (truth != UNKNOWN)])
    wins, precisions, above, end = 0, 0.0, 0, len(positives)
    while end:
        # A chunk begins at a new value, so that equal scores stay together.
        value = positives[max(0, end - CHUNK)]
        start = int(np.searchsorted(positives[:end], value, side="left"))
        part = positives[start:end]
        last = np.flatnonzero(np.append(part[1:] != part[:-1], True))
        numbers = np.diff(last, prepend=-1)
        fp_above, fp_at = count_above(negatives, part[last])
        tp_at = above + np.cumsum(numbers[::-1])[::-1]
        wins += int((numbers * (2 * len(negatives) - fp_above - fp_at)).sum())
        precisions += float((numbers * (tp_at / (tp_at + fp_at))).sum())
        above, end = above + end - start, start
    return wins / (2 * len(positives) * len(negatives)), precisions / len(positives)


def argmax_f1(pixels: np.ndarray, state: int) -> float:
    """F1 = 2 TP / (2 TP + FP + FN) of a state in a confusion matrix."""
    return float(2 * pixels[state, state] / (pixels[state].sum() + pixels[:, state].sum()))


class Confusion:
    """Pixels by true and predicted state, summed over products by the states' names."""

    def __init__(self):
        self._names: list[str] = []
        self._pixels = np.zeros((0, 0), np.int64)

    def add(self, names: Sequence[str], pixels: np.ndarray) -> None:
        """Adds counts int [states, states]."""
        self._names += [name for name in names if name not in self._names]
        whole = np.zeros((len(self._names), len(self._names)), np.int64)
        whole[: len(self._pixels), : len(self._pixels)] = self._pixels
        places = [self._names.index(name) for name in names]
        whole[np.ix_(places, places)] += pixels
        self._pixels = whole

    def result(self) -> dict:
        """`names`, and `pixels`: a row for each true state, a column for each predicted one."""
        return {"names": list(self._names), "pixels": self._pixels.tolist()}
