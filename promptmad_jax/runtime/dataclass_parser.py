"""Nested mappings to frozen dataclasses, checked, and back."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any

from promptmad_jax.runtime.errors import UserError


def to_dict(config: Any) -> dict[str, Any]:
    """Plain nested dictionaries, for JSON and for `ConfigDict`."""
    return dataclasses.asdict(config)


def _parse(cls: type, values: Mapping[str, Any], path: str) -> Any:
    types_of = typing.get_type_hints(cls)
    for key in values:
        if key not in types_of:
            near = difflib.get_close_matches(key, types_of, 1, 0.0)
            raise UserError(f"{path}.{key} is unknown; did you mean {path}.{near[0]}?")
    try:
        return cls(
            **{key: _value(types_of[key], value, f"{path}.{key}") for key, value in values.items()}
        )
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error


def _value(expected: Any, value: Any, path: str) -> Any:
    if dataclasses.is_dataclass(expected):
        if not isinstance(value, Mapping) and not hasattr(value, "items"):
            raise UserError(f"{path} is {value!r}; it is a group of settings")
        return _parse(expected, dict(value.items()), path)
    origin = typing.get_origin(expected)
    if origin is tuple:
        items = typing.get_args(expected)
        if not isinstance(value, (tuple, list)):
            raise UserError(f"{path} is {value!r}; it must be a tuple")
        kinds = [items[0]] * len(value) if items[-1] is Ellipsis else items
        return tuple(_value(kind, item, path) for kind, item in zip(kinds, value, strict=True))
    if origin in (types.UnionType, typing.Union) or origin is typing.Literal:
        return value
    if expected is float and type(value) is int:
        return float(value)
    if type(value) is not expected:
        raise UserError(
            f"{path} is {value!r}, of type {type(value).__name__}; it must be {expected.__name__}"
        )
    return value
