"""Shares of counted images, with exact binomial intervals."""

from typing import NamedTuple

from scipy.special import betaincinv

CONFIDENCE = 0.95


class Proportion(NamedTuple):
    """`count` of `total` images; `total` is above 0."""

    count: int
    total: int

    @property
    def share(self) -> float:
        """The measured share, in 0..1."""
        return self.count / self.total

    @property
    def interval(self) -> tuple[float, float]:
        """The exact 95 % interval of the true share (Clopper and Pearson, 1934)."""
        tail, (count, total) = (1 - CONFIDENCE) / 2, self
        low = betaincinv(count, total - count + 1, tail) if count else 0.0
        high = betaincinv(count + 1, total - count, 1 - tail) if count < total else 1.0
        return float(low), float(high)
