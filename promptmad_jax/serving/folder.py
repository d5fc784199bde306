"""Prediction for files and folders, in which a damaged file does not stop the others."""

import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from promptmad_jax.data.image_files import DEFAULT_READING, ImageFileError, Reading
from promptmad_jax.data.user_files import IMAGE_SUFFIXES, images_below, no_images
from promptmad_jax.reporting.overlay import overlay
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.outputs import staged
from promptmad_jax.serving.prediction import Prediction, Predictor
from promptmad_jax.serving.result import make_result

_BATCH = 8
_BATCH_PIXELS = 64_000_000
_SCORES = "scores.jsonl"
_FILES = ("map", "overlay", "types_picture")  # fields of its rows

Images = list[tuple[Path, Path]]


def find_images(paths: Iterable[str]) -> list[tuple[Path, Path]]:
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
    return _unique(found)


def _unique(found: list[tuple[Path, Path]]) -> list[tuple[Path, Path]]:
    """Numbers names whose results would overwrite each other (a.png and a.jpg, or two folders)."""
    taken: set[Path] = set()
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
    folder: os.PathLike[str],
    reading: Reading = DEFAULT_READING,
) -> int:
    """Writes scores.jsonl, maps and overlays into `folder`; returns the number of images scored.

    They replace those of an earlier prediction once all are written. A file that cannot be read is
    reported on standard error and in scores.jsonl, and left out.

    Raises:
        UserError: no image could be read.
    """
    count = 0
    old = _listed(Path(folder) / _SCORES)
    with staged(folder, _SCORES, old) as target, (target / _SCORES).open("w") as scores:
        for readable in _batches(_decode(images, scores, reading)):
            predictions = predictor([image for _, _, image, _ in readable], class_name)
            for (path, name, image, row), prediction in zip(readable, predictions, strict=True):
                row |= _write(target, path, name, image, prediction)
                scores.write(json.dumps(row) + "\n")
            scores.flush()
            count += len(readable)
        if not count:
            raise UserError("none of the images could be read, as listed above; nothing is written")
    return count


def _listed(scores: Path) -> list[str]:
    """The files that the rows of a scores.jsonl name."""
    try:
        rows = [json.loads(line) for line in scores.read_text().splitlines()]
        named = [row.get(key) for row in rows for key in row if key in _FILES]
    except (OSError, ValueError, AttributeError):
        return []
    paths = [Path(name) for name in named if isinstance(name, str)]
    return [str(path) for path in paths if not path.is_absolute() and ".." not in path.parts]


def refuse_overlap(images: Images, output: str) -> None:
    """Refuses outputs beside the images: an overlay could replace one, or be scored later."""
    target = Path(output).resolve()
    for path, _ in images:
        if target in path.resolve().parents:
            raise UserError(f"{path} lies inside --output={output}; choose another output folder")


_Readable = tuple[Path, Path, np.ndarray, dict]


def _batches(readable: Iterable[_Readable]) -> Iterator[list[_Readable]]:
    """Groups images to be scored together: fewer of huge ones, for the memory they take."""
    batch: list[_Readable] = []
    for item in readable:
        batch.append(item)
        pixels = sum(image.shape[0] * image.shape[1] for _, _, image, _ in batch)
        if len(batch) == _BATCH or pixels > _BATCH_PIXELS:
            yield batch
            batch = []
    if batch:
        yield batch


def _decode(group, scores, reading: Reading) -> Iterator[_Readable]:
    """Yields path, name, image and the start of its row, with what was odd about its pixels."""
    for path, name in group:
        try:
            image, remarks = reading.rgb(path)
        except ImageFileError as error:
            print(f"left out: {error}", file=sys.stderr)
            scores.write(json.dumps({"file": str(path), "error": str(error)}) + "\n")
            continue
        for remark in remarks:
            print(f"warning: {path}: {remark}", file=sys.stderr)
        yield path, name, image, {"warnings": remarks} if remarks else {}


def _write(target: Path, path: Path, name: Path, image: np.ndarray, prediction: Prediction) -> dict:
    """Writes map, overlay and other pictures, in the image's size; returns the scores.jsonl row."""
    result = make_result(prediction, *image.shape[:2])
    map_path, overlay_path = (target / f"{name}{suffix}" for suffix in (".npy", ".png"))
    map_path.parent.mkdir(parents=True, exist_ok=True)
    np.save(map_path, result.map)
    Image.fromarray(overlay(image, result.map, *prediction.score_range)).save(overlay_path)
    row = {"file": str(path), "class_name": result.class_name, "score": result.score}
    row |= result.details
    if result.verdict is not None:
        regions = [region._asdict() for region in result.regions]
        row |= {"threshold": result.threshold, "verdict": result.verdict, "reason": result.reason}
        row |= {"novelty": result.novelty, "regions": regions}
    paths = {"map": map_path, "overlay": overlay_path}
    for word, picture in prediction.pictures.items():
        paths[f"{word}_picture"] = target / f"{name}_{word}.png"
        sized = Image.fromarray(picture).resize(image.shape[1::-1], Image.Resampling.NEAREST)
        sized.save(paths[f"{word}_picture"])
    return row | {key: str(path.relative_to(target)) for key, path in paths.items()}
