"""The metrics of one class by name, image scores, and the check for NaN."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from promptmad_jax.evaluation.metrics.exact import (
    Figures,
    Reasons,
    Values,
    aupro,
    auroc,
    average_precision,
    build_curve,
    f1_max,
    measure,
)
from promptmad_jax.evaluation.metrics.ground_truth import GroundTruth
from promptmad_jax.runtime.errors import UserError

SMALL_LIMIT = 0.05
IMAGE_FIGURES = {"image_auroc": auroc, "image_ap": average_precision, "image_f1max": f1_max}
IMAGE_METRICS = tuple(IMAGE_FIGURES)


def pixel_figures(limit: float) -> Figures:
    """The pixel metrics of a curve, with AUPRO up to `limit` and up to `SMALL_LIMIT`."""
    return {
        "pixel_auroc": auroc,
        "pixel_ap": average_precision,
        "pixel_f1max": f1_max,
        "pixel_aupro": partial(aupro, limit=limit),
        "pixel_aupro_05": partial(aupro, limit=SMALL_LIMIT),
    }


PIXEL_METRICS = tuple(pixel_figures(0.3))


def pixel_metrics(
    maps: np.ndarray, masks: np.ndarray, filenames: Sequence[str] = (), limit: float = 0.3
) -> tuple[Values, Reasons]:
    """Computes pixel AUROC, AP, F1-max and AUPRO of one class, exactly.

    Args:
      maps: float [n, H, W], higher is more anomalous.
      masks: bool [n, H, W].
      filenames: n names for messages.
      limit: the false-positive rate up to which `pixel_aupro` integrates.

    Returns:
      The values in 0..1, None if all pixels are normal or all defective, and the reasons of None.

    Raises:
      UserError: a map holds NaN or infinite values.
    """
    maps, masks = _as_float(maps), np.asarray(masks, bool)
    check_finite(maps, filenames)
    sample = GroundTruth(masks, np.arange(len(masks))).pixels(maps, maps.dtype)
    return measure(build_curve([sample]), pixel_figures(limit))


def image_scores(maps: np.ndarray, pool: int = 16) -> np.ndarray:
    """The largest value of each map after pool x pool averaging with stride 1 and no padding.

    OneNIP and UniAD score images like this. Sums are taken by doubling, so that saturated regions
    of different images stay exactly equal.

    Args:
      maps: float [n, H, W].
      pool: width of the window in pixels, 1 for the plain maximum.

    Returns:
      float64 [n].

    Raises:
      UserError: the window does not fit into the map.
    """
    if not 1 <= pool <= min(maps.shape[1:]):
        raise UserError(
            f"the image score averages over {pool} x {pool} pixels, but the maps are "
            f"{maps.shape[1]} x {maps.shape[2]}; set eval.image_pool to at most the map size"
        )
    scores = np.empty(len(maps))
    for index, values in enumerate(maps):
        rows = _window_sums(values.astype(np.float64), pool)
        scores[index] = _window_sums(rows.T, pool).max() / pool**2
    return scores


def _window_sums(rows: np.ndarray, width: int) -> np.ndarray:
    """Sums of `width` neighbouring rows, by doubling."""
    count = len(rows) - width + 1
    total, done, span = np.zeros((count, *rows.shape[1:])), 0, 1
    while done < width:
        if width & span:
            total = total + rows[done : done + count]
            done += span
        rows, span = rows[:-span] + rows[span:], 2 * span
    return total


def _as_float(scores: np.ndarray) -> np.ndarray:
    """Keeps float32 and float64 as they are; both hold the values of the other dtypes."""
    scores = np.asarray(scores)
    return scores if scores.dtype in (np.float32, np.float64) else scores.astype(np.float64)


def check_finite(scores: np.ndarray, filenames: Sequence[str] = (), what: str = "score") -> None:
    """Refuses NaN and infinite values, which cannot be ranked.

    Args:
      scores: [n, ...], one entry per image.
      filenames: n names, or none.
      what: the word for the scores in the message.

    Raises:
      UserError: names the first image concerned.
    """
    bad = ~np.isfinite(scores).all(axis=tuple(range(1, scores.ndim)))
    if bad.any():
        first = int(np.argmax(bad))
        name = filenames[first] if len(filenames) else f"image {first}"
        raise UserError(
            f"{name}: the {what} is NaN or infinite (so in {bad.sum()} of {len(scores)} images); "
            "the training has probably diverged: evaluate an earlier checkpoint, or train again "
            "with a lower learning rate or in float32"
        )
