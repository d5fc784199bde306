"""Features of the clean training images, computed once and memory-mapped.

Exact, not approximate: clean images are not augmented and the backbone is frozen.
"""

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path

import jax
import ml_dtypes
import numpy as np

from promptmad_jax.data.image_set import ImageSet
from promptmad_jax.models.detector import Detector, Frozen
from promptmad_jax.models.neck import Features

_DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(ml_dtypes.bfloat16)}


def load_clean_features(
    directory: str,
    detector: Detector,
    frozen: Frozen,
    images: ImageSet,
    fine_dtype: str,
    batch_size: int = 16,
) -> Features:
    """Returns the features of all images as memory-mapped arrays, computing them the first time.

    Args:
        directory: where caches live, each in a folder named by what it was computed from.
        fine_dtype: "float32" or "bfloat16" for the two fine levels; the neck is always float32.
    """
    folder = Path(directory) / _key(detector, frozen, images, fine_dtype)
    if not folder.exists():
        _compute(folder, detector, frozen, images.images, _DTYPES[fine_dtype], batch_size)
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


def _compute(folder: Path, detector, frozen, images, fine_dtype, batch_size) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f"{folder.name}.partial-", dir=folder.parent))
    compute = jax.jit(detector.features)
    shapes = jax.eval_shape(compute, frozen, images[:1])
    arrays = {
        name: _create(partial, name, len(images), leaf, fine_dtype)
        for name, leaf in shapes._asdict().items()
        if leaf is not None
    }
    for start in range(0, len(images), batch_size):
        batch = np.asarray(images[start : start + batch_size])
        count = len(batch)
        # The last batch is padded, so that nothing compiles twice.
        batch = np.concatenate([batch, np.repeat(batch[-1:], batch_size - count, 0)])
        features = compute(frozen, batch)
        for name, array in arrays.items():
            array[start : start + count] = _bits(
                np.asarray(getattr(features, name)), fine_dtype, name
            )[:count]
    for array in arrays.values():
        array.flush()
    (partial / "features.json").write_text(json.dumps({"fine_dtype": fine_dtype.name}))
    try:
        os.rename(partial, folder)
    except OSError:
        # Another process finished the same cache first.
        if not folder.exists():
            raise
        shutil.rmtree(partial)


def _create(folder, name, count, leaf, fine_dtype):
    dtype = np.float32 if name == "neck" else _storage(fine_dtype)
    return np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype, (count, *leaf.shape[1:]))


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
