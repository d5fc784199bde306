"""The form of a vocabulary and the errors it can have."""

from collections.abc import Iterator

from promptmad_jax.runtime.console import warn
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.strict_yaml import mapping, text, texts

_KEYS = ("name", "normal", "defects")
_NOTE = "licence_note"
_FORM = "class: {name: ..., normal: [...], defects: {type: [...]}}"

States = tuple[tuple[str, tuple[str, ...]], ...]


def parse(document: object, origin: str) -> dict[str, tuple[str, States]]:
    """Parses `[group:] class: {name, normal: [...], defects: {type: [...]}}`.

    Args:
        document: nested mappings, as YAML or JSON gives them.
        origin: the file, for messages.

    Returns:
        By class name the object in words and its states (see `ClassPhrases.states`); of a class in
        several groups those of the first, with a warning.

    Raises:
        UserError: names the file, the class and the key.
    """
    classes: dict[str, tuple[str, States]] = {}
    for where, class_name, entry in _class_entries(document, origin):
        parsed = _parse_class(entry, f"{origin}: {where}{class_name}")
        if classes.setdefault(class_name, parsed) != parsed:
            warn(f"{origin}: class {class_name} is in several groups; the first counts")
    return classes


def _class_entries(document: object, origin: str) -> Iterator[tuple[str, str, object]]:
    """Yields (group and slash or "", class name, entry)."""
    for key, value in mapping(document, origin, f"class or group names with {_FORM}").items():
        if key == _NOTE:
            continue
        entry = mapping(value, f"{origin}: {key}", _FORM)
        if any(field in entry for field in _KEYS):
            yield "", key, entry
        else:
            yield from ((f"{key}/", name, inner) for name, inner in entry.items())


def _parse_class(entry: object, where: str) -> tuple[str, States]:
    entry = mapping(entry, where, _FORM)
    faults = {
        "lacks": [key for key in _KEYS if key not in entry],
        "has": [key for key in entry if key not in _KEYS],
    }
    for verb, keys in faults.items():
        if keys:
            raise UserError(f"{where}: {verb} {', '.join(keys)}; the form is {_FORM}")
    name = text(entry["name"], f"{where}: name")
    defects = mapping(entry["defects"], f"{where}: defects", "defect types to lists of phrases")
    states = [("normal", texts(entry["normal"], f"{where}: normal", "phrase"))]
    for kind, phrases in defects.items():
        states.append((kind, texts(phrases, f"{where}: defects: {kind}", "phrase")))
    return name, tuple(states)
