"""Validation of a source: every file is decoded completely before anything is written."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image

from promptmad_jax.data import preprocess
from promptmad_jax.data.builders.records import GOOD, LEFT_OUT, Entry, Found, Problem
from promptmad_jax.data.paths import printable

_EXIF_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Checked:
    """A usable entry, its upright size in pixels, and whether its file can be stored as it is,
    because every reader decodes it alike."""

    entry: Entry
    height: int
    width: int
    verbatim: bool


@dataclass(frozen=True)
class Inventory:
    """The usable images of a source, and everything wrong with it.

    Attributes:
      class_names: the classes with at least one usable training image, sorted.
      images: in the order (split, class, filename).
      problems: sorted by file.
    """

    class_names: tuple[str, ...]
    images: tuple[Checked, ...]
    problems: tuple[Problem, ...]

    def of_split(self, split: str) -> tuple[Checked, ...]:
        return tuple(image for image in self.images if image.entry.split == split)


Track = Callable[[Iterable, int], Iterable]


def check(found: Found, track: Track) -> Inventory:
    """Decodes all images and masks on a pool of threads and leaves out the unusable ones.

    Args:
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
    problems += [*_class_problems(found, images, usable), *_type_problems(found, images, problems)]
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
        return None, [Problem(entry.filename, error.kind, error.reason)]
    remarks = list(_check_masks(entry, found, (height, width)))
    if any(remark.action == LEFT_OUT for remark in remarks):
        return None, remarks
    plain = stored.format in ("PNG", "JPEG") and stored.mode in ("L", "RGB")
    verbatim = plain and stored.getexif().get(_EXIF_ORIENTATION, 1) == 1
    return Checked(entry, height, width, verbatim), remarks


def _check_masks(entry: Entry, found: Found, size: tuple[int, int]) -> Iterator[Problem]:
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
    marked = False
    for path in entry.masks:
        name = printable(os.path.relpath(path, base))
        if not path.exists():
            yield Problem(file, "mask_missing", f"no mask {name}")
            return
        try:
            stored = preprocess.open_image(path)
            mask = preprocess.to_mask(stored, path)
        except preprocess.ImageFileError as error:
            yield Problem(file, f"mask_{error.kind}", f"{name}: {error.reason}")
            return
        if mask.shape != size:
            sizes = f"{mask.shape[1]}x{mask.shape[0]}, the image {size[1]}x{size[0]}"
            yield Problem(file, "mask_size", f"the mask {name} is {sizes}")
            return
        marked |= bool(mask.any())
        yield from _check_values(entry, name, stored, marks=mask.any())
    if entry.label and not marked:
        yield Problem(file, "mask_empty", f"the mask {name} marks nothing")


def _check_values(entry: Entry, name: str, stored: Image.Image, marks: bool) -> Iterator[Problem]:
    file = entry.filename
    if not entry.label and marks:
        yield Problem(file, "mask_on_good", f"a good image whose mask {name} marks a defect")
    if entry.label_ids:
        yield from _check_ids(entry, name, stored)
    if stored.format == "JPEG":
        reason = f"the mask {name} is compressed with loss: its noise above 0 counts as defective"
        yield Problem(file, "mask_lossy", reason, "kept")


def _check_ids(entry: Entry, name: str, stored: Image.Image) -> Iterator[Problem]:
    """Finds values in a mask of class ids that are none of the image's labels."""
    try:
        values = np.unique(preprocess.to_ids(stored, entry.masks[0]))
    except preprocess.ImageFileError as error:
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


def _class_problems(found: Found, images: list[Checked], usable: set[str]) -> Iterator[Problem]:
    count = Counter((image.entry.class_name, image.entry.split) for image in images)
    for name in sorted(found.class_names):
        tests = count[name, "test"]
        if name not in usable:
            action = f"class left out, with {tests} test images"
            yield Problem(name, "empty_class", "no usable training image", action)
        elif tests == 0:
            yield Problem(name, "no_test", "no usable test image", "kept for training")


def _type_problems(
    found: Found, images: list[Checked], problems: list[Problem]
) -> Iterator[Problem]:
    """Finds the defect types of which no image is left."""
    tests = [entry for entry in found.entries if entry.split == "test"]
    listed = Counter((entry.class_name, entry.defect_type) for entry in tests)
    first_fault = {problem.file: problem for problem in reversed(problems)}
    usable = {(image.entry.class_name, image.entry.defect_type) for image in images}
    for name, defect in sorted({*found.types.values(), *listed} - usable):
        what = "normal test image" if defect == GOOD else f"defective image of the type {defect}"
        lost = [entry for entry in tests if (entry.class_name, entry.defect_type) == (name, defect)]
        fault = next((first_fault[e.filename] for e in lost if e.filename in first_fault), None)
        why = f" of {len(lost)}; the first fault: {fault.file}: {fault.reason}" if fault else ""
        yield Problem(f"{name}/{defect}", "empty_type", f"no usable {what}{why}", "type left out")


def counts(inventory: Inventory) -> dict[str, dict]:
    """Counts the images per class: `train`, `test` by defect type, `masks` (test images with a
    defect), and `validation` if it has any."""
    table = {name: {"train": 0, "test": Counter(), "masks": 0} for name in inventory.class_names}
    for image in inventory.images:
        row = table[image.entry.class_name]
        if image.entry.split != "test":
            row[image.entry.split] = row.get(image.entry.split, 0) + 1
        else:
            row["test"][image.entry.defect_type] += 1
            row["masks"] += image.entry.defect_type != GOOD
    return {name: {**row, "test": dict(sorted(row["test"].items()))} for name, row in table.items()}
