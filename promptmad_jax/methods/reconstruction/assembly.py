"""From a configuration to the parts of a run: what train, evaluate and predict have in common."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh

from promptmad_jax.config import ZERO_SHOT, Config
from promptmad_jax.data.holdout import hold_out
from promptmad_jax.data.image_set import ImageSet, load_image_set
from promptmad_jax.evaluation.inference import MapMaker
from promptmad_jax.models.backbone.backbone import Backbone, build_backbone, load_backbone
from promptmad_jax.models.functional import Network, Params
from promptmad_jax.models.layers.attention import Text
from promptmad_jax.models.reconstruction.detector import Detector, Frozen
from promptmad_jax.models.reconstruction.onenip import OneNIP
from promptmad_jax.models.reconstruction.promptmad import PromptMAD
from promptmad_jax.models.reconstruction.uniad import UniAD
from promptmad_jax.prompts.embeddings import TextTokens, encode_classes
from promptmad_jax.runtime.cpu.chunking import WHOLE_BATCH, Chunking, chunking_for
from promptmad_jax.runtime.cpu.memory import hand_back_after_compilations
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.mesh import make_mesh, open_channels, replicate
from promptmad_jax.runtime.processes import leader_first, this_run


@dataclass(frozen=True)
class Experiment:
    """A run's static parts and frozen arrays; text is None for a model without."""

    config: Config
    mesh: Mesh
    detector: Detector
    frozen: Frozen
    class_names: tuple[str, ...]
    text: TextTokens | None

    @property
    def network(self) -> Network:
        """What is trained."""
        return self.detector.network

    def map_maker(self, prompts: np.ndarray) -> MapMaker:
        """Inference with one prompt image uint8 [K, S, S, 3] a class."""
        return MapMaker(self.detector, self.frozen, self.mesh, self.config.eval.batch_size, prompts)


class Splits(NamedTuple):
    """The resized images of the configured classes: to train on, normal ones held out of training
    (none where `data.holdout` is 0), and to test on."""

    train: ImageSet
    held: ImageSet
    test: ImageSet


def load_splits(config: Config) -> Splits:
    """Reads the prepared data set; see `load_image_set` for errors."""
    data = config.data
    read = lambda: [
        load_image_set(data.dataset, data.data_dir, split, data.image_size, data.classes)
        for split in ("train", "test")
    ]
    train, test = leader_first(this_run(), data.data_dir, read)
    return Splits(*hold_out(train, data.holdout), test)


def class_text(config: Config, class_names: tuple[str, ...]) -> TextTokens | None:
    """The text tokens of the classes; None for a model without text."""
    if config.model != "promptmad":
        return None
    cache = str(Path(config.data.data_dir) / "text_cache")
    encode = lambda: encode_classes(config.text, class_names, cache)
    return leader_first(this_run(), config.data.data_dir, encode)


def build_experiment(
    config: Config,
    class_names: tuple[str, ...],
    text: TextTokens | None,
    backbone_params: Params | None = None,
) -> Experiment:
    """Lays backbone and text tokens on the mesh.

    Args:
        text: from `class_text`, or as a run keeps it.
        backbone_params: None loads those of the configuration.
    """
    refuse_zero_shot(config)
    mesh = make_mesh(config.mesh)
    open_channels(mesh)
    hand_back_after_compilations()
    if backbone_params is None:
        backbone, backbone_params = load_backbone(config.backbone)
    else:
        backbone = build_backbone(config.backbone)
    tokens = None if text is None else Text(text.tokens, text.mask)
    chunking = chunking_for(mesh, config.data.image_size)
    detector = make_detector(config, backbone, text, chunking)
    frozen = replicate(Frozen(backbone_params, tokens), mesh)
    return Experiment(config, mesh, detector, frozen, class_names, text)


def refuse_zero_shot(config: Config) -> None:
    """Raises UserError for a zero-shot detector, where only others have the parts."""
    if config.model == ZERO_SHOT:
        raise UserError(
            "this is a zero-shot detector, and those have train, evaluate, predict --defects and "
            "report alone"
        )


def make_detector(
    config: Config,
    backbone: Backbone,
    text: TextTokens | Text | None,
    chunking: Chunking = WHOLE_BATCH,
) -> Detector:
    """The static detector of a configuration; of the text only the width is read."""
    refuse_zero_shot(config)
    text_width = 0 if text is None else text.tokens.shape[-1]
    size = config.data.image_size
    grid = (size // 16, size // 16)
    limit = config.reconstructor.attention_pass or chunking.attention
    reconstructor = dataclasses.replace(config.reconstructor, attention_pass=limit)
    limit = config.segmentor.fine_pass or chunking.fine
    segmentor = dataclasses.replace(config.segmentor, fine_pass=limit)
    channels = backbone.channels
    match config.model:
        case "uniad":
            model = UniAD
            build = lambda rngs: UniAD(reconstructor, sum(channels), grid, rngs)
        case "onenip":
            model = OneNIP
            build = lambda rngs: OneNIP(reconstructor, config.refiner, sum(channels), grid, rngs)
        case "promptmad":
            model = PromptMAD
            build = lambda rngs: PromptMAD(
                reconstructor, segmentor, config.diffusion, channels, grid, text_width, rngs
            )
    return Detector(backbone, Network.create(build), size, model.uses_fine_levels, chunking)


def class_prompts(train: ImageSet, index: int) -> np.ndarray:
    """One prompt image a class: the index-th of its training images (the last, if it has fewer)."""
    rows = []
    for k in range(len(train.class_names)):
        members = np.flatnonzero(train.class_ids == k)
        rows.append(members[min(index, len(members) - 1)])
    return np.asarray(train.images[np.array(rows)])
