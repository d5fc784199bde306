"""Types of settings: numbers within bounds, and the words for any type that a setting may have."""

import builtins
import types
import typing
from typing import Annotated, Any, NamedTuple


class Range(NamedTuple):
    """Range of a number, for `typing.Annotated`: inclusive, unless `above` or `below` is set.

    Attributes:
        above, below: exclude `least` and `most` themselves.
        multiple: a whole number that values must be a multiple of; 0 for any value.
    """

    least: float
    most: float
    above: bool = False
    below: bool = False
    multiple: int = 0

    @property
    def words(self) -> str:
        """The range in words, such as "from 0 to 1"."""
        least, most = _text(self.least), _text(self.most)
        words = f"from {least} to {most}"
        if self.above or self.below:
            first = f"above {least}" if self.above else f"at least {least}"
            words = f"{first} and {'below' if self.below else 'at most'} {most}"
        return f"{words}, a multiple of {self.multiple}" if self.multiple else words

    def holds(self, number: float) -> bool:
        """Returns True if the number is in the range; not-a-number never is."""
        least = number > self.least if self.above else number >= self.least
        most = number < self.most if self.below else number <= self.most
        return least and most and not (self.multiple and number % self.multiple)


def _text(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


# Steps and places are int32 on the devices, seeds uint32.
PositiveInt = Annotated[int, Range(1, 2_000_000_000)]
NonNegativeInt = Annotated[int, Range(0, 2_000_000_000)]
Seed = Annotated[int, Range(0, 2**32 - 1)]
Width = Annotated[int, Range(1, 16_384)]
Depth = Annotated[int, Range(0, 256)]
Layers = Annotated[int, Range(1, 256)]
ImageSize = Annotated[int, Range(1, 8192)]
# Smaller values vanish in float32.
PositiveFloat = Annotated[float, Range(1e-12, 1_000_000)]
NonNegativeFloat = Annotated[float, Range(0, 1_000_000)]
UnitInterval = Annotated[float, Range(0, 1)]
BelowOne = Annotated[float, Range(0, 1, below=True)]


def in_words(kind: Any) -> str:
    """A type in words, such as "'last' or 'held_out'" or "int, at least 1"."""
    arguments = typing.get_args(kind)
    match typing.get_origin(kind):
        case typing.Literal:
            return _alternatives(map(repr, arguments))
        case types.UnionType | typing.Union:
            return _alternatives(map(in_words, arguments))
        case typing.Annotated:
            return f"{in_words(arguments[0])}, {arguments[1].words}"
        case builtins.tuple if arguments[-1] is Ellipsis:
            return f"tuple of {in_words(arguments[0])}"
        case builtins.tuple:
            return f"({', '.join(map(in_words, arguments))})"
    return "None" if kind is types.NoneType else kind.__name__


def _alternatives(words: typing.Iterable[str]) -> str:
    *others, last = words
    return f"{', '.join(others)} or {last}" if others else last
