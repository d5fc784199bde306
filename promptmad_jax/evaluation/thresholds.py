"""Thresholds from normal images, with the false-alarm rate that they stand for.

A new normal image and n comparable ones come in any order with equal probability. So it exceeds the
k-th highest of their scores with probability k / (n + 1), and over the choice of the n images that
rate has the distribution Beta(k, n + 1 - k) (split conformal prediction: Vovk, "Conditional
validity of inductive conformal predictors", 2012). Images of the training set are comparable where
each was scored without its own patches in the memory.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import special

from promptmad_jax.evaluation.metrics.metrics import image_scores
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.names import matching, nearest

# Shares of the pixels whose thresholds are kept.
PIXEL_SHARES = tuple(float(f"{share:.3g}") for share in np.geomspace(1e-5, 0.5, 48))
# Of the novelty of normal images: what is no picture of the class lies far beyond it.
_NOVELTY_MARGIN = 1.25
# In medians: so that one odd picture among the normal ones does not let everything pass.
_NOVELTY_MOST = 2.5


class Rates(NamedTuple):
    """Shares of the normal that may be above a threshold.

    Attributes:
        image: of images called defective. pixel: of pixels. unknown: of images called unknown.
    """

    image: float
    pixel: float
    unknown: float


USUAL = Rates(0.05, 0.01, 0.01)


class NormalScores(NamedTuple):
    """Scores of n normal images of a class, from which thresholds are set.

    Attributes:
        origin: words for what they are.
        image: image scores [n].
        peak: highest pixels [n].
        novelty: distances from the other images as a whole [n]; empty if unknown.
        pixel: thresholds that `PIXEL_SHARES` of their pixels exceed.
        comparable: they score as new normal images do; otherwise the rate of the thresholds is not
            known.
    """

    origin: str
    image: tuple[float, ...]
    peak: tuple[float, ...]
    novelty: tuple[float, ...]
    pixel: tuple[float, ...]
    comparable: bool


class Thresholds(NamedTuple):
    """Thresholds of a class, above which something is defective or unknown.

    Attributes:
        pixel: of the final map, for the metrics of pixels.
        image: of the image score.
        images: number of normal images that the thresholds rest on.
        region: of the final map, for regions; the share of normal images with a region is the
            image rate.
        novelty: of the distance from the class's normal images; None if it is not measured.
        rate: expected share of new normal images above `image`; None if it is not known.
        interval: 95 % interval of that share.
    """

    pixel: float
    image: float
    images: int
    region: float | None = None
    novelty: float | None = None
    rate: float | None = None
    interval: tuple[float, float] | None = None


def normal_scores(
    maps: np.ndarray, image_pool: int, novelty: Sequence[float], origin: str, comparable: bool
) -> NormalScores:
    """Scores of normal images from their final maps [n, S, S]."""
    pixels = np.sort(maps, axis=None)
    return NormalScores(
        origin,
        tuple(map(float, image_scores(maps, image_pool))),
        tuple(map(float, maps.max((1, 2)))),
        tuple(map(float, novelty)),
        tuple(_exceeded_by(pixels, share) for share in PIXEL_SHARES),
        comparable,
    )


def joined_scores(
    first: NormalScores, second: NormalScores, novelty: Iterable[float]
) -> NormalScores:
    """The scores of both sets of images.

    Args:
        novelty: of all of them, [n].
    """
    return NormalScores(
        f"{first.origin} + {second.origin}",
        first.image + second.image,
        first.peak + second.peak,
        tuple(map(float, novelty)),
        _joined_levels(first, second),
        first.comparable and second.comparable,
    )


def set_thresholds(scores: NormalScores, rates: Rates) -> Thresholds:
    """The lowest thresholds that keep to the rates, as far as the number of images allows."""
    count = len(scores.image)
    exceeded = _exceeding(count, rates.image)
    ends = special.betaincinv(exceeded, count + 1 - exceeded, (0.025, 0.975))
    novelty = None
    if scores.novelty:
        highest = _highest(scores.novelty, _exceeding(count, rates.unknown))
        novelty = min(_NOVELTY_MARGIN * highest, _NOVELTY_MOST * float(np.median(scores.novelty)))
    return Thresholds(
        _pixel_threshold(scores.pixel, rates.pixel),
        _highest(scores.image, exceeded),
        count,
        _highest(scores.peak, exceeded),
        novelty,
        exceeded / (count + 1) if scores.comparable else None,
        (float(ends[0]), float(ends[1])) if scores.comparable else None,
    )


def by_hand(thresholds: Thresholds, image: float) -> Thresholds:
    """The same with an image threshold set by hand: what rate it stands for is not known."""
    return thresholds._replace(image=image, rate=None, interval=None)


def parse_thresholds(given: Iterable[str], class_names: Iterable[str]) -> dict[str, float]:
    """CLASS=VALUE to a number by class.

    Raises:
        UserError: a text has another form, or a class is unknown.
    """
    spellings = {matching(name): name for name in class_names}
    values = {}
    for text in given:
        name, _, value = text.rpartition("=")
        if matching(name) not in spellings:
            near = nearest(name, spellings.values())
            raise UserError(
                f"--threshold={text}: give CLASS=VALUE with a class of "
                f"{', '.join(spellings.values())}" + (f"; did you mean {near}?" if near else "")
            )
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise UserError(f"--threshold={text}: {value!r} is no number")
        values[spellings[matching(name)]] = number
    return values


def unsupported(count: int, rate: float) -> str:
    """Says that a number of images supports no rate this low; "" if it does."""
    if rate * (count + 1) >= 1:
        return ""
    return (
        f"{100 * rate:g} % asked, but {count} normal images support no less than "
        f"{100 / (count + 1):.1f} %"
    )


def _joined_levels(first: NormalScores, second: NormalScores) -> tuple[float, ...]:
    """The levels of the pixels of both: each level stands for the share down to it."""
    shares = np.asarray(PIXEL_SHARES)
    levels = np.concatenate([first.pixel, second.pixel])
    counts = [len(scores.image) for scores in (first, second)]
    weights = np.outer(np.divide(counts, sum(counts)), np.diff(shares, prepend=0)).ravel()
    order = np.argsort(-levels, kind="stable")
    # The least slack keeps rounding from taking the next level.
    places = np.searchsorted(weights[order].cumsum(), shares * (1 - 1e-9))
    return tuple(map(float, levels[order][places]))


def _exceeding(count: int, rate: float) -> int:
    """The place k of the threshold among `count` scores, from the highest, 1."""
    # The least surplus keeps 0.05 * 20 from becoming 0.
    return min(max(1, math.floor(rate * (count + 1) + 1e-9)), count)


def _highest(values: Sequence[float], place: int) -> float:
    return float(np.sort(values)[-place])


def _pixel_threshold(levels: Sequence[float], share: float) -> float:
    """The threshold of the nearest share that is not above the one asked."""
    places = [i for i, known in enumerate(PIXEL_SHARES) if known <= share * (1 + 1e-9)]
    return levels[places[-1] if places else 0]


def _exceeded_by(ordered: np.ndarray, share: float) -> float:
    """The lowest of the values, which rise, that at most this share of them exceeds."""
    return float(ordered[len(ordered) - 1 - math.floor(share * len(ordered))])
