"""Strict reading of users' YAML and JSON files."""

import codecs
import json
from collections.abc import Mapping
from importlib.resources.abc import Traversable
from pathlib import Path

import yaml

from promptmad_jax.runtime.errors import UserError


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a repeated key instead of silently dropping its first value."""

    def construct_mapping(self, node, deep=False):
        merge = "tag:yaml.org,2002:merge"
        keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != merge]
        _refuse_repeated(keys)
        return super().construct_mapping(node, deep)


def _refuse_repeated(keys: list) -> None:
    repeated = [key for index, key in enumerate(keys) if key in keys[:index]]
    if repeated:
        raise ValueError(f"the key {repeated[0]!r} is repeated")


def _object(pairs: list[tuple[str, object]]) -> dict:
    _refuse_repeated([key for key, _ in pairs])
    return dict(pairs)


def read_document(path: Path | Traversable, what: str, setting: str) -> object:
    """Parses a .yaml, .yml or .json file.

    Args:
        what: the kind of file, for messages: "vocabulary".
        setting: the setting that names it, for messages: "text.vocabulary".

    Raises:
        UserError: the file is missing, of another kind or malformed.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; {setting} is a .yaml or .json file, or empty")
    suffix = Path(path.name).suffix.lower()
    if suffix not in (".json", ".yaml", ".yml"):
        raise UserError(f"{path}: a {what} is a .yaml, .yml or .json file")
    try:
        text = decode(path.read_bytes())
        if suffix == ".json":
            return json.loads(text, object_pairs_hook=_object)
        return yaml.load(text, _Loader)
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{path}: malformed: {' '.join(str(error).split())}") from error


def decode(data: bytes) -> str:
    """Decodes UTF-8 or UTF-16 with its byte-order mark, or UTF-8 without one.

    Raises:
        UnicodeDecodeError: it is neither.
    """
    encoding = (
        "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    )
    return data.decode(encoding)


def mapping(value: object, where: str, wanted: str) -> Mapping[str, object]:
    """Returns the value if it is a mapping with text keys.

    Args:
        where: file and place, for messages.
        wanted: what it must map, for messages.

    Raises:
        UserError: it is something else.
    """
    if not isinstance(value, Mapping):
        raise UserError(f"{where}: is {shown(value)}; it must map {wanted}")
    for key in value:
        if not isinstance(key, str):
            raise UserError(
                f"{where}: the key {key!r} is not text (YAML reads unquoted 01, no, on as numbers "
                "or truth values); put it in quotes"
            )
    return value


def texts(value: object, where: str, what: str) -> tuple[str, ...]:
    """Returns the stripped texts of a list that is not empty, of which `what` names an item.

    Raises:
        UserError: it is something else.
    """
    if not isinstance(value, list) or not value:
        raise UserError(f"{where}: is {shown(value)}; it must be a list of at least one {what}")
    return tuple(text(item, f"{where}: item {index}") for index, item in enumerate(value, 1))


def text(value: object, where: str) -> str:
    """Returns the stripped text; raises UserError if it is empty or not a text."""
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}: is {shown(value)}; it must be a text that is not empty")
    return value.strip()


def shown(value: object) -> str:
    """Returns a value for a message, cut to 60 characters."""
    words = "empty" if value is None else repr(value)
    return words if len(words) <= 60 else f"{words[:57]}..."
