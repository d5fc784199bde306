"""The images of a run: to train on, to set thresholds with, and to test on."""

import hashlib
import json
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from promptmad_jax.config import Config
from promptmad_jax.data.holdout import hold_out
from promptmad_jax.data.image_set import ImageSet, joined, load_image_set, normal_set
from promptmad_jax.evaluation.calibration import NormalImages
from promptmad_jax.runs.enrolled import ADDED, images_by_class
from promptmad_jax.runs.workdir import Workdir
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.processes import leader_first, this_run


class Splits(NamedTuple):
    """The resized images of the configured classes.

    Attributes:
        held: normal images held out of training; none where `data.holdout` is 0.
        test: none where the data set holds good parts alone.
        enrolled: images that the run was given later; their class names are all of the run's.
    """

    train: ImageSet
    held: ImageSet
    test: ImageSet
    enrolled: NormalImages | None = None


def load_splits(config: Config, files: Workdir | None = None) -> Splits:
    """Reads the prepared data set, and the images added in the run's folder `files`.

    Raises:
        UserError: see `load_image_set`; or the run has no data set, or its added images are gone.
    """
    read = lambda: [_load(config, split, files) for split in ("train", "test")]
    train, test = leader_first(this_run(), config.data.cache, read)
    return Splits(*hold_out(train, config.data.holdout), test)


def load_test_images(config: Config, files: Workdir) -> ImageSet:
    """Reads the test split alone."""
    return _load(config, "test", files)


def _load(config: Config, split: str, files: Workdir | None) -> ImageSet:
    if not config.data.added:
        return _prepared(config, split)
    added = _added(files)
    if split != "train":
        added = added.select([])
    return joined(_prepared(config, split), added) if config.data.dataset else added


def _added(files: Workdir | None) -> ImageSet:
    classes = images_by_class(files, ADDED) if files is not None else {}
    if not classes:
        raise UserError(
            f"{files and files.path / ADDED} holds none of the images that the run was trained on: "
            "restore it from a copy of the run"
        )
    images = np.concatenate([own.images for own in classes.values()])
    ids = np.repeat(np.arange(len(classes)), [len(own.images) for own in classes.values()])
    names = tuple(name for own in classes.values() for name in own.filenames)
    digest = hashlib.sha256(json.dumps([names, ids.tolist()]).encode() + images.tobytes())
    added = normal_set(images, ids, tuple(classes), names)
    levels = next(iter(classes.values())).levels
    return replace(added, fingerprint=digest.hexdigest(), levels=levels)


def _prepared(config: Config, split: str) -> ImageSet:
    data = config.data
    if not data.dataset:
        raise UserError(
            "the run has no data set, since its classes were enrolled: `promptmad evaluate "
            "--dataset=NAME --data_dir=DIR` tests it on that of a prepared one, and `promptmad "
            "retrain` trains a run on its images"
        )
    return load_image_set(
        data.dataset,
        data.data_dir,
        split,
        data.image_size,
        data.classes,
        cache_dir=data.cache,
        required=split == "train",
    )


def class_prompts(train: ImageSet, index: int) -> np.ndarray:
    """One prompt image per class, uint8 [K, S, S, 3]: its training image number `index`, or the
    last where it has fewer."""
    rows = []
    for k in range(len(train.class_names)):
        members = np.flatnonzero(train.class_ids == k)
        rows.append(members[min(index, len(members) - 1)])
    return np.asarray(train.images[np.array(rows)])


def further_prompts(config: Config, train: ImageSet, count: int) -> list[np.ndarray]:
    """The prompt images of each class that follow the configured one, `count` - 1 sets of them.

    Raises:
        UserError: the model takes no prompt image, or a class has too few images.
    """
    if count == 1:
        return []
    if config.model == "uniad":
        raise UserError(f"--prompts={count}: UniAD takes no prompt image; leave it out")
    first = config.eval.prompt_index
    fewest = int(np.bincount(train.class_ids).min())
    if first + count > fewest:
        raise UserError(
            f"--prompts={count}: the smallest class has {fewest} training images, and "
            f"eval.prompt_index is {first}; give at most {max(1, fewest - first)}"
        )
    return [class_prompts(train, index) for index in range(first + 1, first + count)]
