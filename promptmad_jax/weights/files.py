"""Tensor files to arrays and back: safetensors and npz; torch's pickles where torch is."""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import ml_dtypes  # its import registers bfloat16, which safetensors asks NumPy for by name
import numpy as np

from promptmad_jax.runtime.errors import UserError
from promptmad_jax.weights import pickles

SUFFIXES = (".safetensors", ".npz")


def read_tensors(path: str | Path) -> dict[str, np.ndarray]:
    """Reads every tensor of a .safetensors or .npz file, by name. Runs no code of the file.

    Raises:
        UserError: the file is absent, truncated, damaged, of another kind, or a pickle.
    """
    path = Path(path)
    if path.suffix in pickles.SUFFIXES and path.is_file():
        raise UserError(
            f"{path}: a pickle, which can run code when it is opened; convert it once with "
            f"`python -m promptmad_jax.convert --to=promptmad --input={path} "
            f"--output={path.with_suffix('.safetensors')}` and give that file"
        )
    return _read(path, {".safetensors": _read_safetensors, ".npz": _read_npz})


def read_foreign_tensors(path: str | Path) -> dict[str, np.ndarray]:
    """As `read_tensors`, and pickles too where torch is installed, as tensors alone.

    Raises:
        UserError: as `read_tensors`; and for a pickle without torch, or with anything but tensors.
    """
    readers = {".safetensors": _read_safetensors, ".npz": _read_npz}
    return _read(Path(path), readers | dict.fromkeys(pickles.SUFFIXES, pickles.read_pickle))


def write_tensors(
    path: str | Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes a .safetensors or .npz file, at once or not at all; npz keeps no metadata.

    Raises:
        UserError: another suffix, or bfloat16 for an npz file, which has no such type.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise UserError(f"{path}: weights are written as {' or '.join(SUFFIXES)}")
    if path.suffix == ".npz" and any(x.dtype == ml_dtypes.bfloat16 for x in tensors.values()):
        raise UserError(f"{path}: npz cannot hold bfloat16; write a .safetensors file")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.stem}.partial{path.suffix}")
    arrays = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    if path.suffix == ".npz":
        np.savez(partial, **arrays)
    else:
        from safetensors.numpy import save_file

        save_file(arrays, partial, dict(metadata or {}))
    partial.replace(path)


def _read(path: Path, readers: Mapping) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise UserError(f"{path}: no such file; give the path of a .safetensors or .npz file")
    if path.suffix not in readers:
        raise UserError(f"{path}: unknown kind of weight file; give {' or '.join(readers)}")
    return readers[path.suffix](path)


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, TypeError, ValueError) as error:
        raise _damaged(path, error) from error


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except (zipfile.BadZipFile, ValueError, EOFError, AttributeError, KeyError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(
        f"{path}: cannot be read ({error}); the file is truncated, damaged or of "
        "another kind: fetch it again"
    )
