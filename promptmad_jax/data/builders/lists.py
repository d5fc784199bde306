"""Listing by the interchange lists of other projects.

- JSON lines (UniAD, OneNIP), one file for train and one for test: `{"filename", "clsname", "label",
  "label_name", "maskname"}`; no `maskname` means an all-zero mask for label 0, all one for label 1.
- `meta.json` (AnomalyCLIP and relatives): `{"train"|"test": {class: [{"img_path", "mask_path",
  "cls_name", "specie_name", "anomaly"}]}}`.

Files may be UTF-8 or UTF-16, with any line ends. Names are matched across case and Unicode.
"""

import json
import os
import pathlib
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from promptmad_jax.data.builders.records import GOOD, Entry, Found
from promptmad_jax.data.paths import name_fault, printable
from promptmad_jax.data.user_files import ListedFiles
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.names import matching
from promptmad_jax.runtime.strict_yaml import decode

_SPLITS = ("train", "test")
_LONGEST_NAME = 255  # bytes that file systems allow
_UNTYPED = "defective"


class _BadEntry(Exception):
    """An entry of a list that is incomplete or contradicts itself."""


def find_in_list(path: pathlib.Path, image_dir: str = "") -> Found:
    """Lists the images that a list file names.

    Args:
      path: a `meta.json`, or a JSON-lines file. If one of the words in the name of the latter is
        "train" or "test", the last of them is its split, and the other half is the file beside it
        with the other word; otherwise the last such folder in an image's name decides.
      image_dir: the folder that the names are relative to; the list's own folder by default.

    Raises:
      UserError: the file is no such list, or none of its images exists.
    """
    base = pathlib.Path(image_dir).expanduser() if image_dir else path.parent
    found, files = Found(source=path), ListedFiles(base)
    meta = _as_meta(read_text(path))
    if meta is not None:
        _add(found, files, path, _meta_entries(meta))
    else:
        for list_file in _both_lists(found, path):
            _add(found, files, list_file, _line_entries(list_file, read_text(list_file)))
    _drop_leaks(found)
    if not found.entries:
        raise UserError(f"{printable(path)}: no usable entry; {_first_reason(found)}")
    if not any(os.path.exists(entry.image) for entry in found.entries):
        raise UserError(
            f"{printable(path)}: none of its {len(found.entries)} images is below"
            f" {printable(base)}; give their folder with --image_dir"
        )
    return found


def list_files(path: pathlib.Path) -> list[pathlib.Path]:
    """The list file and, for JSON lines, its other half if it exists."""
    word = _split_word(path)
    if word is None or _as_meta(read_text(path)) is not None:
        return [path]
    other = _SPLITS[1 - _SPLITS.index(word[0].lower())]
    name = path.stem[: word.start()] + other + path.stem[word.end() :] + path.suffix
    sibling = ListedFiles(path.parent)(name)
    return sorted([path, sibling]) if sibling.exists() else [path]


def _split_word(path: pathlib.Path) -> re.Match[str] | None:
    """The last word of a file's name that is a split; words may be joined as in `myTrain2`."""
    words = re.finditer(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[^\W\d_A-Za-z]+", path.stem)
    return next((word for word in reversed(list(words)) if word[0].lower() in _SPLITS), None)


def read_text(path: pathlib.Path) -> str:
    """Reads a list.

    Raises:
      UserError: it is missing, or neither UTF-8 nor UTF-16.
    """
    try:
        return decode(path.read_bytes())
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{printable(path)}: not a readable list ({reason})") from error


def _as_meta(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    is_meta = isinstance(value, dict) and any(isinstance(value.get(s), dict) for s in _SPLITS)
    return value if is_meta else None


def _both_lists(found: Found, path: pathlib.Path) -> list[pathlib.Path]:
    files = list_files(path)
    if len(files) == 1 and _split_word(path):
        found.note(path.name, "list", "no list of the other split beside it", "used alone")
    return files


# Position in the list, split, and the fields of an entry (or why it has none).
_Item = tuple[str, str, dict[str, Any] | _BadEntry]


def _meta_entries(meta: dict[str, Any]) -> Iterator[_Item]:
    for split in _SPLITS:
        for class_name, items in (meta.get(split) or {}).items():
            for number, item in enumerate(items if isinstance(items, list) else [items]):
                where = f"{split}/{class_name}[{number}]"
                yield where, split, _guarded(_from_meta, item)


def _line_entries(path: pathlib.Path, text: str) -> Iterator[_Item]:
    word = _split_word(path)
    # Not `splitlines`, which also splits at marks that a JSON text may contain.
    for number, line in enumerate(re.split("\r\n|\r|\n", text), start=1):
        if not line.strip():
            continue
        fields = _guarded(_from_line, line)
        split = word[0].lower() if word else _split_of(fields)
        yield f"line {number}", split, fields


def _guarded(parse: Any, item: Any) -> dict[str, Any] | _BadEntry:
    try:
        return parse(item)
    except json.JSONDecodeError as error:
        return _BadEntry(f"not JSON ({error.msg})")
    except KeyError as error:
        return _BadEntry(f"the key {error} is missing")
    except (TypeError, AttributeError, ValueError, RecursionError) as error:
        return _BadEntry(f"not an entry of this list format ({error})")


def _from_line(line: str) -> dict[str, Any]:
    item = json.loads(line)
    filename = _path(item["filename"])
    defective = _label(item["label"])
    named = item.get("label_name", _UNTYPED)
    parts = filename.split("/")
    folder = parts[-2] if len(parts) > 2 and matching(parts[-3]) == "test" else _UNTYPED
    return {
        "filename": filename,
        "class_name": _class_name(item["clsname"]),
        "defect_type": _defect(folder if named == _UNTYPED else named, defective),
        "mask": _path(item["maskname"]) if item.get("maskname") else "",
        "without_mask": "one" if defective else "zero",
    }


def _from_meta(item: dict[str, Any]) -> dict[str, Any]:
    defective = _label(item["anomaly"])
    return {
        "filename": _path(item["img_path"]),
        "class_name": _class_name(item["cls_name"]),
        "defect_type": _defect(item["specie_name"] or _UNTYPED, defective),
        "mask": _path(item["mask_path"]) if item["mask_path"] else "",
        "without_mask": "error" if defective else "zero",
    }


def _label(value: Any) -> bool:
    if value not in (0, 1):
        raise ValueError(f"label {value!r} is neither 0 nor 1")
    return bool(value)


def _defect(name: Any, defective: bool) -> str:
    if not defective:
        return GOOD
    if isinstance(name, str) and matching(name) == GOOD:
        raise ValueError("labelled defective and named good")
    return _name(name)


def _class_name(name: Any) -> str:
    if fault := name_fault(_name(name)):
        raise ValueError(fault)
    return name


def _path(name: Any) -> str:
    path = _name(name).replace("\\", "/")
    if any(len(part.encode()) > _LONGEST_NAME for part in path.split("/")) or "\0" in path:
        raise ValueError(f"{path[:40]!r}... is not a file name")
    return path


def _name(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{value!r} is not a name")
    return value


def _split_of(fields: dict[str, Any] | _BadEntry) -> str:
    if isinstance(fields, _BadEntry):
        return ""
    folders = [matching(folder) for folder in fields["filename"].split("/")[:-1]]
    return next((folder for folder in reversed(folders) if folder in _SPLITS), "")


def _add(found: Found, files: ListedFiles, path: pathlib.Path, items: Iterator[_Item]) -> None:
    times: Counter[tuple[str, str]] = Counter()
    for where, split, fields in items:
        place = f"{path.name}: {where}"
        if isinstance(fields, _BadEntry):
            found.note(place, "bad_entry", str(fields))
        elif not split:
            found.note(place, "bad_entry", "neither the list nor its folders say train or test")
        else:
            image = files(fields["filename"])
            fields["filename"] = files.name_of(image)
            times[split, fields["filename"]] += 1
            if times[split, fields["filename"]] == 1:
                mask = files(fields["mask"]) if fields["mask"] else None
                _add_entry(found, split, fields, image, mask)
    for (split, filename), count in times.items():
        if count > 1:
            found.note(filename, "duplicate", f"listed {count} times in {split}", "kept once")


def _add_entry(
    found: Found,
    split: str,
    fields: dict[str, Any],
    image: pathlib.Path,
    mask: pathlib.Path | None,
) -> None:
    class_name, defect_type = found.first_spelling(fields["class_name"]), fields["defect_type"]
    if split == "test" or defect_type != GOOD:
        defect_type = found.add_type(class_name, defect_type)
    if split == "train" and defect_type != GOOD:
        found.note(fields["filename"], "bad_entry", "a defective image in the training list")
        return
    found.entries.append(
        Entry(
            split=split,
            class_name=class_name,
            defect_type=defect_type,
            filename=fields["filename"],
            image=image,
            masks=(mask,) if mask else (),
            without_mask=fields["without_mask"],
        )
    )


def _drop_leaks(found: Found) -> None:
    """Drops test images that are training images too, which would flatter the metrics, and
    training images that are defective in the test list."""
    tests = [entry for entry in found.entries if entry.split == "test"]
    defective = {entry.filename for entry in tests if entry.label}
    for entry in found.entries:
        if entry.split == "train" and entry.filename in defective:
            reason = "listed as normal in train and as defective in test"
            found.note(entry.filename, "leak", reason, "kept in test alone")
    found.entries = [e for e in found.entries if e.split == "test" or e.filename not in defective]
    train = {entry.filename for entry in found.entries if entry.split == "train"}
    for entry in tests:
        if entry.filename in train:
            found.note(entry.filename, "leak", "listed in train and in test", "kept in train alone")
    found.entries = [e for e in found.entries if e.split == "train" or e.filename not in train]


def _first_reason(found: Found) -> str:
    problem = next((p for p in found.problems if p.kind == "bad_entry"), None)
    return f"{problem.file}: {problem.reason}" if problem else "the list is empty"
