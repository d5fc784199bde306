"""Tensor files to arrays: safetensors and npz, nothing that runs code while it is read."""

import zipfile
from pathlib import Path

import numpy as np

from promptmad_jax.runtime.errors import UserError

PICKLES = (".pth", ".pt", ".pkl", ".bin", ".ckpt")


def read_tensors(path: str | Path) -> dict[str, np.ndarray]:
    """Reads every tensor of a .safetensors or .npz file, by name.

    Raises:
        UserError: the file is absent, truncated, damaged, of another kind, or a pickle.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; give the path of a .safetensors or .npz file")
    if path.suffix in PICKLES:
        raise UserError(
            f"{path}: a pickle, which can run code when it is opened; convert it once with "
            f"`python -m promptmad_jax.convert --to=promptmad --input={path} "
            f"--output={path.with_suffix('.safetensors')}` and give that file"
        )
    readers = {".safetensors": _read_safetensors, ".npz": _read_npz}
    if path.suffix not in readers:
        raise UserError(f"{path}: unknown kind of weight file; give .safetensors or .npz")
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
