"""Types of settings: numbers within bounds, and the words for any type that a setting may have."""

import builtins
import types
import typing
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple


class Bound(NamedTuple):
    """Bounds of a number, for `typing.Annotated`: in words, and as a test."""

    words: str
    holds: Callable[[float], bool]


NonNegativeInt = Annotated[int, Bound("at least 0", lambda n: n >= 0)]
PositiveInt = Annotated[int, Bound("at least 1", lambda n: n >= 1)]
NonNegativeFloat = Annotated[float, Bound("at least 0", lambda x: x >= 0)]
PositiveFloat = Annotated[float, Bound("above 0", lambda x: x > 0)]
UnitInterval = Annotated[float, Bound("from 0 to 1", lambda x: 0 <= x <= 1)]
BelowOne = Annotated[float, Bound("at least 0 and below 1", lambda x: 0 <= x < 1)]


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
