"""The images of one split, resized, as arrays."""

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np

from promptmad_jax.data import image_cache
from promptmad_jax.data.ignored import Ignored, read_ignored
from promptmad_jax.data.levels import Levels
from promptmad_jax.data.prepared import find_prepared, levels_of, splits
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.names import matching


@dataclasses.dataclass(frozen=True)
class ImageSet:
    """N images of one size with their masks and labels, ordered by (class, file name).

    Attributes:
      images: uint8 [N, S, S, 3], RGB; memory-mapped if it is a whole split.
      masks: bool [N, S, S], true where defective; all false for normal images.
      labels: int32 [N], 0 normal, 1 defective.
      class_ids: int32 [N], into `class_names`.
      class_names: sorted; of both splits, so that ids agree between them.
      defect_types: N names, "good" for normal images. With `defect_ids`, an image may have several
        names, separated by commas.
      filenames: N names, relative, with forward slashes.
      original_sizes: int32 [N, 2], (height, width) in pixels before resizing.
      fingerprint: digest of the stored files and their order; the same on every machine.
      defect_ids: uint8 [N, S, S], or None for most data sets: 0 where normal, k where the defect is
        of the k-th of the image's names, 255 where its type is unknown; memory-mapped.
      levels: of the source images with more than 8 bits, or None.
      ignored: pixels that do not count, bool [S, S] by class; for classes that have some.
    """

    images: np.ndarray
    masks: np.ndarray
    labels: np.ndarray
    class_ids: np.ndarray
    class_names: tuple[str, ...]
    defect_types: tuple[str, ...]
    filenames: tuple[str, ...]
    original_sizes: np.ndarray
    fingerprint: str
    defect_ids: np.ndarray | None = None
    levels: Levels | None = None
    ignored: Ignored = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def ignored_by_id(self) -> np.ndarray | None:
        """`ignored` as bool [K, S, S]; None if no class has some."""
        if not self.ignored:
            return None
        none = np.zeros(self.images.shape[1:3], bool)
        return np.stack([self.ignored.get(name, none) for name in self.class_names])

    def select(self, indices: Sequence[int] | np.ndarray) -> "ImageSet":
        """The images at `indices` (int [M]), in that order; adjacent ones stay memory-mapped."""
        order = np.asarray(indices, np.int64).reshape(-1)
        # A slice is a view, which reads nothing before it is used.
        adjacent = len(order) > 0 and order[0] >= 0 and (np.diff(order) == 1).all()
        rows = slice(int(order[0]), int(order[-1]) + 1) if adjacent else order
        digest = hashlib.sha256(self.fingerprint.encode() + order.astype("<i8").tobytes())
        return dataclasses.replace(
            self,
            images=self.images[rows],
            masks=self.masks[rows],
            labels=self.labels[rows],
            class_ids=self.class_ids[rows],
            defect_types=tuple(self.defect_types[index] for index in order),
            filenames=tuple(self.filenames[index] for index in order),
            original_sizes=self.original_sizes[rows],
            fingerprint=digest.hexdigest(),
            defect_ids=None if self.defect_ids is None else self.defect_ids[rows],
        )


def load_image_set(
    dataset: str,
    data_dir: str,
    split: str,
    image_size: int,
    classes: tuple[str, ...] = (),
    kernel: str = "bilinear",
    cache_dir: str = "",
    required: bool = True,
) -> ImageSet:
    """Reads one split of a prepared data set at one size.

    The first call decodes and resizes (Pillow; masks nearest) into a cache; later calls, and other
    processes, map that cache into memory. It is keyed by name, version, content, size and kernel.

    Args:
      dataset: name of a data set below `data_dir`, optionally with `/CONFIG` or `:VERSION`.
      data_dir: the folder that `prepare` wrote to.
      split: "train", "test" or, if the data set has it, "validation".
      image_size: S, pixels.
      classes: the classes to keep, all if empty; `class_names` are then these, sorted.
      kernel: of the images' resizing, see `preprocess.resize_image`.
      cache_dir: the folder of the cache `resized`; `data_dir` if empty.
      required: False returns an empty set where the split has no image of the classes.

    Raises:
      UserError: the data set is not prepared, lacks the split or a class, or the cache cannot be
        written.
    """
    prepared = find_prepared(dataset, data_dir)
    empty = not required and split not in splits(prepared)
    cached = image_cache.open_or_build(
        prepared, cache_dir or data_dir, "train" if empty else split, image_size, kernel
    )
    ignored = read_ignored(prepared.folder, image_size)
    image_set = dataclasses.replace(_image_set(cached, levels_of(prepared)), ignored=ignored)
    if classes:
        image_set = _only(image_set, classes, f"{dataset} in {data_dir}")
    if required and not len(image_set):
        listed = ", ".join(image_set.class_names)
        raise UserError(f"{dataset} in {data_dir}: the split {split} has no image of {listed}")
    return image_set.select([]) if empty else image_set


def _image_set(cached: image_cache.Cached, levels: Levels | None) -> ImageSet:
    rows = cached.rows
    names = cached.class_names
    class_id = {name: index for index, name in enumerate(names)}
    return ImageSet(
        images=cached.images,
        masks=cached.masks,
        labels=np.asarray([row.label for row in rows], np.int32),
        class_ids=np.asarray([class_id[row.class_name] for row in rows], np.int32),
        class_names=names,
        defect_types=tuple(row.defect_type for row in rows),
        filenames=tuple(row.filename for row in rows),
        original_sizes=np.asarray(cached.original_sizes, np.int32).reshape(-1, 2),
        fingerprint=cached.fingerprint,
        defect_ids=cached.defect_ids,
        levels=levels,
    )


def _only(image_set: ImageSet, classes: tuple[str, ...], where: str) -> ImageSet:
    spellings = {matching(name): name for name in image_set.class_names}
    asked = {c if c in image_set.class_names else spellings.get(matching(c), c) for c in classes}
    names = tuple(sorted(asked))
    unknown = [name for name in names if name not in image_set.class_names]
    if unknown:
        known = ", ".join(image_set.class_names)
        raise UserError(f"{where}: no class {', '.join(unknown)}; it has {known}")
    kept_ids = np.asarray([image_set.class_names.index(name) for name in names])
    kept = image_set.select(np.flatnonzero(np.isin(image_set.class_ids, kept_ids)))
    ids = np.searchsorted(kept_ids, kept.class_ids).astype(np.int32)
    return dataclasses.replace(kept, class_ids=ids, class_names=names)


def of_classes(images: ImageSet, class_names: tuple[str, ...]) -> ImageSet:
    """The images of these classes, whose ids are their places in `class_names`."""
    places = {matching(name): k for k, name in enumerate(class_names)}
    known = np.asarray([places.get(matching(name), -1) for name in images.class_names])
    ids = known[images.class_ids].astype(np.int32)
    kept = images.select(np.flatnonzero(ids >= 0))
    return dataclasses.replace(kept, class_ids=ids[ids >= 0], class_names=class_names)


def joined(first: ImageSet, second: ImageSet) -> ImageSet:
    """The images of both sets, class by class, those of `first` before the others."""
    names = tuple(sorted({*first.class_names, *second.class_names}))
    owners = [part.class_names[k] for part in (first, second) for k in part.class_ids]
    ids = np.asarray([names.index(name) for name in owners], np.int32)
    if not len(second):
        return dataclasses.replace(first, class_ids=ids, class_names=names)
    pairs = {
        name: (getattr(first, name), getattr(second, name))
        for name in "images masks labels defect_types filenames original_sizes".split()
    }
    parts = {
        name: a + b if isinstance(a, tuple) else np.concatenate([a, b])
        for name, (a, b) in pairs.items()
    }
    digest = hashlib.sha256(f"{first.fingerprint} {second.fingerprint}".encode()).hexdigest()
    both = dataclasses.replace(
        first, **parts, class_ids=ids, class_names=names, fingerprint=digest, defect_ids=None
    )
    return both.select(np.argsort(ids, kind="stable"))


def normal_set(
    images: np.ndarray,
    class_ids: np.ndarray,
    class_names: tuple[str, ...],
    filenames: tuple[str, ...],
) -> ImageSet:
    """A set of normal images uint8 [N, S, S, 3] that come from no prepared data set."""
    count = len(images)
    return ImageSet(
        images=images,
        masks=np.zeros(images.shape[:3], bool),
        labels=np.zeros(count, np.int32),
        class_ids=np.asarray(class_ids, np.int32),
        class_names=class_names,
        defect_types=("good",) * count,
        filenames=filenames,
        original_sizes=np.full((count, 2), images.shape[1:3], np.int32),
        fingerprint="",
    )
