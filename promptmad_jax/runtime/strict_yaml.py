"""YAML and JSON files of a user, read strictly, and the errors they can have."""

import json
from collections.abc import Mapping
from importlib.resources.abc import Traversable
from pathlib import Path

import yaml

from promptmad_jax.runtime.errors import UserError


class _Loader(yaml.SafeLoader):
    """Safe YAML in which a key that stands twice is an error, not a silent loss."""

    def construct_mapping(self, node, deep=False):
        merge = "tag:yaml.org,2002:merge"
        _refuse_repeated(
            [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != merge]
        )
        return super().construct_mapping(node, deep)


def _refuse_repeated(keys: list) -> None:
    repeated = [key for index, key in enumerate(keys) if key in keys[:index]]
    if repeated:
        raise ValueError(f"the key {repeated[0]!r} stands twice")


def _object(pairs: list[tuple[str, object]]) -> dict:
    _refuse_repeated([key for key, _ in pairs])
    return dict(pairs)


def read_document(path: Path | Traversable, what: str, setting: str) -> object:
    """The parsed content of a .yaml, .yml or .json file.

    Args:
        path: the file.
        what: its kind, for messages: "vocabulary".
        setting: what names it, for messages: "text.vocabulary".

    Raises:
        UserError: the file is absent, of another kind or not well-formed.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; {setting} is a .yaml or .json file, or empty")
    suffix = Path(path.name).suffix
    if suffix not in (".json", ".yaml", ".yml"):
        raise UserError(f"{path}: a {what} is a .yaml, .yml or .json file")
    try:
        text = path.read_text(encoding="utf-8")
        if suffix == ".json":
            return json.loads(text, object_pairs_hook=_object)
        return yaml.load(text, _Loader)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path}: not well-formed: {' '.join(str(error).split())}") from error


def mapping(value: object, where: str, wanted: str) -> Mapping[str, object]:
    """The value, if it maps texts.

    Args:
        where: file and place, for messages.
        wanted: what it must map, for messages.

    Raises:
        UserError: it does not.
    """
    if not isinstance(value, Mapping):
        raise UserError(f"{where}: is {shown(value)}; it must map {wanted}")
    for key in value:
        if not isinstance(key, str):
            raise UserError(
                f"{where}: the key {key!r} is no text (YAML reads unquoted 01, no, on "
                "as numbers or truth values); put it in quotes"
            )
    return value


def texts(value: object, where: str, what: str) -> tuple[str, ...]:
    """The stripped texts of a list of at least one; `what` is the word for one of them.

    Raises:
        UserError: it is no such list.
    """
    if not isinstance(value, list) or not value:
        raise UserError(f"{where}: is {shown(value)}; it must be a list of at least one {what}")
    return tuple(text(item, f"{where}: item {index}") for index, item in enumerate(value, 1))


def text(value: object, where: str) -> str:
    """The stripped text.

    Raises:
        UserError: it is none, or empty.
    """
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}: is {shown(value)}; it must be a text that is not empty")
    return value.strip()


def shown(value: object) -> str:
    """A value as messages show it: cut to 60 characters."""
    words = "empty" if value is None else repr(value)
    return words if len(words) <= 60 else f"{words[:57]}..."
