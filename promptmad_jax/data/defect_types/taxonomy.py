"""Defect types of the data sets: the type of each folder or label, and words for the types."""

import dataclasses
import functools
import json
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path

from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.names import matching
from promptmad_jax.runtime.strict_yaml import mapping, read_document, texts

FOLDERS = "folders"
NORMAL = 0
UNKNOWN = 255  # Id of a defect of unknown type.
LARGEST_ID = UNKNOWN - 1
_GOOD = "good"
_SETTING = "data.taxonomy"
_SOURCE = "(source.taxonomy for the training data)"
_FORM = "types: {TYPE: {words: [...], folders: [...]}}, without_type: [...]"


@dataclasses.dataclass(frozen=True)
class DefectType:
    """One type.

    Attributes:
      name: the type.
      words: its names in prompts, of which the first is used.
      folders: the folders or labels of the data set that are of this type.
    """

    name: str
    words: tuple[str, ...]
    folders: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Taxonomy:
    """The types of a data set; the id of `types[k - 1]` is k, and `NORMAL` is 0.

    Attributes:
      dataset: the data set.
      types: in the order of their ids.
      without_type: folders or labels that are known to have no type.
      source: "shipped", "folders" (each folder is a type), or the path of the user's file.
    """

    dataset: str
    types: tuple[DefectType, ...]
    without_type: tuple[str, ...]
    source: str

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the K types; that of id k is at place k - 1."""
        return tuple(defect.name for defect in self.types)

    @property
    def words(self) -> tuple[str, ...]:
        """The word for each of the K types in prompts."""
        return tuple(defect.words[0] for defect in self.types)

    def id_of(self, folder: str) -> int:
        """The id of a folder's or label's type, in any letter case; `UNKNOWN` if it has no type.

        Raises:
          UserError: the taxonomy lacks the folder.
        """
        key = _key(folder)
        for number, defect in enumerate(self.types, start=1):
            if key in map(_key, defect.folders):
                return number
        if key in map(_key, self.without_type):
            return UNKNOWN
        raise UserError(
            f"{self.dataset}: the type of the defect folder {folder!r} is not known (taxonomy:"
            f" {self.source}); name it in a .yaml file ({_FORM}) with {_SETTING}=FILE {_SOURCE}"
        )


def find_taxonomy(dataset: str, setting: str, folders: Iterable[str]) -> Taxonomy:
    """Finds the taxonomy of a data set.

    Args:
      dataset: its name, with or without `:VERSION`.
      setting: "" for the shipped one; "folders" to make each folder a type named after it; or a
        user's .yaml or .json file of the form `types: {TYPE: {words: [...], folders: [...]}},
        without_type: [...]`, which takes precedence over the shipped one.
      folders: the data set's defect folders, for "folders"; "good" is ignored.

    Raises:
      UserError: the data set's types are not known, or the file is malformed.
    """
    name = dataset.partition(":")[0]
    if setting == FOLDERS:
        return _of_folders(name, folders)
    shipped, untyped = _shipped()
    if setting:
        path = Path(setting).expanduser()
        own = _parse(read_document(path, "taxonomy", _SETTING), str(path), name, str(path))
        return _overlay(own, shipped[name]) if name in shipped else own
    if name in shipped:
        return shipped[name]
    others = f"only those of {', '.join(sorted(shipped))} are"
    reason = untyped.get(name, others)
    raise UserError(
        f"{name}: its defect types are not known: {reason}; name them in a .yaml file ({_FORM})"
        f" with {_SETTING}=FILE, or take each folder as a type with {_SETTING}={FOLDERS} {_SOURCE}"
    )


@functools.cache
def _shipped() -> tuple[Mapping[str, Taxonomy], Mapping[str, str]]:
    """The shipped taxonomies, and for the other data sets the reason why they have none."""
    file = resources.files("promptmad_jax.data.defect_types") / "taxonomy.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    taxonomies = {
        name: _parse(value, f"{file}: {name}", name, "shipped")
        for name, value in document["datasets"].items()
    }
    return taxonomies, document["untyped"]


def _of_folders(dataset: str, folders: Iterable[str]) -> Taxonomy:
    names = sorted({folder for folder in folders if folder != _GOOD})
    types = tuple(DefectType(name, (_in_words(name),), (name,)) for name in names)
    taxonomy = Taxonomy(dataset, types, (), FOLDERS)
    _check(taxonomy, f"{dataset}: {_SETTING}={FOLDERS}")
    return taxonomy


def _in_words(folder: str) -> str:
    return " ".join(folder.replace("_", " ").replace("-", " ").split()) or folder


def _parse(document: object, where: str, dataset: str, source: str) -> Taxonomy:
    fields = _check_keys(mapping(document, where, _FORM), where, ("types",), ("without_type",))
    types = mapping(fields["types"], f"{where}: types", "types to words and folders")
    without: tuple[str, ...] = ()
    if fields.get("without_type"):
        without = texts(fields["without_type"], f"{where}: without_type", "folder")
    parsed = tuple(_parse_type(name, entry, where) for name, entry in types.items())
    taxonomy = Taxonomy(dataset, parsed, without, source)
    _check(taxonomy, where)
    return taxonomy


def _parse_type(name: str, entry: object, where: str) -> DefectType:
    where = f"{where}: {name}"
    fields = mapping(entry, where, "words and folders to lists")
    _check_keys(fields, where, ("words", "folders"))
    words = texts(fields["words"], f"{where}: words", "word")
    return DefectType(name, words, texts(fields["folders"], f"{where}: folders", "folder"))


def _check_keys(
    fields: Mapping[str, object],
    where: str,
    needed: tuple[str, ...],
    optional: tuple[str, ...] = (),
) -> Mapping[str, object]:
    missing = [key for key in needed if key not in fields]
    unknown = [key for key in fields if key not in needed + optional]
    if missing or unknown:
        fault = f"has {', '.join(unknown)}" if unknown else f"lacks {', '.join(missing)}"
        raise UserError(f"{where}: {fault}; the form is {_FORM}")
    return fields


def _check(taxonomy: Taxonomy, where: str) -> None:
    if not 1 <= len(taxonomy.types) <= LARGEST_ID:
        raise UserError(f"{where}: {len(taxonomy.types)} types; there may be 1 to {LARGEST_ID}")
    places: dict[str, str] = {}
    for place, folders in (*_places(taxonomy), ("without_type", taxonomy.without_type)):
        for folder in folders:
            if _key(folder) in places:
                other = places[_key(folder)]
                raise UserError(f"{where}: the folder {folder!r} is in {other} and in {place}")
            places[_key(folder)] = place
    if _GOOD in places:
        raise UserError(f"{where}: {places[_GOOD]}: the folder good is normal, not a defect")
    if _GOOD in map(_key, taxonomy.names) or "normal" in map(_key, taxonomy.names):
        raise UserError(f"{where}: a type cannot be called good or normal")


def _places(taxonomy: Taxonomy) -> Iterable[tuple[str, tuple[str, ...]]]:
    return ((defect.name, defect.folders) for defect in taxonomy.types)


def _overlay(own: Taxonomy, shipped: Taxonomy) -> Taxonomy:
    """The user's types and folders, and those shipped ones that the user's do not mention."""
    taken = {_key(folder) for _, folders in _places(own) for folder in folders}
    taken |= set(map(_key, own.without_type))
    mine = {defect.name: defect for defect in own.types}
    types = []
    for defect in shipped.types:
        rest = tuple(folder for folder in defect.folders if _key(folder) not in taken)
        new = mine.pop(defect.name, None)
        if new is not None:
            types.append(dataclasses.replace(new, folders=new.folders + rest))
        elif rest:
            types.append(dataclasses.replace(defect, folders=rest))
    without = tuple(folder for folder in shipped.without_type if _key(folder) not in taken)
    types = (*types, *mine.values())
    return Taxonomy(own.dataset, types, own.without_type + without, own.source)


def _key(folder: str) -> str:
    return matching(" ".join(folder.split()))
