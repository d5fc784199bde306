"""The manifest of a run: versions, machine, mesh, configuration and command, in one JSON file."""

import datetime
import functools
import hashlib
import importlib.metadata
import json
import pathlib
import platform
import sys
from collections.abc import Mapping
from typing import Any

import jax
from etils import epath

from promptmad_jax import __version__
from promptmad_jax.runtime import files

PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "numpy",
    "scipy",
    "scikit-learn",
    "pillow",
    "ml-collections",
    "tensorflow-datasets",
    "transformers",
    "safetensors",
)

_DIGESTED = (
    ("data", "taxonomy"),
    ("data", "texture_dir"),
    ("source", "taxonomy"),
    ("text", "vocabulary"),
    ("text", "weights"),
)


def write_manifest(
    path: epath.PathLike,
    config: Mapping[str, Any],
    seed: int,
    data_fingerprint: str,
    mesh: jax.sharding.Mesh,
    extra: Mapping[str, Any],
) -> None:
    """Writes the manifest of this run to `path` as JSON, by process 0 alone.

    Args:
      path: the file, `manifest.json` in a working directory.
      config: the whole configuration as plain nested dictionaries.
      seed: the seed of the run.
      data_fingerprint: the content fingerprint of the training data.
      mesh: the device mesh of the run.
      extra: further top-level entries; none may repeat one that is there.

    Raises:
      ValueError: `extra` repeats an entry.
      TypeError: `config` or `extra` holds what JSON cannot express.
    """
    if jax.process_index() != 0:
        return
    manifest = {
        "promptmad_jax": __version__,
        "code": code_versions(),
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "seed": seed,
        "data_fingerprint": data_fingerprint,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": package_versions(),
        "devices": describe_devices(mesh),
        "config": config,
        "files": file_digests(config),
    }
    repeated = manifest.keys() & extra.keys()
    if repeated:
        raise ValueError(f"the manifest has {sorted(repeated)} already")
    files.write_text_atomic(path, json.dumps(manifest | dict(extra), indent=2) + "\n")


def file_digests(config: Mapping[str, Any]) -> dict[str, str]:
    """Digests of the files and folders that settings name: of a file's content, and of the names
    and sizes in a folder. Data sets and frozen weights have entries of their own."""
    digests = {}
    for group, key in _DIGESTED:
        path = pathlib.Path(config.get(group, {}).get(key, ""))
        if path.is_absolute() and path.is_file():
            with path.open("rb") as file:
                digests[f"{group}.{key}"] = hashlib.file_digest(file, "sha256").hexdigest()
        elif path.is_absolute() and path.is_dir():
            digests[f"{group}.{key}"] = _folder_digest(path)
    return digests


def _folder_digest(folder: pathlib.Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [[path.relative_to(folder).as_posix(), path.stat().st_size] for path in files]
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()


def same_files(manifest: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """The settings that name what they named in the run of a manifest, wherever it now lies."""
    then, now = manifest.get("files", {}), file_digests(config)
    return [setting for setting in now if then.get(setting) == now[setting]]


def code_versions() -> dict[str, str]:
    """The versions that training depends on: this package, down to its source files, and JAX."""
    below = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax", "optax")}
    return {"promptmad_jax": f"{__version__}+{_source_digest()}"} | below


@functools.cache
def _source_digest() -> str:
    digest = hashlib.sha256()
    root = pathlib.Path(__file__).parents[1]
    for path in sorted(root.rglob("*.py")):
        digest.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def describe_devices(mesh: jax.sharding.Mesh) -> dict[str, Any]:
    """Kind and number of the devices, the mesh axes and the number of processes."""
    devices = mesh.devices.flatten()
    return {
        "platform": devices[0].platform,
        "kind": devices[0].device_kind,
        "count": len(devices),
        "mesh": dict(mesh.shape),
        "process_count": jax.process_count(),
    }


def package_versions() -> dict[str, str]:
    """The installed version of each package that can change a number."""
    installed = {}
    for package in PACKAGES:
        try:
            installed[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            installed[package] = "not installed"
    return installed
