"""A list of checksums in a directory, to detect changed, truncated and missing files."""

import hashlib
import json
from collections.abc import Collection

from etils import epath

CHECKSUM_FILE = "checksums.json"


def write_checksums(directory: epath.Path, unsummed: Collection[str] = ()) -> None:
    """Writes the SHA-256 of every file below `directory` to its `checksums.json`.

    Files in `unsummed` may still change or be created; later they only have to exist.
    """
    excluded = (*unsummed, CHECKSUM_FILE)
    files = _files(directory).items()
    sums = {name: _sha256(path) for name, path in files if name not in excluded}
    listed = {"files": sums, "unsummed": sorted(unsummed)}
    table = listed | {"sha256": _own_sum(listed)}
    (directory / CHECKSUM_FILE).write_text(json.dumps(table, indent=1, sort_keys=True) + "\n")


def find_damage(directory: epath.Path) -> str | None:
    """Describes the first damage to the listed files, or returns None; other files may exist."""
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
    found = _files(directory)
    missing = sorted((listed["files"].keys() | set(listed["unsummed"])) - found.keys())
    if missing:
        return f"{missing[0]} is missing"
    changed = (name for name, value in listed["files"].items() if _sha256(found[name]) != value)
    name = next(changed, None)
    return None if name is None else f"{name} was changed or cut short"


def _files(directory: epath.Path, prefix: str = "") -> dict[str, epath.Path]:
    """Every file below `directory`, by its path from there."""
    files = {}
    for path in sorted(directory.iterdir()):
        name = f"{prefix}{path.name}"
        files |= _files(path, f"{name}/") if path.is_dir() else {name: path}
    return files


def _sha256(path: epath.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _own_sum(listed: dict) -> str:
    return hashlib.sha256(json.dumps(listed, sort_keys=True).encode()).hexdigest()
