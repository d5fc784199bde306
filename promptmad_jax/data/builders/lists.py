"""Listing by the interchange lists of other projects.

- JSON lines (UniAD, OneNIP), one file for train and one for test: `{"filename", "clsname", "label",
  "label_name", "maskname"}`; no `maskname` means an all-zero mask for label 0, all one for label 1.
- `meta.json` (AnomalyCLIP and relatives): `{"train"|"test": {class: [{"img_path", "mask_path",
  "cls_name", "specie_name", "anomaly"}]}}`.
"""

import json
import pathlib
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from promptmad_jax.data.builders.records import GOOD, Entry, Found
from promptmad_jax.data.paths import printable
from promptmad_jax.runtime.errors import UserError

_SPLITS = ("train", "test")
_UNTYPED = "defective"


class _BadEntry(Exception):
    """An entry of a list that is incomplete or contradicts itself."""


def find_in_list(path: pathlib.Path, image_dir: str = "") -> Found:
    """Lists the images that a list file names.

    Args:
      path: a `meta.json`, or a JSON-lines file. If the name of the latter contains "train" or
        "test", the other half is the file beside it with the other word; otherwise the folders in
        the image names decide the split.
      image_dir: the folder that the names are relative to; the list's own folder by default.

    Raises:
      UserError: the file is no such list, or none of its images exists.
    """
    base = pathlib.Path(image_dir) if image_dir else path.parent
    found = Found(source=path)
    text = _read(path)
    meta = _as_meta(text)
    if meta is not None:
        _add(found, base, path, _meta_entries(meta))
    else:
        for list_file in _both_lists(found, path):
            _add(found, base, list_file, _line_entries(list_file, _read(list_file)))
    _drop_leaks(found)
    if not found.entries:
        raise UserError(f"{printable(path)}: no usable entry; {_first_reason(found)}")
    if not any(entry.image.exists() for entry in found.entries):
        raise UserError(
            f"{printable(path)}: none of its {len(found.entries)} images is below"
            f" {printable(base)}; give their folder with --image_dir"
        )
    return found


def list_files(path: pathlib.Path) -> list[pathlib.Path]:
    """The list file and, for JSON lines, its other half if it exists."""
    match = re.search("train|test", path.stem)
    if match is None or _as_meta(_read(path)) is not None:
        return [path]
    word = match[0]
    other = _SPLITS[1 - _SPLITS.index(word)]
    sibling = path.with_name(path.stem.replace(word, other) + path.suffix)
    return sorted([path, sibling]) if sibling.exists() else [path]


def _read(path: pathlib.Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{printable(path)}: not a readable UTF-8 list ({error})") from error


def _as_meta(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return None
    is_meta = isinstance(value, dict) and any(isinstance(value.get(s), dict) for s in _SPLITS)
    return value if is_meta else None


def _both_lists(found: Found, path: pathlib.Path) -> list[pathlib.Path]:
    files = list_files(path)
    if len(files) == 1 and re.search("train|test", path.stem):
        found.note(path.name, "list", "no list of the other split beside it", "used alone")
    return files


# Position in the list, split, and the fields of an entry (or why it has none).
_Item = tuple[str, str, dict[str, Any] | _BadEntry]


def _meta_entries(meta: dict[str, Any]) -> Iterator[_Item]:
    for split in _SPLITS:
        for class_name, items in meta.get(split, {}).items():
            for number, item in enumerate(items):
                where = f"{split}/{class_name}[{number}]"
                yield where, split, _guarded(_from_meta, item)


def _line_entries(path: pathlib.Path, text: str) -> Iterator[_Item]:
    match = re.search("train|test", path.stem)
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        fields = _guarded(_from_line, line)
        split = match[0] if match else _split_of(fields)
        yield f"line {number}", split, fields


def _guarded(parse: Any, item: Any) -> dict[str, Any] | _BadEntry:
    try:
        return parse(item)
    except json.JSONDecodeError as error:
        return _BadEntry(f"not JSON ({error.msg})")
    except KeyError as error:
        return _BadEntry(f"the key {error} is missing")
    except (TypeError, AttributeError, ValueError) as error:
        return _BadEntry(f"not an entry of this list format ({error})")


def _from_line(line: str) -> dict[str, Any]:
    item = json.loads(line)
    filename = _path(item["filename"])
    defective = _label(item["label"])
    named = item.get("label_name", _UNTYPED)
    parts = filename.split("/")
    folder = parts[-2] if len(parts) > 2 and parts[-3] == "test" else _UNTYPED
    return {
        "filename": filename,
        "class_name": _name(item["clsname"]),
        "defect_type": _defect(folder if named == _UNTYPED else named, defective),
        "mask": _path(item["maskname"]) if item.get("maskname") else "",
        "without_mask": "one" if defective else "zero",
    }


def _from_meta(item: dict[str, Any]) -> dict[str, Any]:
    defective = _label(item["anomaly"])
    return {
        "filename": _path(item["img_path"]),
        "class_name": _name(item["cls_name"]),
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
    if name == GOOD:
        raise ValueError("labelled defective and named good")
    return _name(name)


def _path(name: Any) -> str:
    return _name(name).replace("\\", "/")


def _name(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{value!r} is not a name")
    return value


def _split_of(fields: dict[str, Any] | _BadEntry) -> str:
    if isinstance(fields, _BadEntry):
        return ""
    folders = fields["filename"].lower().split("/")[:-1]
    return next((split for split in _SPLITS if split in folders), "")


def _add(found: Found, base: pathlib.Path, path: pathlib.Path, items: Iterator[_Item]) -> None:
    times: Counter[tuple[str, str]] = Counter()
    for where, split, fields in items:
        place = f"{path.name}: {where}"
        if isinstance(fields, _BadEntry):
            found.note(place, "bad_entry", str(fields))
        elif not split:
            found.note(place, "bad_entry", "neither the list nor its folders say train or test")
        else:
            times[split, fields["filename"]] += 1
            if times[split, fields["filename"]] == 1:
                _add_entry(found, base, split, fields)
    for (split, filename), count in times.items():
        if count > 1:
            found.note(filename, "duplicate", f"listed {count} times in {split}", "kept once")


def _add_entry(found: Found, base: pathlib.Path, split: str, fields: dict[str, Any]) -> None:
    found.class_names.add(fields["class_name"])
    if split == "train" and fields["defect_type"] != GOOD:
        found.note(fields["filename"], "bad_entry", "a defective image in the training list")
        return
    found.entries.append(
        Entry(
            split=split,
            class_name=fields["class_name"],
            defect_type=fields["defect_type"],
            filename=fields["filename"],
            image=base / fields["filename"],
            masks=(base / fields["mask"],) if fields["mask"] and split == "test" else (),
            without_mask=fields["without_mask"],
        )
    )


def _drop_leaks(found: Found) -> None:
    """Drops test images that are training images too, which would flatter the metrics."""
    train = {entry.filename for entry in found.entries if entry.split == "train"}
    for entry in found.entries:
        if entry.split == "test" and entry.filename in train:
            found.note(entry.filename, "leak", "listed in train and in test", "kept in train alone")
    found.entries = [e for e in found.entries if e.split == "train" or e.filename not in train]


def _first_reason(found: Found) -> str:
    problem = next((p for p in found.problems if p.kind == "bad_entry"), None)
    return f"{problem.file}: {problem.reason}" if problem else "the list is empty"
