"""Words for classes: the shipped vocabularies, a user's file, or phrases from the class name."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from promptmad_jax.prompts.vocabulary_file import parse
from promptmad_jax.runtime.console import warn
from promptmad_jax.runtime.names import matching, nearest
from promptmad_jax.runtime.strict_yaml import read_document

_SHIPPED = (
    ("promptmad_jax.prompts", "defect_vocab.json"),
    ("promptmad_jax.data.synthetic", "vocabulary.json"),
)
_NAMED = 5  # in a warning
_DAMAGED = (
    "a photo of a damaged {name}",
    "a photo of a {name} with a defect",
    "a close-up photo of a {name} with visible damage",
    "a photo of a {name} with a flaw",
)
_NORMAL = (
    "a photo of a flawless {name}",
    "a close-up photo of a {name} in perfect condition",
    "a photo of a {name} without any defect",
)


@dataclass(frozen=True)
class ClassPhrases:
    """The phrases of one class.

    Attributes:
        class_name: its name in the data set.
        name: the object in words.
        states: ("normal", phrases), then (defect type, phrases) for each type; no list is empty.
        source: `user`, `shipped` or `generic`.
    """

    class_name: str
    name: str
    states: tuple[tuple[str, tuple[str, ...]], ...]
    source: str


def find_classes(
    class_names: tuple[str, ...], user_file: str, defects: str
) -> tuple[ClassPhrases, ...]:
    """Finds the phrases of each class: the user's, else the shipped, else generic ones.

    Args:
        user_file: path of a YAML or JSON vocabulary, or "".
        defects: `named`, or `generic` for one "damaged" state in place of the defect types.

    Raises:
        UserError: the user's file is absent or malformed.
    """
    own = user_classes(user_file, class_names) if user_file else {}
    known = _shipped() | {matching(name): words for name, words in own.items()}
    found = (_words(known.get(matching(name)), name) for name in class_names)
    if defects == "named":
        return tuple(found)
    return tuple(replace(words, states=(words.states[0], _damaged(words.name))) for words in found)


def _words(known: ClassPhrases | None, class_name: str) -> ClassPhrases:
    if known is None:
        return generic_phrases(class_name)
    return replace(known, class_name=class_name)


def user_classes(user_file: str, class_names: tuple[str, ...]) -> dict[str, ClassPhrases]:
    """Reads a user's vocabulary; warns of entries that are none of the classes."""
    own = read_user_file(Path(user_file).expanduser())
    classes = set(map(matching, class_names))
    unused = sorted(name for name in own if matching(name) not in classes)
    if unused:
        named = [f"{name!r} (nearest: {nearest(name, class_names)!r})" for name in unused[:_NAMED]]
        others = len(unused) - len(named)
        more = f" and {others} more" if others else ""
        warn(f"{user_file}: not classes of this data set: {', '.join(named)}{more}")
    return own


def read_user_file(path: Path) -> dict[str, ClassPhrases]:
    """Reads the classes of a YAML or JSON vocabulary; see `vocabulary_file.parse` for its form."""
    return _read(path, str(path), "user")


@functools.cache
def _shipped() -> Mapping[str, ClassPhrases]:
    known = {}
    for package, name in _SHIPPED:
        known = _read(resources.files(package) / name, f"{package}/{name}", "shipped") | known
    return {matching(name): words for name, words in known.items()}


def _read(file: Path | Traversable, origin: str, source: str) -> dict[str, ClassPhrases]:
    document = read_document(file, "vocabulary", "text.vocabulary")
    return {
        class_name: ClassPhrases(class_name, name, states, source)
        for class_name, (name, states) in parse(document, origin).items()
    }


def generic_phrases(class_name: str) -> ClassPhrases:
    """Phrases from the class name alone: one normal state and one "damaged"."""
    words = " ".join(class_name.replace("_", " ").replace("-", " ").split())
    name = words if any(map(str.isalpha, words)) else f"product {words}".strip()
    normal = tuple(phrase.format(name=name) for phrase in _NORMAL)
    return ClassPhrases(class_name, name, (("normal", normal), _damaged(name)), "generic")


def _damaged(name: str) -> tuple[str, tuple[str, ...]]:
    return "damaged", tuple(phrase.format(name=name) for phrase in _DAMAGED)
