"""The images of a zero-shot run: to learn from, and to be evaluated on."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from promptmad_jax.config import Config, absolute_paths, check_apart
from promptmad_jax.data.defect_types.images import (
    DefectTypeImages,
    load_defect_type_images,
    renumber,
)
from promptmad_jax.data.defect_types.source import load_source
from promptmad_jax.data.levels import PIXEL_RANGE
from promptmad_jax.data.preprocess import CLIP_KERNEL
from promptmad_jax.runtime.processes import leader_first, this_run


@dataclass(frozen=True)
class Source:
    """The images that a run learns from.

    Attributes:
        data: the images. type_masks: uint8 [N, S, S], k the type `words[k - 1]`.
        words: of the types that there are. fact: for the manifest. fingerprint: of all this.
    """

    data: DefectTypeImages
    type_masks: np.ndarray
    words: tuple[str, ...]
    fact: dict[str, dict]
    fingerprint: str


def load_target(config: Config) -> DefectTypeImages:
    """The test split that the run is evaluated on; see `load_defect_type_images` for errors."""
    data = config.data
    read = lambda: load_defect_type_images(
        data.dataset,
        data.data_dir,
        "test",
        data.image_size,
        data.taxonomy,
        data.classes,
        kernel=CLIP_KERNEL,
        cache_dir=data.cache,
    )
    return leader_first(this_run(), data.cache, read)


def target_facts(target: DefectTypeImages) -> dict[str, Any]:
    """The entries of the manifest that say what is tested."""
    images = target.images
    return {
        "test_images": len(target),
        "test_fingerprint": images.fingerprint,
        PIXEL_RANGE: images.levels and images.levels.to_json(),
    }


def source_cache(config: Config) -> str:
    """The folder of the source data set's caches."""
    return config.data.cache_dir or config.source.data_dir or config.data.data_dir


def read_source(config: Config) -> Source:
    """The images to train on; only the types that they show are trained.

    A word that no image shows could only be learnt to be wrong, and held-out products may need it.
    See `load_source` for errors.
    """
    source, cache = config.source, source_cache(config)
    read = lambda: load_source(
        source.dataset,
        source.data_dir or config.data.data_dir,
        config.data.image_size,
        source.taxonomy,
        source.classes,
        source.single_defect,
        kernel=CLIP_KERNEL,
        cache_dir=cache,
    )
    data, fact = leader_first(this_run(), cache, read)
    taxonomy = data.taxonomy
    there = sorted(frozenset().union(*data.type_ids))
    names = tuple(taxonomy.names[k - 1] for k in there)
    words = tuple(taxonomy.words[k - 1] for k in there)
    masks = renumber(data.type_masks, taxonomy.names, names)
    return Source(data, masks, words, fact, _fingerprint(data, words))


def _fingerprint(data: DefectTypeImages, words: tuple[str, ...]) -> str:
    """Images, the types of each, and what these are called."""
    ids = [sorted(image_ids) for image_ids in data.type_ids]
    content = json.dumps([data.images.fingerprint, ids, data.taxonomy.names, words])
    return hashlib.sha256(content.encode()).hexdigest()


def on_other_data(
    config: Config, dataset: str = "", data_dir: str = "", taxonomy: str = ""
) -> Config:
    """The configuration with another target; what is empty stays, all classes are taken.

    Raises:
        UserError: it was trained on.
    """
    given = {"dataset": dataset, "data_dir": data_dir, "taxonomy": taxonomy}
    given = {name: value for name, value in given.items() if value}
    given = absolute_paths({"data": given})["data"]
    if dataset:
        given = {"taxonomy": "", "classes": ()} | given
    other = dataclasses.replace(config, data=dataclasses.replace(config.data, **given))
    check_apart(other)
    return other
