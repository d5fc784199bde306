"""Prediction for files and folders, in which a damaged file does not stop the others."""

import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from promptmad_jax.data.image_files import ImageFileError, Reading
from promptmad_jax.data.user_files import IMAGE_SUFFIXES, images_below, no_images
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.outputs import staged
from promptmad_jax.serving.prediction import Predictor
from promptmad_jax.serving.results import SCORES, Options, Results, Scored, listed_files

_BATCH = 8
_BATCH_PIXELS = 64_000_000

Images = list[tuple[Path, Path]]


def find_images(paths: Iterable[str]) -> Images:
    """Returns (file, name of its results) for each image in files and, recursively, folders.

    Files in folders that are no images are counted on standard error; see `data.user_files`.

    Raises:
        UserError: a path does not exist, or no image is found.
    """
    found, passed_over = [], []
    for path in map(Path, paths):
        if os.path.isdir(path):
            images, others = images_below(path)
            found += [(image, image.relative_to(path)) for image in images]
            passed_over += others
        elif os.path.exists(path):
            found.append((path, Path(path.name)))
        else:
            raise UserError(f"{path} does not exist")
    if passed_over:
        print(no_images(passed_over), file=sys.stderr)
    if not found:
        raise UserError(
            "no images given; name files or folders with " + ", ".join(sorted(IMAGE_SUFFIXES))
        )
    return unique_names(found, set())


def unique_names(found: Images, taken: set[Path]) -> Images:
    """Numbers names whose results would overwrite each other (a.png and a.jpg, or two folders).

    Args:
        taken: names without suffixes that are not free; the new ones are added.
    """
    unique = []
    for path, name in found:
        stem, number = name.with_suffix(""), 1
        while stem in taken:
            number += 1
            stem = name.with_name(f"{name.stem}_{number}")
        taken.add(stem)
        unique.append((path, stem))
    return unique


def predict_files(
    predictor: Predictor,
    images: Images,
    class_name: str,
    folder: Path,
    options: Options,
) -> int:
    """Writes scores and files of the images into `folder`; returns the number of images scored.

    They replace those of an earlier prediction once all are written. A file that cannot be read is
    reported on standard error and in its row, and left out.

    Raises:
        UserError: no image could be read.
    """
    count = 0
    with staged(folder, SCORES, listed_files(folder)) as target:
        results = Results(target, options)
        results.write([])
        for scored in score(predictor, images, class_name, options.reading):
            results.add(scored)
            count += scored.prediction is not None
        if not count:
            raise UserError("none of the images could be read, as listed above; nothing is written")
    return count


def refuse_overlap(images: Images, output: str, flag: str) -> None:
    """Refuses outputs beside the images: an overlay could replace one, or be scored later."""
    target = Path(os.path.realpath(output))
    for path, _ in images:
        # Not `resolve`, which raises RuntimeError at a link to itself.
        if target in Path(os.path.realpath(path)).parents:
            raise UserError(f"{path} lies inside {flag}={output}; choose another output folder")


def score(
    predictor: Predictor, images: Images, class_name: str, reading: Reading
) -> Iterator[Scored]:
    """Reads and scores images; yields them in their order."""
    for batch in _batches(_read(path, name, reading) for path, name in images):
        readable = [one.image for one in batch if one.image is not None]
        predictions = iter(predictor(readable, class_name) if readable else ())
        for one in batch:
            yield one if one.image is None else replace(one, prediction=next(predictions))


def _batches(images: Iterable[Scored]) -> Iterator[list[Scored]]:
    """Groups images to be scored together: fewer of huge ones, for the memory they take."""
    batch: list[Scored] = []
    for item in images:
        batch.append(item)
        pictures = [one.image for one in batch if one.image is not None]
        if sum(image.shape[0] * image.shape[1] for image in pictures) > _BATCH_PIXELS:
            yield batch
            batch = []
        elif len(pictures) == _BATCH + 2:
            # Two wait: for a lone image at the end, a program of its own would be compiled.
            yield batch[:-2]
            batch = batch[-2:]
    if batch:
        yield batch


def _read(path: Path, name: Path, reading: Reading) -> Scored:
    try:
        image, remarks = reading.rgb(path)
    except ImageFileError as error:
        print(f"left out: {error}", file=sys.stderr)
        return Scored(path, name, None, [], str(error))
    for remark in remarks:
        print(f"warning: {path}: {remark}", file=sys.stderr)
    return Scored(path, name, image, remarks)
