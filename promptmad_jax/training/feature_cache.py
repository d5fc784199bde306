"""What a frozen network gives of the training images, computed once and memory-mapped.

Exact, not approximate: these images are not augmented.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
from jax.sharding import Mesh

from promptmad_jax.data.image_set import ImageSet
from promptmad_jax.models.backbone.neck import Features
from promptmad_jax.models.reconstruction.detector import Detector, Frozen
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.mesh import batch_sharding, process_rows, replicated
from promptmad_jax.runtime.processes import gather_objects, jointly, leads, this_run

_DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}
_PARTIAL = ".partial-"
_STALE_SECONDS = 24 * 3600


def load_clean_features(
    directory: str,
    detector: Detector,
    frozen: Frozen,
    images: ImageSet,
    fine_dtype: str,
    mesh: Mesh,
    batch_size: int = 16,
) -> Features:
    """Returns the features of all images as memory-mapped arrays, computing them the first time.

    Each device computes its share. Of the processes that see the same directory one writes.

    Args:
        directory: where caches live, each in a folder named by what it was computed from.
        fine_dtype: "float32" or "bfloat16" for the two fine levels; the neck is always float32.
        batch_size: images a device at a time.

    Raises:
        UserError: the cache cannot be written.
    """

    def levels(frozen, batch):
        features = detector.features(frozen, batch)._asdict()
        return {name: level for name, level in features.items() if level is not None}

    facts = [repr(detector.backbone), detector.uses_fine_levels]
    dtypes = dict.fromkeys(Features._fields, fine_dtype) | {"neck": "float32"}
    found = load_cached(
        directory, facts, levels, frozen, frozen.backbone, images, dtypes, mesh, batch_size
    )
    return Features(*(found.get(name) for name in Features._fields))


def load_cached(
    directory: str,
    facts: list,
    compute: Callable[[Any, jax.Array], dict[str, jax.Array]],
    frozen: Any,
    weights: Any,
    images: ImageSet,
    dtypes: Mapping[str, str],
    mesh: Mesh,
    batch_size: int = 16,
) -> dict[str, np.ndarray]:
    """The arrays [N, ...] that `compute(frozen, images)` gives of all images, by name.

    Args:
        facts: JSON values that the arrays depend on, besides `weights` and the images.
        weights: the arrays of `frozen` that they depend on.
        dtypes: name -> "float32" or "bfloat16", how an array is stored.
        directory, mesh, batch_size: as for `load_clean_features`, with its errors.
    """
    run = this_run()
    folder = Path(directory) / _key(facts, weights, images, dtypes)
    missing = not folder.exists()
    if any(gather_objects(run, missing)):
        writer = None
        if leads(run, directory) and missing:
            writer = _Writer(folder, len(images), dtypes)
        for arrays in _compute(compute, frozen, images.images, mesh, batch_size):
            if writer is not None:
                writer.add(arrays)
        jointly(run, lambda: writer.finish() if writer is not None else None)
    return _open(folder)


def _key(facts: list, weights: Any, images: ImageSet, dtypes: Mapping[str, str]) -> str:
    digest = hashlib.sha256()
    known = [images.fingerprint, list(images.images.shape), *facts, sorted(dtypes.items())]
    digest.update(json.dumps(known).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(weights):
        digest.update(jax.tree_util.keystr(path).encode() + np.asarray(leaf).tobytes())
    return digest.hexdigest()[:16]


def _compute(compute, frozen, images, mesh, batch_size) -> Iterator[dict[str, jax.Array]]:
    """Yields the arrays of all images in their order, a batch at a time."""
    split = batch_sharding(mesh)
    compute = jax.jit(compute, in_shardings=(None, split), out_shardings=replicated(mesh))
    rows = min(batch_size, -(-len(images) // mesh.size)) * mesh.size
    own = process_rows(split, rows)
    for start in range(0, len(images), rows):
        # The last batch is padded, so that nothing compiles twice.
        places = np.minimum(start + own, len(images) - 1)
        shape = (rows, *images.shape[1:])
        batch = jax.make_array_from_process_local_data(split, np.asarray(images[places]), shape)
        yield compute(frozen, batch)


class _Writer:
    """Streams batches into a new folder, which appears under its name when it is complete.

    A full disk is told at the end: until then, the other processes count on this one. Plain writes,
    since a full disk under a memory map kills the process.
    """

    def __init__(self, folder: Path, count: int, dtypes: Mapping[str, str]):
        self._folder, self._count = folder, count
        self._dtypes = {name: _DTYPES[dtype] for name, dtype in dtypes.items()}
        self._partial: Path | None = None
        self._files: dict[str, Any] = {}
        self._done = 0
        self._failure: OSError | None = None

    def add(self, arrays: dict[str, jax.Array]) -> None:
        """Adds the next rows, of which those past the last image are left out."""
        if self._failure is not None:
            return
        try:
            if self._partial is None:
                self._begin(arrays)
            count = min(self._count - self._done, *map(len, arrays.values()))
            for name, file in self._files.items():
                rows = np.asarray(arrays[name])[:count]
                file.write(np.ascontiguousarray(_bits(rows, self._dtypes[name])).data)
            self._done += count
        except OSError as error:
            self._failure = error

    def finish(self) -> None:
        """Makes the folder visible, unless another process was faster.

        Raises:
            UserError: the disk is full or refuses.
        """
        try:
            if self._failure is not None:
                raise self._failure
            self._close()
        except OSError as error:
            raise UserError(
                f"the feature cache {self._folder} cannot be written ({error.strerror or error}): "
                "make room, or set data.data_dir to a folder that is writable"
            ) from error
        finally:
            for file in self._files.values():
                # A full disk refuses once more what it has refused before.
                with contextlib.suppress(OSError):
                    file.close()
            if self._partial is not None:
                shutil.rmtree(self._partial, ignore_errors=True)

    def _begin(self, arrays: dict[str, jax.Array]) -> None:
        parent = self._folder.parent
        parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(parent)
        self._partial = Path(tempfile.mkdtemp(prefix=f"{self._folder.name}{_PARTIAL}", dir=parent))
        for name, array in arrays.items():
            self._files[name] = file = open(self._partial / f"{name}.npy", "wb")  # noqa: SIM115
            header = {
                "descr": np.lib.format.dtype_to_descr(_storage(self._dtypes[name])),
                "fortran_order": False,
                "shape": (self._count, *array.shape[1:]),
            }
            np.lib.format.write_array_header_1_0(file, header)

    def _close(self) -> None:
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        facts = json.dumps({name: self._dtypes[name].name for name in self._files})
        (self._partial / "features.json").write_text(facts)
        self._partial.chmod(0o755)
        try:
            self._partial.rename(self._folder)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise


def _remove_leftovers(folder: Path) -> None:
    """Removes what killed processes left, once it is too old to be still at work."""
    for path in folder.glob(f"*{_PARTIAL}*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(path, ignore_errors=True)


def _storage(dtype: np.dtype) -> np.dtype:
    # numpy's file format has no bfloat16: its bits are stored as uint16.
    return np.dtype(np.uint16) if dtype.itemsize == 2 else dtype


def _bits(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return array.astype(dtype).view(_storage(dtype))


def _open(folder: Path) -> dict[str, np.ndarray]:
    dtypes = json.loads((folder / "features.json").read_text())
    return {
        name: np.load(folder / f"{name}.npy", mmap_mode="r").view(_DTYPES[dtype])
        for name, dtype in dtypes.items()
    }
