"""Validation of the masks of a source's images."""

import os
from collections.abc import Iterator

import numpy as np

from promptmad_jax.data.builders.records import Entry, Found, Problem
from promptmad_jax.data.image_files import ImageFile, ImageFileError, opened
from promptmad_jax.data.paths import printable

_NEARLY_ALL = 0.9


def check_masks(
    entry: Entry, found: Found, size: tuple[int, int], max_megapixels: float
) -> Iterator[Problem]:
    """Finds faults of the masks of an image of this height and width."""
    file = entry.filename
    if not entry.masks:
        if entry.without_mask == "error":
            yield Problem(file, "mask_missing", "no mask for a defect")
        if entry.without_mask == "one":
            action = "kept, the whole image as defective"
            yield Problem(file, "mask_missing", "the list names no mask", action)
        return
    base = found.source if found.source.is_dir() else found.source.parent
    joined = np.zeros(size, bool)
    for path in entry.masks:
        name = printable(os.path.relpath(path, base))
        if not path.exists():
            yield Problem(file, "mask_missing", f"no mask {name}")
            return
        try:
            with opened(path, max_megapixels) as stored:
                mask = stored.mask()
                yield from _check_file(entry, name, stored, marks=bool(mask.any()))
        except ImageFileError as error:
            yield Problem(file, f"mask_{error.kind}", f"{name}: {error.reason}")
            return
        if mask.shape != size:
            sizes = f"{mask.shape[1]}x{mask.shape[0]}, the image {size[1]}x{size[0]}"
            yield Problem(file, "mask_size", f"the mask {name} is {sizes}")
            return
        joined |= mask
    if entry.label:
        yield from _check_share(file, name, joined.mean())


def _check_share(file: str, name: str, share: float) -> Iterator[Problem]:
    if share == 0:
        yield Problem(file, "mask_empty", f"the mask {name} marks nothing")
    elif share > _NEARLY_ALL:
        reason = f"the mask {name} marks {share:.0%} of the image; if it is inverted, save it anew"
        yield Problem(file, "mask_full", reason, "kept")


def _check_file(entry: Entry, name: str, stored: ImageFile, marks: bool) -> Iterator[Problem]:
    file = entry.filename
    if not entry.label and marks:
        yield Problem(file, "mask_on_good", f"a good image whose mask {name} marks a defect")
    if entry.label_ids:
        yield from _check_ids(entry, name, stored)
    if stored.lossy:
        reason = f"the mask {name} is compressed with loss: read above half of its largest value"
        yield Problem(file, "mask_lossy", reason, "kept")
    if stored.painted_alpha is not None:
        reason = f"the mask {name} is of one colour with transparent parts"
        yield Problem(file, "mask_alpha", reason, "kept, read from its alpha")
    if stored.frames > 1:
        reason = f"the mask {name} has {stored.frames} frames"
        yield Problem(file, "mask_frames", reason, "kept, read from the first")


def _check_ids(entry: Entry, name: str, stored: ImageFile) -> Iterator[Problem]:
    """Finds values in a mask of class ids that are none of the image's labels."""
    try:
        values = np.unique(stored.ids())
    except ImageFileError as error:
        yield Problem(entry.filename, "mask_ids", f"{name}: {error.reason}")
        return
    if strange := sorted(set(values.tolist()) - {0, *entry.label_ids}):
        ids = ", ".join(map(str, strange))
        labels = f"which are none of its labels {entry.defect_type}"
        single = len(entry.label_ids) == 1
        action = "kept, all of it as that label" if single else "kept, these pixels without a type"
        yield Problem(
            entry.filename, "mask_ids", f"the mask {name} has the ids {ids}, {labels}", action
        )
