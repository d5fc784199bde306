"""From a configuration to the parts of a zero-shot run."""

import dataclasses
import functools
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from promptmad_jax.clip.tokenizer import Tokenizer
from promptmad_jax.config import Config, check_apart
from promptmad_jax.data.defect_types.images import (
    DefectTypeImages,
    load_defect_type_images,
    renumber,
)
from promptmad_jax.data.defect_types.source import load_source
from promptmad_jax.data.preprocess import CLIP_KERNEL
from promptmad_jax.evaluation.zero_shot_inference import ZeroShotMapMaker
from promptmad_jax.models.functional import Params
from promptmad_jax.models.zero_shot.detector import FrozenClip, TrainableParts, ZeroShotDetector
from promptmad_jax.models.zero_shot.loading import Loaded, open_detector
from promptmad_jax.models.zero_shot.prompts import PromptTokens
from promptmad_jax.runtime.cpu.memory import hand_back_after_compilations
from promptmad_jax.runtime.mesh import make_mesh, open_channels, replicate
from promptmad_jax.runtime.processes import leader_first, this_run
from promptmad_jax.training.zero_shot_step import FrozenZeroShot


@dataclass(frozen=True)
class ZeroShotExperiment:
    """A run's static parts and frozen arrays; `network` draws what is trained."""

    config: Config
    mesh: Mesh
    detector: ZeroShotDetector
    frozen: FrozenClip
    tokenizer: Tokenizer
    network: TrainableParts

    @functools.cached_property
    def maker(self) -> ZeroShotMapMaker:
        """Inference."""
        batch_size = self.config.eval.batch_size
        return ZeroShotMapMaker(self.detector, self.frozen, self.mesh, batch_size)

    @property
    def caches(self) -> bool:
        """Whether what the image tower gives of a training image is computed once."""
        return self.config.train.cache_images and not self.config.dapo.image_tokens

    def frozen_inputs(self, words: tuple[str, ...]) -> FrozenZeroShot:
        """CLIP and the trained words, whose states are computed once where no text is trained."""
        tokens = self.tokens(words)
        if self.config.dapo.learns_text:
            return FrozenZeroShot(self.frozen, replicate(tokens, self.mesh))
        return FrozenZeroShot(self.frozen, self.maker.states({}, tokens))

    def tokens(self, words: tuple[str, ...], object_name: str = "object") -> PromptTokens:
        """The prompts of defect types in words."""
        return self.detector.tokens(self.tokenizer, words, object_name)


@dataclass(frozen=True)
class Source:
    """What is trained on.

    Attributes:
        data: the images. type_masks: uint8 [N, S, S], k the type `words[k - 1]`.
        words: of the types that there are. fact: for the manifest. fingerprint: of all this.
    """

    data: DefectTypeImages
    type_masks: np.ndarray
    words: tuple[str, ...]
    fact: dict[str, dict]
    fingerprint: str


def build_zero_shot(config: Config, loaded: Loaded | None = None) -> ZeroShotExperiment:
    """Lays CLIP on the mesh, read as configured if not given; see `open_detector` for errors."""
    mesh = make_mesh(config.mesh)
    open_channels(mesh)
    hand_back_after_compilations()
    if loaded is None:
        loaded = open_detector(config.dapo, config.clip)
    network = loaded.detector.network(loaded.frozen)
    frozen = replicate(loaded.frozen, mesh)
    return ZeroShotExperiment(config, mesh, loaded.detector, frozen, loaded.tokenizer, network)


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
    )
    return leader_first(this_run(), data.data_dir, read)


def target_facts(target: DefectTypeImages) -> dict[str, Any]:
    """The entries of the manifest that say what is tested."""
    return {"test_images": len(target), "test_fingerprint": target.images.fingerprint}


def source_folder(config: Config) -> Path:
    """Where the source data set lies."""
    return Path(config.source.data_dir or config.data.data_dir)


def read_source(config: Config) -> Source:
    """The images to train on; only the types that they show are trained.

    A word that no image shows could only be learnt to be wrong, and held-out products may need it.
    See `load_source` for errors.
    """
    source, folder = config.source, str(source_folder(config))
    read = lambda: load_source(
        source.dataset,
        folder,
        config.data.image_size,
        source.taxonomy,
        source.classes,
        source.single_defect,
        kernel=CLIP_KERNEL,
    )
    data, fact = leader_first(this_run(), folder, read)
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


def target_states(
    experiment: ZeroShotExperiment, params: Params, target: DefectTypeImages
) -> jax.Array:
    """The states [K + 1, d] of all types of the target."""
    return experiment.maker.states(params, experiment.tokens(target.taxonomy.words))


def on_other_data(
    config: Config, dataset: str = "", data_dir: str = "", taxonomy: str = ""
) -> Config:
    """The configuration with another target; what is empty stays, all classes are taken.

    Raises:
        UserError: it was trained on.
    """
    given = {"dataset": dataset, "data_dir": data_dir, "taxonomy": taxonomy}
    given = {name: value for name, value in given.items() if value}
    if dataset:
        given = {"taxonomy": "", "classes": ()} | given
    other = dataclasses.replace(config, data=dataclasses.replace(config.data, **given))
    check_apart(other)
    return other
