"""Features of the training images under frozen networks, computed once and memory-mapped.

These images are not augmented, so the cached features are exact.
"""

import collections
import contextlib
import hashlib
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
from jax.sharding import Mesh

from promptmad_jax.data.cache_place import cache_path
from promptmad_jax.data.image_set import ImageSet
from promptmad_jax.models.backbone.neck import Features
from promptmad_jax.models.reconstruction.detector import Detector, Frozen
from promptmad_jax.runtime.console import track
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.files import check_room
from promptmad_jax.runtime.mesh import batch_sharding, process_rows, replicated
from promptmad_jax.runtime.processes import gather_objects, jointly, leads, this_run

# Data type in memory and in files; numpy's format has no bfloat16.
_DTYPES = {
    "float32": (np.dtype(np.float32), np.dtype(np.float32)),
    "bfloat16": (np.dtype(ml_dtypes.bfloat16), np.dtype(np.uint16)),
}
_PARTIAL = ".partial-"
_LEAST_DEVIATION, _LEAST_SHARE = 1e-6, 1e-3
_STALE_SECONDS = 24 * 3600

Batches = Iterator[dict[str, jax.Array]]


@dataclass(frozen=True)
class FrozenNetwork:
    """A network whose features of images never change.

    Attributes:
        compute: (frozen, images [B, S, S, 3]) to features [B, ...] by name.
        frozen: its first argument.
        weights: the arrays of `frozen` that the features depend on.
        facts: JSON values that the features depend on as well.
        dtypes: "float32" or "bfloat16" for the stored features, by name.
    """

    compute: Callable[[Any, jax.Array], dict[str, jax.Array]]
    frozen: Any
    weights: Any
    facts: list
    dtypes: Mapping[str, str]


def load_clean_features(
    directory: str,
    detector: Detector,
    frozen: Frozen,
    images: ImageSet,
    fine_dtype: str,
    mesh: Mesh,
    batch_size: int = 16,
) -> Features:
    """Returns the backbone's features of all images; see `load_cached`.

    Args:
        fine_dtype: "float32" or "bfloat16" for the two fine levels; the neck is always float32.
    """

    def levels(frozen, batch):
        features = detector.features(frozen, batch)._asdict()
        return {name: level for name, level in features.items() if level is not None}

    facts = [repr(detector.backbone), detector.uses_fine_levels]
    if detector.memory is not None:
        facts.append([detector.memory.levels, detector.memory.stride])
    dtypes = dict.fromkeys(Features._fields, fine_dtype) | {"neck": "float32"}
    network = FrozenNetwork(levels, frozen, frozen.backbone, facts, dtypes)
    cached = load_cached(directory, network, images, mesh, batch_size)
    return Features(*map(cached.get, Features._fields))


def channel_moments(features: np.ndarray, rows: np.ndarray | None = None) -> np.ndarray:
    """Mean and standard deviation, float32 [2, C], of features [N, h, w, C] of some images, by
    default of all; reads one image at a time.

    No deviation is below a thousandth of the channels' median: a channel that hardly varies would
    make noise of other images count as an outlier.
    """
    rows = np.arange(len(features)) if rows is None else rows
    sums = np.zeros((2, features.shape[-1]))
    for row in rows:
        own = np.asarray(features[row], np.float64).reshape(-1, features.shape[-1])
        sums += own.sum(0), np.square(own).sum(0)
    mean, square = sums / (len(rows) * features.shape[1] * features.shape[2])
    deviation = np.sqrt(np.maximum(square - mean**2, 0))
    deviation = np.maximum(deviation, max(_LEAST_SHARE * np.median(deviation), _LEAST_DEVIATION))
    return np.stack([mean, deviation]).astype(np.float32)


def load_cached(
    directory: str, network: FrozenNetwork, images: ImageSet, mesh: Mesh, batch_size: int
) -> dict[str, np.ndarray]:
    """Returns the features [N, ...] of all images, memory-mapped; computes them the first time.

    Each device computes its share. One of the processes that share the directory writes.

    Args:
        directory: folder of the caches, each in a subfolder named by what it was computed from.
        batch_size: images per device at a time.

    Raises:
        UserError: the cache cannot be written.
    """
    run = this_run()
    folder = cache_path(directory, _key(network, images))
    missing = not folder.exists()
    if any(gather_objects(run, missing)):
        batches = _compute(network, images.images, mesh, batch_size)
        writes = leads(run, directory) and missing
        keep = lambda: _write(folder, batches, len(images), network.dtypes)
        jointly(run, keep if writes else lambda: _discard(batches))
    paths = {name: folder / f"{name}.npy" for name in network.dtypes}
    return {
        name: np.load(path, mmap_mode="r").view(_DTYPES[network.dtypes[name]][0])
        for name, path in paths.items()
        if path.exists()
    }


def _key(network: FrozenNetwork, images: ImageSet) -> str:
    shape, dtypes = list(images.images.shape), sorted(network.dtypes.items())
    known = [images.fingerprint, shape, *network.facts, dtypes]
    digest = hashlib.sha256(json.dumps(known).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(network.weights):
        digest.update(jax.tree_util.keystr(path).encode() + np.asarray(leaf).tobytes())
    return digest.hexdigest()[:16]


def _compute(network: FrozenNetwork, images: np.ndarray, mesh: Mesh, batch_size: int) -> Batches:
    """Yields the features of all images in their order, a batch at a time."""
    split = batch_sharding(mesh)
    compute = jax.jit(network.compute, in_shardings=(None, split), out_shardings=replicated(mesh))
    rows = min(batch_size, -(-len(images) // mesh.size)) * mesh.size
    own = process_rows(split, rows)
    for start in track(
        range(0, len(images), rows), f"caching the features of {len(images)} images"
    ):
        # The last batch is padded, so that nothing compiles twice.
        places = np.minimum(start + own, len(images) - 1)
        shape = (rows, *images.shape[1:])
        batch = jax.make_array_from_process_local_data(split, np.asarray(images[places]), shape)
        yield compute(network.frozen, batch)


def _discard(batches: Batches) -> None:
    collections.deque(batches, maxlen=0)


def _write(folder: Path, batches: Batches, count: int, dtypes: Mapping[str, str]) -> None:
    """Writes the batches to a new folder, which appears under its name when it is complete.

    Raises:
        UserError: the disk is full or refuses.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(folder.parent)
        with tempfile.TemporaryDirectory(
            prefix=f"{folder.name}{_PARTIAL}", dir=folder.parent, ignore_cleanup_errors=True
        ) as partial:
            _write_arrays(Path(partial), batches, count, dtypes)
            _publish(Path(partial), folder)
    except OSError as error:
        # The other processes cannot compute the remaining batches without this one.
        _discard(batches)
        raise UserError(
            f"the feature cache {folder} cannot be written ({error.strerror or error}): "
            "make room, or set data.cache_dir to a folder that can be written"
        ) from error


def _write_arrays(folder: Path, batches: Batches, count: int, dtypes: Mapping[str, str]) -> None:
    # Plain writes: a full disk under a memory map kills the process.
    with contextlib.ExitStack() as stack:
        files: dict[str, Any] = {}
        left = count
        for batch in batches:
            if not files:
                items = {name: _DTYPES[dtypes[name]][1].itemsize for name in batch}
                shares = (items[name] * math.prod(x.shape[1:]) for name, x in batch.items())
                check_room(folder, count * sum(shares))
            for name, array in batch.items():
                memory, storage = _DTYPES[dtypes[name]]
                if name not in files:
                    files[name] = stack.enter_context((folder / f"{name}.npy").open("wb"))
                    shape = (count, *array.shape[1:])
                    header = {"descr": storage.str, "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(files[name], header)
                rows = np.ascontiguousarray(np.asarray(array)[:left], memory).view(storage)
                files[name].write(rows.data)
            left -= len(array)
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())


def _publish(partial: Path, folder: Path) -> None:
    partial.chmod(0o755)
    try:
        partial.rename(folder)
    except OSError:
        # Another process may have been faster.
        if not folder.exists():
            raise


def _remove_leftovers(folder: Path) -> None:
    """Removes what killed processes left, once no process can still be writing it."""
    for path in folder.glob(f"*{_PARTIAL}*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(path, ignore_errors=True)
