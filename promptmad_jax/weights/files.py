"""Tensor files to arrays and back: safetensors, npz and msgpack; pickles where torch is."""

import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import ml_dtypes  # its import registers bfloat16, which safetensors asks NumPy for by name
import numpy as np
import safetensors
import safetensors.numpy

from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.interrupts import tidied_up
from promptmad_jax.weights import pickles
from promptmad_jax.weights.key_table import Tensors

SUFFIXES = (".safetensors", ".npz", ".msgpack")
# Raised by the readers on damaged files.
_DAMAGE = (
    *(safetensors.SafetensorError, zipfile.BadZipFile, zlib.error),
    *(AttributeError, EOFError, KeyError, TypeError, ValueError),
)


def read_tensors(path: str | Path, allow_pickles: bool = False) -> dict[str, np.ndarray]:
    """Reads every tensor of a file, by name; nested names are joined by slashes.

    Runs no code of the file: of a pickle, only tensors are read.

    Args:
        path: a .safetensors, .npz or .msgpack (Flax) file.
        allow_pickles: read torch's pickles too, which needs torch.

    Raises:
        UserError: the file is absent, truncated, damaged, of another kind, or a pickle that is not
            allowed or holds more than tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file; give the path of a {' or '.join(SUFFIXES)} file")
    if path.suffix in pickles.SUFFIXES:
        if allow_pickles:
            return pickles.read_pickle(path)
        raise UserError(
            f"{path}: a pickle, which can run code when it is opened; convert it once with "
            f"`promptmad convert --to=promptmad --input={path} "
            f"--output={path.with_suffix('.safetensors')}` and give that file"
        )
    if path.suffix not in _READERS:
        raise UserError(f"{path}: unknown kind of weight file; give {' or '.join(SUFFIXES)}")
    try:
        return _READERS[path.suffix](path)
    except _DAMAGE as error:
        raise UserError(
            f"{path}: cannot be read ({error}); the file is truncated, damaged or of "
            "another kind: fetch it again"
        ) from error


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    with safetensors.safe_open(path, framework="np") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def _read_msgpack(path: Path) -> dict[str, np.ndarray]:
    from flax import serialization, traverse_util

    tree = serialization.msgpack_restore(path.read_bytes())
    if not isinstance(tree, dict):
        raise ValueError(f"it holds a {type(tree).__name__}")
    return {key: np.asarray(x) for key, x in traverse_util.flatten_dict(tree, sep="/").items()}


_READERS = dict(zip(SUFFIXES, (_read_safetensors, _read_npz, _read_msgpack), strict=True))


def write_tensors(
    path: str | Path, tensors: Tensors, metadata: Mapping[str, str] | None = None
) -> None:
    """Writes a .safetensors, .npz or .msgpack file, whole or not at all.

    Args:
        metadata: kept in safetensors alone.

    Raises:
        UserError: another suffix, or bfloat16 for an npz file, which has no such type.
    """
    path = Path(path)
    check_suffix(path)
    if path.suffix == ".npz" and any(x.dtype == ml_dtypes.bfloat16 for x in tensors.values()):
        raise UserError(f"{path}: npz cannot hold bfloat16; write a .safetensors file")
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    hidden = tempfile.TemporaryDirectory(prefix=f".{path.stem}-", dir=path.parent)
    with tidied_up(), hidden as folder:
        partial = Path(folder) / path.name
        match path.suffix:
            case ".npz":
                np.savez(partial, **arrays)
            case ".msgpack":
                partial.write_bytes(_to_msgpack(arrays))
            case _:
                safetensors.numpy.save_file(arrays, partial, dict(metadata or {}))
        partial.replace(path)


def check_suffix(path: str | Path) -> None:
    """Raises UserError for a file that weights are not written as."""
    if Path(path).suffix not in SUFFIXES:
        raise UserError(f"{path}: weights are written as {' or '.join(SUFFIXES)}")


def _to_msgpack(arrays: Tensors) -> bytes:
    from flax import serialization, traverse_util

    return serialization.msgpack_serialize(traverse_util.unflatten_dict(dict(arrays), sep="/"))
