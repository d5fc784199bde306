"""Validation of a source: every file is decoded completely before anything is written."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from promptmad_jax.data.builders.depth_check import depth_problems
from promptmad_jax.data.builders.mask_check import check_masks
from promptmad_jax.data.builders.records import GOOD, LEFT_OUT, Entry, Found, Problem
from promptmad_jax.data.image_files import MAX_MEGAPIXELS, ImageFileError, opened
from promptmad_jax.data.levels import Levels, Values, find_levels, measure

_FIRST = "kept, read from the first"


@dataclass(frozen=True)
class Checked:
    """A usable entry.

    Attributes:
      height, width: of the upright image, pixels.
      verbatim: True if its file can be stored as it is, because every reader decodes it alike.
      values: the range of its stored values.
      frames: number of frames in its file.
    """

    entry: Entry
    height: int
    width: int
    verbatim: bool
    values: Values
    frames: int


@dataclass(frozen=True)
class Inventory:
    """The usable images of a source, and everything wrong with it.

    Attributes:
      class_names: the classes with at least one usable training image, sorted.
      images: in the order (split, class, filename).
      problems: sorted by file.
      levels: the black and the white of images with more than 8 bits; None if all have 8.
    """

    class_names: tuple[str, ...]
    images: tuple[Checked, ...]
    problems: tuple[Problem, ...]
    levels: Levels | None

    def of_split(self, split: str) -> tuple[Checked, ...]:
        return tuple(image for image in self.images if image.entry.split == split)


Track = Callable[[Iterable, int], Iterable]


def check(
    found: Found, track: Track, bit_depth: int = 0, max_megapixels: float = MAX_MEGAPIXELS
) -> Inventory:
    """Decodes all images and masks on a pool of threads and leaves out the unusable ones.

    Args:
      track: wraps the iterable of results, given their number, to show progress.
      bit_depth: of images with more than 8 bits; 0 finds it from the training images.
      max_megapixels: larger images are left out.
    """
    images: list[Checked] = []
    problems = list(found.problems)
    # Pillow releases the interpreter lock while it decodes.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(lambda entry: _check_entry(entry, found, max_megapixels), found.entries)
        for checked, remarks in track(results, len(found.entries)):
            problems += remarks
            if checked is not None:
                images.append(checked)
    levels = Levels.of_bits(bit_depth) if bit_depth else _find_levels(images)
    if levels is None:
        problems += [_too_deep(image) for image in images if image.values.kind != "8-bit"]
        images = [image for image in images if image.values.kind == "8-bit"]
    usable = {image.entry.class_name for image in images if image.entry.split == "train"}
    problems += _class_problems(found, images, usable, levels)
    problems += list(_type_problems(found, images, problems))
    images = [image for image in images if image.entry.class_name in usable]
    return Inventory(
        class_names=tuple(sorted(usable)),
        images=tuple(sorted(images, key=_order)),
        problems=tuple(sorted(problems, key=lambda problem: (problem.file, problem.kind))),
        levels=levels if any(image.values.kind != "8-bit" for image in images) else None,
    )


def _find_levels(images: list[Checked]) -> Levels | None:
    return find_levels(image.values for image in images if image.entry.split == "train")


def _too_deep(image: Checked) -> Problem:
    reason = "holds more than 8 bits, unlike all training images; --bit_depth=N says how many"
    return Problem(image.entry.filename, "bit_depth", reason)


def _order(image: Checked) -> tuple[str, str, str]:
    return image.entry.split, image.entry.class_name, image.entry.filename


def _check_entry(
    entry: Entry, found: Found, max_megapixels: float
) -> tuple[Checked | None, list[Problem]]:
    try:
        checked = _read(entry, max_megapixels)
    except ImageFileError as error:
        return None, [Problem(entry.filename, error.kind, error.reason)]
    size = checked.height, checked.width
    remarks = list(check_masks(entry, found, size, max_megapixels))
    left_out = any(remark.action == LEFT_OUT for remark in remarks)
    return (None if left_out else checked), remarks


def _read(entry: Entry, max_megapixels: float) -> Checked:
    with opened(entry.image, max_megapixels) as file:
        height, width = file.values.shape[:2]
        return Checked(entry, height, width, file.plain, measure(file.values), file.frames)


def _class_problems(
    found: Found, images: list[Checked], usable: set[str], levels: Levels | None
) -> Iterator[Problem]:
    for name in sorted(found.class_names):
        own = [image for image in images if image.entry.class_name == name]
        train = [image.values for image in own if image.entry.split == "train"]
        tests = sum(image.entry.split == "test" for image in own)
        yield from depth_problems(name, train, [image.values for image in own], levels)
        if several := sum(image.frames > 1 for image in own):
            yield Problem(name, "frames", f"{several} images have several frames", _FIRST)
        if name not in usable:
            action = f"class left out, with {tests} test images"
            yield Problem(name, "empty_class", "no usable training image", action)
        elif tests == 0:
            yield Problem(name, "no_test", "no usable test image", "trained on, but not measured")


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
