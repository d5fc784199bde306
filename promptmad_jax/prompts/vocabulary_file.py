"""The form of a vocabulary and the errors it can have."""

from absl import logging

from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.strict_yaml import mapping, text, texts

_KEYS = ("name", "normal", "defects")
_NOTE = "licence_note"
_FORM = "class: {name: ..., normal: [...], defects: {type: [...]}}"

States = tuple[tuple[str, tuple[str, ...]], ...]


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
    missing = [key for key in _KEYS if key not in entry]
    unknown = [key for key in entry if key not in _KEYS]
    if missing:
        raise UserError(f"{where}: lacks {', '.join(missing)}; the form is {_FORM}")
    if unknown:
        raise UserError(f"{where}: has {', '.join(unknown)}; the form is {_FORM}")
    name = text(entry["name"], f"{where}: name")
    defects = mapping(entry["defects"], f"{where}: defects", "defect types to lists of phrases")
    normal = ("normal", texts(entry["normal"], f"{where}: normal", "phrase"))
    return name, (
        normal,
        *(
            (kind, texts(phrases, f"{where}: defects: {kind}", "phrase"))
            for kind, phrases in defects.items()
        ),
    )
