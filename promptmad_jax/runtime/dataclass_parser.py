"""Nested mappings to frozen dataclasses, checked, and back."""

import builtins
import contextlib
import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any

from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.field_types import in_words


def to_dict(config: Any) -> dict[str, Any]:
    """Plain nested dictionaries, for JSON and for `ConfigDict`."""
    return dataclasses.asdict(config)


def parse_dataclass(cls: type, values: Mapping[str, Any], path: str) -> Any:
    """Builds the dataclass `cls` from a mapping (a `ConfigDict`, or JSON); what is left out is at
    its default.

    Args:
        path: name of the group in messages, such as "config.train".

    Raises:
        UserError: an unknown key, with the nearest known one; a value that is not of its field's
            type, choices or bounds; or a ValueError of the class's `__post_init__`.
    """
    kinds = typing.get_type_hints(cls, include_extras=True)
    for key in values:
        if key not in kinds:
            near = difflib.get_close_matches(key, kinds, 1, 0.0)
            raise UserError(f"{path}.{key} is unknown; did you mean {path}.{near[0]}?")
    fields = {key: _field(kinds[key], value, f"{path}.{key}") for key, value in values.items()}
    try:
        return cls(**fields)
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def _field(kind: Any, value: Any, path: str) -> Any:
    if dataclasses.is_dataclass(kind):
        if not hasattr(value, "items"):
            raise UserError(f"{path} is {value!r}; it is a group of settings")
        return parse_dataclass(kind, dict(value.items()), path)
    try:
        return _convert(kind, value)
    except TypeError as error:
        raise UserError(f"{path} is {value!r}; it must be {in_words(kind)}") from error


def _convert(kind: Any, value: Any) -> Any:
    """`value` as `kind`: tuples for lists, floats for whole numbers. Raises TypeError if it is
    none."""
    arguments = typing.get_args(kind)
    match typing.get_origin(kind):
        case typing.Literal:
            if type(value) in (str, int) and value in arguments:
                return value
        case types.UnionType | typing.Union:
            for option in arguments:
                with contextlib.suppress(TypeError):
                    return _convert(option, value)
        case typing.Annotated:
            number = _convert(arguments[0], value)
            if arguments[1].holds(number):
                return number
        case builtins.tuple if isinstance(value, (tuple, list)):
            several = arguments[-1] is Ellipsis
            kinds = arguments[:1] * len(value) if several else arguments
            if len(kinds) == len(value):
                return tuple(map(_convert, kinds, value))
        case None:
            if kind is float and type(value) is int:
                return float(value)
            if type(value) is kind:
                return value
    raise TypeError
