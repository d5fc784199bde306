"""The file form of a vocabulary, YAML or JSON, and the errors it can have."""

import json
from collections.abc import Mapping
from importlib.resources.abc import Traversable
from pathlib import Path

import yaml
from absl import logging

from promptmad_jax.runtime.errors import UserError

_KEYS = ("name", "normal", "defects")
_NOTE = "licence_note"
_FORM = "class: {name: ..., normal: [...], defects: {type: [...]}}"

States = tuple[tuple[str, tuple[str, ...]], ...]


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


def read_document(path: Path | Traversable) -> object:
    """The parsed content of a .yaml, .yml or .json file.

    Raises:
        UserError: the file is absent, of another kind or not well-formed.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; text.vocabulary is a .yaml or .json file, or empty")
    suffix = Path(path.name).suffix
    if suffix not in (".json", ".yaml", ".yml"):
        raise UserError(f"{path}: a vocabulary is a .yaml, .yml or .json file")
    try:
        text = path.read_text(encoding="utf-8")
        if suffix == ".json":
            return json.loads(text, object_pairs_hook=_object)
        return yaml.load(text, _Loader)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path}: not well-formed: {' '.join(str(error).split())}") from error


def parse(document: object, origin: str) -> dict[str, tuple[str, States]]:
    """Classes of a document `[group:] class: {name, normal: [...], defects: {type: [...]}}`.

    A class that stands in several groups is taken from the first, with a warning.

    Args:
        document: nested mappings, as YAML or JSON gives them.
        origin: the file, for messages.

    Returns:
        by class name: the object in words, and its states (see `ClassPhrases.states`).

    Raises:
        UserError: names the file, the class and the key.
    """
    classes: dict[str, tuple[str, States]] = {}
    for where, class_name, entry in _class_entries(document, origin):
        parsed = _parse_class(entry, f"{origin}: {where}{class_name}")
        if class_name in classes and classes[class_name] != parsed:
            logging.warning(
                "%s: class %s stands in several groups; the first counts", origin, class_name
            )
        classes.setdefault(class_name, parsed)
    return classes


def _class_entries(document: object, origin: str):
    """Yields (group and slash or "", class name, entry)."""
    for key, value in _mapping(document, origin, f"class or group names with {_FORM}").items():
        if key == _NOTE:
            continue
        entry = _mapping(value, f"{origin}: {key}", _FORM)
        if any(field in entry for field in _KEYS):
            yield "", key, entry
        else:
            yield from ((f"{key}/", name, inner) for name, inner in entry.items())


def _parse_class(entry: object, where: str) -> tuple[str, States]:
    entry = _mapping(entry, where, _FORM)
    missing = [key for key in _KEYS if key not in entry]
    unknown = [key for key in entry if key not in _KEYS]
    if missing:
        raise UserError(f"{where}: lacks {', '.join(missing)}; the form is {_FORM}")
    if unknown:
        raise UserError(f"{where}: has {', '.join(unknown)}; the form is {_FORM}")
    name = _phrase(entry["name"], f"{where}: name")
    defects = _mapping(entry["defects"], f"{where}: defects", "defect types to lists of phrases")
    normal = ("normal", _phrases(entry["normal"], f"{where}: normal"))
    return name, (
        normal,
        *(
            (kind, _phrases(phrases, f"{where}: defects: {kind}"))
            for kind, phrases in defects.items()
        ),
    )


def _mapping(value: object, where: str, wanted: str) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise UserError(f"{where}: is {_shown(value)}; it must map {wanted}")
    for key in value:
        if not isinstance(key, str):
            raise UserError(
                f"{where}: the key {key!r} is no text (YAML reads unquoted 01, no, on "
                "as numbers or truth values); put it in quotes"
            )
    return value


def _phrases(value: object, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise UserError(f"{where}: is {_shown(value)}; it must be a list of at least one phrase")
    return tuple(_phrase(item, f"{where}: item {index}") for index, item in enumerate(value, 1))


def _phrase(value: object, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{where}: is {_shown(value)}; it must be a text that is not empty")
    return value.strip()


def _shown(value: object) -> str:
    text = "empty" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
