"""Features of the clean training images, computed once and memory-mapped.

Exact, not approximate: clean images are not augmented and the backbone is frozen.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
from jax.sharding import Mesh

from promptmad_jax.data.image_set import ImageSet
from promptmad_jax.models.detector import Detector, Frozen
from promptmad_jax.models.neck import Features
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
    run = this_run()
    folder = Path(directory) / _key(detector, frozen, images, fine_dtype)
    missing = not folder.exists()
    if any(gather_objects(run, missing)):
        writer = None
        if leads(run, directory) and missing:
            writer = _Writer(folder, len(images), _DTYPES[fine_dtype])
        for features in _compute(detector, frozen, images.images, mesh, batch_size):
            if writer is not None:
                writer.add(features)
        jointly(run, lambda: writer.finish() if writer is not None else None)
    return _open(folder)


def _key(detector, frozen, images, fine_dtype) -> str:
    digest = hashlib.sha256()
    facts = [
        images.fingerprint,
        list(images.images.shape),
        repr(detector.backbone),
        detector.uses_fine_levels,
        fine_dtype,
    ]
    digest.update(json.dumps(facts).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(frozen.backbone):
        digest.update(jax.tree_util.keystr(path).encode() + np.asarray(leaf).tobytes())
    return digest.hexdigest()[:16]


def _compute(detector, frozen, images, mesh, batch_size) -> Iterator[dict[str, jax.Array]]:
    """Yields the features of all images in their order, the levels that the model uses."""
    split = batch_sharding(mesh)
    compute = jax.jit(detector.features, in_shardings=(None, split), out_shardings=replicated(mesh))
    rows = min(batch_size, -(-len(images) // mesh.size)) * mesh.size
    own = process_rows(split, rows)
    for start in range(0, len(images), rows):
        # The last batch is padded, so that nothing compiles twice.
        places = np.minimum(start + own, len(images) - 1)
        shape = (rows, *images.shape[1:])
        batch = jax.make_array_from_process_local_data(split, np.asarray(images[places]), shape)
        features = compute(frozen, batch)._asdict()
        yield {name: level for name, level in features.items() if level is not None}


class _Writer:
    """Streams batches into a new folder, which appears under its name when it is complete.

    A full disk is told at the end: until then, the other processes count on this one. Plain writes,
    since a full disk under a memory map kills the process.
    """

    def __init__(self, folder: Path, count: int, fine_dtype: np.dtype):
        self._folder, self._count, self._fine_dtype = folder, count, fine_dtype
        self._partial: Path | None = None
        self._files: dict[str, Any] = {}
        self._done = 0
        self._failure: OSError | None = None

    def add(self, features: dict[str, jax.Array]) -> None:
        """Adds the next rows, of which those past the last image are left out."""
        if self._failure is not None:
            return
        try:
            if self._partial is None:
                self._begin(features)
            count = min(self._count - self._done, len(features["neck"]))
            for name, file in self._files.items():
                rows = np.asarray(features[name])[:count]
                file.write(np.ascontiguousarray(_bits(rows, self._fine_dtype, name)).data)
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

    def _begin(self, features: dict[str, jax.Array]) -> None:
        parent = self._folder.parent
        parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(parent)
        self._partial = Path(tempfile.mkdtemp(prefix=f"{self._folder.name}{_PARTIAL}", dir=parent))
        for name, level in features.items():
            self._files[name] = file = open(self._partial / f"{name}.npy", "wb")  # noqa: SIM115
            dtype = np.dtype(np.float32) if name == "neck" else _storage(self._fine_dtype)
            header = {
                "descr": np.lib.format.dtype_to_descr(dtype),
                "fortran_order": False,
                "shape": (self._count, *level.shape[1:]),
            }
            np.lib.format.write_array_header_1_0(file, header)

    def _close(self) -> None:
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        facts = json.dumps({"fine_dtype": self._fine_dtype.name})
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


def _bits(array, fine_dtype, name):
    return array if name == "neck" else array.astype(fine_dtype).view(_storage(fine_dtype))


def _open(folder: Path) -> Features:
    fine_dtype = _DTYPES[json.loads((folder / "features.json").read_text())["fine_dtype"]]

    def load(name):
        path = folder / f"{name}.npy"
        if not path.exists():
            return None
        array = np.load(path, mmap_mode="r")
        return array if name == "neck" else array.view(fine_dtype)

    return Features(*(load(name) for name in Features._fields))
