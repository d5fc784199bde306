"""Reads what an evaluation has stored: metrics.json and manifest.json."""

import json

from etils import epath

from promptmad_jax.runtime.errors import UserError

METRICS_FILE, MANIFEST_FILE = "metrics.json", "manifest.json"


def read_result(directory: epath.PathLike) -> dict:
    """The content of metrics.json.

    Raises:
      UserError: where it is missing or damaged.
    """
    path = epath.Path(directory)
    return _read(
        path / METRICS_FILE,
        "classes",
        "no evaluation has finished there; let the training end, or run "
        f"`promptmad evaluate --workdir={path}`",
    )


def read_manifest(directory: epath.PathLike) -> dict:
    """The content of manifest.json.

    Raises:
      UserError: where it is missing or damaged.
    """
    return _read(
        epath.Path(directory) / MANIFEST_FILE,
        "config",
        "bring it back from the run's working directory or a copy; or start the training there "
        "again without it, which writes it anew",
    )


def _read(path: epath.Path, key: str, way_out: str) -> dict:
    """The JSON object at `path`, which has an entry `key`."""
    if not path.exists():
        raise UserError(f"{path} is missing: {way_out}")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict) or key not in values:
            raise ValueError(f"it has no entry {key!r}")
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): {way_out}") from error
    return values
