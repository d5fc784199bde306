"""The cache of resized images, one folder for each (data set, split, size, content).

    resized/NAME-VERSION/contents.json                 rows and digests of the splits
    resized/NAME-VERSION/SPLIT-SIZE-DIGEST/images.npy  uint8 [N, S, S, 3]
                                           masks.npy   bool [N, S, S]
                                           ids.npy     uint8 [N, S, S], if the data set has ids
                                           index.json  shape, digest, original sizes

SIZE is followed by the name of the kernel unless that is the bilinear one. A cache is written to a
folder of its own and renamed into place once it is complete. If two processes build the same one,
the first to finish wins and the other uses its result.
"""

import contextlib
import dataclasses
import errno
import itertools
import json
import math
import os
import pathlib
import shutil
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from promptmad_jax.data import preprocess
from promptmad_jax.data.cache_place import cache_path, can_write
from promptmad_jax.data.image_files import opened
from promptmad_jax.data.paths import printable
from promptmad_jax.data.prepared import (
    DEFECT_IDS,
    Contents,
    Prepared,
    Row,
    has_defect_ids,
    read_contents,
    read_records,
    shard_stamps,
    splits,
)
from promptmad_jax.runtime.console import say
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.files import check_room, write_text_atomic

_BUILDING = ".building-"
_DAMAGED = ".damaged-"
_SET = "set data.cache_dir to a folder that can be written"
_STALE_SECONDS = 24 * 3600
_CHUNK = 32
_ANY = math.inf  # Megapixels: `prepare` has accepted these images.


@dataclasses.dataclass(frozen=True)
class Cached:
    """An opened cache: arrays as in `ImageSet`, and N pairs (height, width) in `original_sizes`."""

    images: np.ndarray
    masks: np.ndarray
    defect_ids: np.ndarray | None
    rows: tuple[Row, ...]
    class_names: tuple[str, ...]
    original_sizes: list[list[int]]
    fingerprint: str


def folder_of(prepared: Prepared, cache_dir: str | pathlib.Path) -> pathlib.Path:
    """The folder of all caches of one data set."""
    name = f"{prepared.name.replace('/', '-')}-{prepared.version}"
    return pathlib.Path(cache_dir) / "resized" / name


def open_or_build(
    prepared: Prepared, cache_dir: str, split: str, size: int, kernel: str = "bilinear"
) -> Cached:
    """Opens the cache of a split at a size, and builds it if it is missing or damaged.

    Raises:
      UserError: the split is missing, a shard is damaged, or the cache cannot be written.
    """
    if split not in splits(prepared):
        raise UserError(f"{printable(prepared.folder)} has no image in the split {split}")
    folder = folder_of(prepared, cache_dir)
    try:
        contents = _contents(prepared, folder)
        name = f"{split}-{size}" if kernel == "bilinear" else f"{split}-{size}-{kernel}"
        target = cache_path(folder, f"{name}-{contents[split].fingerprint[:16]}")
        names = {row.class_name for content in contents.values() for row in content.rows}
        class_names = tuple(sorted(names))
        cached = _open(target, contents[split], class_names, size)
        if cached is None and target.exists() and not can_write(target.parent):
            raise UserError(
                f"the image cache {target} is damaged and cannot be written anew: {_SET}"
            )
        if cached is None:
            _build(prepared, target, split, contents[split], size, kernel)
            cached = _open(target, contents[split], class_names, size)
    except OSError as error:
        raise UserError(
            f"the image cache {folder} cannot be written ({error.strerror or error}): make room"
            f" there, or {_SET}"
        ) from error
    if cached is None:
        raise UserError(
            f"the image cache {target} was damaged while it was written: check the disk"
        )
    return cached


def _contents(prepared: Prepared, folder: pathlib.Path) -> dict[str, Contents]:
    """Rows and digest of each split, read from the shards only if these have changed."""
    path = cache_path(folder, "contents.json")
    stamps = shard_stamps(prepared)
    stored = _read_json(path)
    if stored is not None and stored["shards"] == stamps:
        return {
            split: Contents(tuple(Row(*row) for row in value["rows"]), value["fingerprint"])
            for split, value in stored["splits"].items()
        }
    contents = {split: read_contents(prepared, split) for split in splits(prepared)}
    values = {
        split: {
            "fingerprint": content.fingerprint,
            "rows": [dataclasses.astuple(row) for row in content.rows],
        }
        for split, content in contents.items()
    }
    if can_write(path.parent):  # A copy on a read-only disk has other times, so it is read anew.
        write_text_atomic(path, json.dumps({"shards": stamps, "splits": values}))
    return contents


def _read_json(path: pathlib.Path) -> dict | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None


def _open(
    target: pathlib.Path, contents: Contents, class_names: tuple[str, ...], size: int
) -> Cached | None:
    """The cache at `target`, or None if it is missing, damaged or of other contents."""
    index = _read_json(target / "index.json")
    if index is None or index["fingerprint"] != contents.fingerprint:
        return None
    # Caches of older versions have no ids and no such entry.
    specs = _arrays(len(contents.rows), size, with_ids="ids" in index)
    try:
        arrays = {name: np.load(target / f"{name}.npy", mmap_mode="r") for name in specs}
    except (FileNotFoundError, ValueError, EOFError):
        return None
    if any(arrays[name].shape != shape for name, (shape, _) in specs.items()):
        return None
    return Cached(
        images=arrays["images"],
        masks=arrays["masks"],
        defect_ids=arrays.get("ids"),
        rows=contents.rows,
        class_names=class_names,
        original_sizes=index["original_sizes"],
        fingerprint=contents.fingerprint,
    )


def _arrays(count: int, size: int, with_ids: bool) -> dict[str, tuple[tuple[int, ...], type]]:
    """Shape and type of each array of a cache."""
    arrays = {
        "images": ((count, size, size, 3), np.uint8),
        "masks": ((count, size, size), np.bool_),
    }
    return arrays | ({"ids": ((count, size, size), np.uint8)} if with_ids else {})


def _build(
    prepared: Prepared,
    target: pathlib.Path,
    split: str,
    contents: Contents,
    size: int,
    kernel: str,
) -> None:
    _remove_leftovers(target.parent)
    building = pathlib.Path(tempfile.mkdtemp(prefix=_BUILDING, dir=target.parent))
    try:
        with_ids = has_defect_ids(prepared)
        say(f"resizing {len(contents.rows)} images of the split {split} to {size} px")
        resized = _resized(prepared, split, contents, size, kernel)
        arrays = _arrays(len(contents.rows), size, with_ids)
        check_room(building, sum(math.prod(shape) for shape, _ in arrays.values()))
        sizes = _write_arrays(building, resized, arrays)
        index = {"fingerprint": contents.fingerprint, "size": size, "original_sizes": sizes}
        index |= {"ids": True} if with_ids else {}
        (building / "index.json").write_text(json.dumps(index), encoding="utf-8")
        building.chmod(0o755)
        _move_into_place(building, target)
    finally:
        shutil.rmtree(building, ignore_errors=True)


def _move_into_place(building: pathlib.Path, target: pathlib.Path) -> None:
    try:
        building.rename(target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        if _is_whole(target, building):
            return  # Another process was faster.
        damaged = pathlib.Path(tempfile.mkdtemp(prefix=_DAMAGED, dir=target.parent))
        with contextlib.suppress(FileNotFoundError):  # Another process may have moved it too.
            target.rename(damaged / "cache")
        _move_into_place(building, target)
        shutil.rmtree(damaged, ignore_errors=True)


def _is_whole(target: pathlib.Path, like: pathlib.Path) -> bool:
    return all(
        (target / path.name).exists() and (target / path.name).stat().st_size == path.stat().st_size
        for path in like.iterdir()
    )


_Resized = tuple[list[np.ndarray], list[int]]


def _resized(
    prepared: Prepared, split: str, contents: Contents, size: int, kernel: str
) -> Iterator[_Resized]:
    """The arrays of each image in the order of `_arrays`, and its original size."""
    records = read_records(prepared, split, tuple(row.index for row in contents.rows))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while chunk := list(itertools.islice(records, _CHUNK)):
            yield from pool.map(lambda record: _resize_record(record, size, kernel), chunk)


def _resize_record(record: dict, size: int, kernel: str) -> _Resized:
    image, original_size = _resize_image(record["image"], size, kernel)
    mask = preprocess.decode_mask(record["mask"], _ANY)
    arrays = [image, preprocess.resize_mask(mask, size)]
    if DEFECT_IDS in record:
        ids = preprocess.decode_ids(record[DEFECT_IDS], _ANY)
        arrays.append(preprocess.resize_ids(ids, size))
    return arrays, original_size


def _resize_image(encoded: bytes, size: int, kernel: str) -> tuple[np.ndarray, list[int]]:
    with opened(encoded, _ANY) as file:  # Of huge images, one at a time is also resized.
        image = file.rgb()
        return preprocess.resize_image(image, size, kernel), list(image.shape[:2])


def _write_arrays(
    folder: pathlib.Path, resized: Iterator[_Resized], specs: dict[str, tuple]
) -> list[list[int]]:
    """Streams the arrays by plain writes: a full disk under a memory map kills the process."""
    sizes = []
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(open(folder / f"{name}.npy", "wb")) for name in specs]
        for file, (shape, dtype) in zip(files, specs.values(), strict=True):
            descr = np.lib.format.dtype_to_descr(np.dtype(dtype))
            header = {"descr": descr, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
        for arrays, original_size in resized:
            for file, array in zip(files, arrays, strict=True):
                file.write(np.ascontiguousarray(array).data)
            sizes.append(original_size)
        for file in files:
            file.flush()
            os.fsync(file.fileno())
    return sizes


def _remove_leftovers(folder: pathlib.Path) -> None:
    """Removes folders of killed processes, once they are too old to be in use."""
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            old = time.time() - path.stat().st_mtime > _STALE_SECONDS
            if path.name.startswith((_BUILDING, _DAMAGED)) and old:
                shutil.rmtree(path, ignore_errors=True)
