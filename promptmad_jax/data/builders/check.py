"""Validation: every file is decoded completely before anything is written."""

import dataclasses
import os
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from promptmad_jax.data import preprocess
from promptmad_jax.data.builders.records import GOOD, Entry, Found, Problem
from promptmad_jax.data.paths import printable

_LEFT_OUT = "left out"
_EXIF_ORIENTATION = 0x0112


@dataclasses.dataclass(frozen=True)
class Checked:
    """An entry that passed.

    Attributes:
      entry: the entry.
      height, width: pixels, upright.
      verbatim: the file can be stored byte for byte, since every reader decodes it alike.
    """

    entry: Entry
    height: int
    width: int
    verbatim: bool


@dataclasses.dataclass(frozen=True)
class Inventory:
    """The usable images of a source, and everything wrong with it.

    Attributes:
      class_names: the classes with at least one usable training image, sorted.
      images: in the order (split, class, filename).
      problems: by file.
    """

    class_names: tuple[str, ...]
    images: tuple[Checked, ...]
    problems: tuple[Problem, ...]

    def of_split(self, split: str) -> tuple[Checked, ...]:
        return tuple(image for image in self.images if image.entry.split == split)


Track = Callable[[Iterable, int], Iterable]


def check(found: Found, track: Track) -> Inventory:
    """Decodes all images and masks on a pool of threads and sorts out the unusable ones.

    Args:
      found: the listing.
      track: wraps the iterable of results, given their number, to show progress.
    """
    images: list[Checked] = []
    problems = list(found.problems)
    # Pillow releases the interpreter lock while it decodes.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(lambda entry: _check_entry(entry, found), found.entries)
        for checked, remarks in track(results, len(found.entries)):
            problems += remarks
            if checked is not None:
                images.append(checked)
    usable = {image.entry.class_name for image in images if image.entry.split == "train"}
    problems += _class_problems(found, images, usable)
    images = [image for image in images if image.entry.class_name in usable]
    return Inventory(
        class_names=tuple(sorted(usable)),
        images=tuple(sorted(images, key=_order)),
        problems=tuple(sorted(problems, key=lambda problem: (problem.file, problem.kind))),
    )


def _order(image: Checked) -> tuple[str, str, str]:
    return image.entry.split, image.entry.class_name, image.entry.filename


def _check_entry(entry: Entry, found: Found) -> tuple[Checked | None, list[Problem]]:
    try:
        stored = preprocess.open_image(entry.image)
        height, width, _ = preprocess.to_rgb(stored, entry.image).shape
    except preprocess.ImageFileError as error:
        return None, [Problem(entry.filename, error.kind, error.reason, _LEFT_OUT)]
    remarks = _check_mask(entry, found, height, width)
    if any(remark.action == _LEFT_OUT for remark in remarks):
        return None, remarks
    plain = stored.format in ("PNG", "JPEG") and stored.mode in ("L", "RGB")
    verbatim = plain and stored.getexif().get(_EXIF_ORIENTATION, 1) == 1
    return Checked(entry, height, width, verbatim), remarks


def _check_mask(entry: Entry, found: Found, height: int, width: int) -> list[Problem]:
    if entry.split != "test":
        return []
    if entry.mask is None:
        return _without_mask(entry)
    name = _mask_name(entry, found)
    if not entry.mask.exists():
        return [Problem(entry.filename, "mask_missing", f"no mask {name}", _LEFT_OUT)]
    try:
        stored = preprocess.open_image(entry.mask)
        mask = preprocess.to_mask(stored, entry.mask)
    except preprocess.ImageFileError as error:
        return [Problem(entry.filename, f"mask_{error.kind}", f"{name}: {error.reason}", _LEFT_OUT)]
    if mask.shape != (height, width):
        sizes = f"{mask.shape[1]}x{mask.shape[0]}, the image {width}x{height}"
        return [Problem(entry.filename, "mask_size", f"the mask {name} is {sizes}", _LEFT_OUT)]
    lossy = _lossy(entry, name) if stored.format == "JPEG" else []
    return _contradictions(entry, name, mask) + _strange_ids(entry, name, stored) + lossy


def _lossy(entry: Entry, name: str) -> list[Problem]:
    reason = f"the mask {name} is compressed with loss: its noise above 0 counts as defective"
    return [Problem(entry.filename, "mask_lossy", reason, "kept")]


def _without_mask(entry: Entry) -> list[Problem]:
    if entry.without_mask == "error":
        return [Problem(entry.filename, "mask_missing", "no mask for a defect", _LEFT_OUT)]
    if entry.without_mask == "one":
        action = "kept, the whole image as defective"
        return [Problem(entry.filename, "mask_missing", "the list names no mask", action)]
    return []


def _contradictions(entry: Entry, name: str, mask: np.ndarray) -> list[Problem]:
    if entry.label and not mask.any():
        return [Problem(entry.filename, "mask_empty", f"the mask {name} marks nothing", _LEFT_OUT)]
    if not entry.label and mask.any():
        reason = f"a good image whose mask {name} marks a defect"
        return [Problem(entry.filename, "mask_on_good", reason, _LEFT_OUT)]
    return []


def _strange_ids(entry: Entry, name: str, stored: Image.Image) -> list[Problem]:
    """Values of a mask of class ids that are none of the image's labels."""
    if not entry.label_ids:
        return []
    try:
        values = np.unique(preprocess.to_ids(stored, entry.mask))
    except preprocess.ImageFileError as error:
        return [Problem(entry.filename, "mask_ids", f"{name}: {error.reason}", _LEFT_OUT)]
    strange = sorted(set(values.tolist()) - {0, *entry.label_ids})
    if not strange:
        return []
    ids = ", ".join(str(value) for value in strange)
    reason = f"the mask {name} has the ids {ids}, which are none of its labels {entry.defect_type}"
    single = len(entry.label_ids) == 1
    action = "kept, all of it as that label" if single else "kept, these pixels without a type"
    return [Problem(entry.filename, "mask_ids", reason, action)]


def _mask_name(entry: Entry, found: Found) -> str:
    base = found.source if found.source.is_dir() else found.source.parent
    return printable(os.path.relpath(entry.mask, base))


def _class_problems(found: Found, images: list[Checked], usable: set[str]) -> list[Problem]:
    count = Counter((image.entry.class_name, image.entry.split) for image in images)
    problems = []
    for name in sorted(found.class_names):
        tests = count[name, "test"]
        if name not in usable:
            action = f"class left out, with {tests} test images"
            reason = "no usable training image"
            problems.append(Problem(name, "empty_class", reason, action))
        elif tests == 0:
            problems.append(Problem(name, "no_test", "no usable test image", "kept for training"))
    return problems


def counts(inventory: Inventory) -> dict[str, dict]:
    """Per class: `train`, `test` by defect type, `masks` (test images with a defect), and
    `validation` where there are such images."""
    table = {name: {"train": 0, "test": Counter(), "masks": 0} for name in inventory.class_names}
    for image in inventory.images:
        row = table[image.entry.class_name]
        if image.entry.split != "test":
            row[image.entry.split] = row.get(image.entry.split, 0) + 1
        else:
            row["test"][image.entry.defect_type] += 1
            row["masks"] += image.entry.defect_type != GOOD
    return {name: {**row, "test": dict(sorted(row["test"].items()))} for name, row in table.items()}
