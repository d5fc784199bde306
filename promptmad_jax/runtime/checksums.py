"""A list of checksums inside a directory, by which a changed, cut or missing file is noticed."""

import hashlib
import json
from collections.abc import Collection, Iterator

from etils import epath

CHECKSUM_FILE = "checksums.json"
_CHUNK_BYTES = 1 << 22


def write_checksums(directory: epath.Path, unsummed: Collection[str] = ()) -> None:
    """Writes the SHA-256 of every file below `directory` to its `checksums.json`.

    The files called one of `unsummed` may still change, or be made; later they must only be there.
    """
    sums = {
        name: _sha256(path)
        for name, path in _files(directory)
        if name not in (*unsummed, CHECKSUM_FILE)
    }
    listed = {"files": sums, "unsummed": sorted(unsummed)}
    table = listed | {"sha256": _own_sum(listed)}
    (directory / CHECKSUM_FILE).write_text(json.dumps(table, indent=1, sort_keys=True) + "\n")


def find_damage(directory: epath.Path) -> str | None:
    """What is wrong with the files below `directory`, or None; files that are not listed may be
    there."""
    path = directory / CHECKSUM_FILE
    if not path.exists():
        return f"{CHECKSUM_FILE} is missing"
    try:
        table = json.loads(path.read_bytes())
        listed = {"files": table["files"], "unsummed": table["unsummed"]}
        intact = table["sha256"] == _own_sum(listed)
    except (ValueError, KeyError, TypeError):
        intact = False
    if not intact:
        return f"{CHECKSUM_FILE} was changed"
    there = dict(_files(directory))
    missing = sorted((listed["files"].keys() | set(listed["unsummed"])) - there.keys())
    if missing:
        return f"{missing[0]} is missing"
    changed = (name for name, value in listed["files"].items() if _sha256(there[name]) != value)
    name = next(changed, None)
    return None if name is None else f"{name} was changed or cut short"


def _files(directory: epath.Path, prefix: str = "") -> Iterator[tuple[str, epath.Path]]:
    """Every file below `directory`, with its path from there."""
    for path in sorted(directory.iterdir()):
        if path.is_dir():
            yield from _files(path, f"{prefix}{path.name}/")
        else:
            yield f"{prefix}{path.name}", path


def _sha256(path: epath.Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _own_sum(listed: dict) -> str:
    return hashlib.sha256(json.dumps(listed, sort_keys=True).encode()).hexdigest()
