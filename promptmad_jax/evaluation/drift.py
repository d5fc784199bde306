"""Recent normal images beside those that set the thresholds: do these still hold?

Both samples are cut off at the thresholds, because recent images count as normal by these alone.
Source of the test: Kolmogorov and Smirnov, two-sided, two samples; of the correction for several
tests: Holm, "A simple sequentially rejective multiple test procedure" (1979).
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from promptmad_jax.evaluation.constants import Calibration

# Differences as large come by chance in this share of the reports on a line that is unchanged.
LEVEL = 0.01
FEWEST = 8


class Sample(NamedTuple):
    """A quantity of a class's images, before and now.

    Attributes:
        quantity: "score", or "novelty" in units of its limit.
        before, now: float [n] and [m].
        p: of the test; corrected by `corrected` for the number of tests.
    """

    quantity: str
    before: np.ndarray
    now: np.ndarray
    p: float

    @property
    def drifted(self) -> bool:
        return self.p < LEVEL

    @property
    def unseen(self) -> float:
        """The difference of a share of the images up to which a drift goes unseen."""
        spread = 1 / len(self.before) + 1 / len(self.now)
        return min(1.0, float(np.sqrt(-np.log(LEVEL / 2) / 2 * spread)))


class ClassDrift(NamedTuple):
    """The comparison of a class.

    Attributes:
        images: recent ones. alarms: those of them called defective or unknown.
        samples: empty if nothing can be compared.
        reason: why nothing can be said unless a sample has drifted; else "".
    """

    class_name: str
    images: int
    alarms: int
    samples: tuple[Sample, ...]
    reason: str

    @property
    def holds(self) -> bool | None:
        """Returns True if the thresholds hold, None if that cannot be said."""
        if any(sample.drifted for sample in self.samples):
            return False
        return None if self.reason else True


def compare(rows: Sequence[Mapping], calibration: Calibration) -> list[ClassDrift]:
    """Compares predictions with a calibration, class by class.

    Args:
        rows: of scores.jsonl: `class_name`, `score`, `verdict`, `threshold`, `novelty`.
    """
    judged = [row for row in rows if row.get("verdict") is not None]
    names = dict.fromkeys(row["class_name"] for row in judged)
    own = {name: [row for row in judged if row["class_name"] == name] for name in names}
    return _corrected([_class_drift(name, rows, calibration) for name, rows in own.items()])


def _class_drift(name: str, rows: list[Mapping], calibration: Calibration) -> ClassDrift:
    normal = [row for row in rows if row["verdict"] == "normal"]
    counts = name, len(rows), len(rows) - len(normal)
    if name not in calibration.scores:
        return ClassDrift(*counts, (), "the run keeps no scores of its normal images")
    scores, thresholds = calibration.scores[name], calibration.thresholds[name]
    if not scores.comparable:
        reason = "its thresholds come from images that it was trained on, which score otherwise"
        return ClassDrift(*counts, (), reason)
    limit = min([thresholds.image, *(row["threshold"] for row in normal)])
    samples = [_sample("score", scores.image, [row["score"] for row in normal], limit)]
    if thresholds.novelty is not None and scores.novelty:
        before = np.divide(scores.novelty, thresholds.novelty)
        samples.append(_sample("novelty", before, [row["novelty"] for row in normal], 1.0))
    fewest = min(len(values) for sample in samples for values in (sample.before, sample.now))
    if fewest < FEWEST:
        return ClassDrift(*counts, (), f"{fewest} normal images are too few to compare")
    return ClassDrift(*counts, tuple(samples), _alarming(*counts[1:], calibration, name))


def _alarming(images: int, alarms: int, calibration: Calibration, name: str) -> str:
    """Says that more images raise an alarm than good parts would by chance; "" otherwise.

    Where all scores rise, most of the change is beyond the thresholds, and so in no sample.
    """
    rate = min(1.0, calibration.thresholds[name].interval[1] + calibration.rates.unknown)
    if stats.binomtest(alarms, images, rate, "greater").pvalue >= LEVEL:
        return ""
    return (
        f"good parts would raise an alarm on {100 * rate:.0f} % of the images at the most; unless "
        "as many parts are bad, the thresholds no longer hold"
    )


def _sample(quantity: str, before: Sequence, now: Sequence, limit: float) -> Sample:
    before, now = (np.asarray(values, float) for values in (before, now))
    before, now = before[before <= limit], now[now <= limit]
    p = stats.ks_2samp(before, now).pvalue if len(before) and len(now) else 1.0
    return Sample(quantity, before, now, float(p))


def _corrected(found: list[ClassDrift]) -> list[ClassDrift]:
    """The same with the p of each test corrected for the number of tests."""
    flat = sorted(sample.p for drift in found for sample in drift.samples)
    steps = [p * (len(flat) - i) for i, p in enumerate(flat)]
    corrected = dict(zip(flat, np.minimum(np.maximum.accumulate(steps), 1), strict=True))
    return [
        drift._replace(samples=tuple(s._replace(p=float(corrected[s.p])) for s in drift.samples))
        for drift in found
    ]
