"""Grey levels of images that store more than 8 bits: which stored values are black and white.

A file says how many bits a value takes, not how many a camera used: 12-bit values in a 16-bit file
look black. The range is therefore found from all training images of a data set together, never from
a single image, and prediction uses the same.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from promptmad_jax.runtime.errors import UserError

PIXEL_RANGE = "pixel_range"  # The entry of report.json and manifest.json.
_BITS = (8, 10, 12, 14, 16)
_FLOAT_WHITES = (1, 255, 4095, 65535)
_SAMPLES = 128  # Rows and columns that the brightest values are read off.


@dataclass(frozen=True)
class Values:
    """The values that an image stores.

    Attributes:
      kind: "8-bit", "integer" (more bits) or "float".
      low, high: the smallest and the largest; of 8 bits, 0 and 255.
      bright: 99.9 % of the values lie at or below it, which single hot pixels do not move.
    """

    kind: str
    low: float
    high: float
    bright: float


def measure(values: np.ndarray) -> Values:
    """The range of pixels [H, W] or [H, W, 3]."""
    step_y, step_x = (1 + size // _SAMPLES for size in values.shape[:2])
    bright = float(np.percentile(values[::step_y, ::step_x], 99.9))
    if values.dtype == np.uint8:
        return Values("8-bit", 0, 255, bright)
    kind = "float" if values.dtype.kind == "f" else "integer"
    return Values(kind, float(values.min()), float(values.max()), bright)


@dataclass(frozen=True)
class Levels:
    """The stored values that become 0 and 255; 8-bit images stay as they are."""

    low: float
    high: float

    @classmethod
    def of_bits(cls, bits: int) -> "Levels":
        """The values of a number of bits: 4095 is white for 12."""
        return cls(0, 2**bits - 1)

    @classmethod
    def from_json(cls, values: list[float] | None) -> "Levels | None":
        """The levels that `to_json` stored; None where all images had 8 bits."""
        return None if values is None else cls(*map(float, values))

    def to_json(self) -> list[float]:
        return [self.low, self.high]

    @property
    def bits(self) -> int | None:
        """The number of bits, or None for another range."""
        bits = int(max(self.high, 0) + 1).bit_length() - 1
        return bits if self == Levels.of_bits(bits) and bits > 1 else None

    def __str__(self) -> str:
        values = f"{self.low:g} to {self.high:g}"
        return values if self.bits is None else f"{self.bits} bits ({values})"

    def scale(self, values: np.ndarray) -> np.ndarray:
        """Grey levels uint8 of the stored values; of N-bit integers, the highest 8 bits."""
        if values.dtype == np.uint16:
            return self._scale(np.arange(2**16, dtype=np.float64), 1)[values]
        return self._scale(values, int(values.dtype.kind != "f"))

    def _scale(self, values: np.ndarray, unit: int) -> np.ndarray:
        span = self.high - self.low + unit or 1
        return np.clip((values - self.low) * (256 / span), 0, 255).astype(np.uint8)

    def exceeded(self, values: Values) -> bool:
        """Returns True if values of an image are clipped."""
        return values.kind != "8-bit" and (values.low < self.low or values.high > self.high)


def find_levels(images: Iterable[Values]) -> Levels | None:
    """The range of a data set, from its training images; None if all have 8 bits.

    Integers take the fewest of 8, 10, 12, 14 and 16 bits that hold the largest value. Floats take
    0 to 1, 255, 4095 or 65535 if the largest value lies within a factor of four. Other images, such
    as those with negative values, take their smallest and largest value.

    Raises:
      UserError: some images are floats and others integers of more than 8 bits.
    """
    wide = [image for image in images if image.kind != "8-bit"]
    if not wide:
        return None
    if len({image.kind for image in wide}) > 1:
        raise UserError(
            "some training images hold floats and others integers of more than 8 bits, whose ranges"
            " do not agree: save all of them alike"
        )
    low, high = min(image.low for image in wide), max(image.high for image in wide)
    if wide[0].kind == "float":
        whites = [white for white in _FLOAT_WHITES if white / 4 <= high <= white]
    else:
        whites = [2**bits - 1 for bits in _BITS if high < 2**bits]
    return Levels(0, whites[0]) if low >= 0 and whites else Levels(low, high)
