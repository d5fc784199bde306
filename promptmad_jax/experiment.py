"""From a configuration to the parts of a run: what train, evaluate and predict have in common."""

from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from promptmad_jax.config import Config
from promptmad_jax.data.image_set import ImageSet, load_image_set
from promptmad_jax.evaluation.inference import MapMaker
from promptmad_jax.models.attention import Text
from promptmad_jax.models.backbone import load_backbone
from promptmad_jax.models.detector import Detector, Frozen
from promptmad_jax.models.functional import Network
from promptmad_jax.models.onenip import OneNIP
from promptmad_jax.models.promptmad import PromptMAD
from promptmad_jax.prompts.embeddings import TextTokens, encode_classes
from promptmad_jax.runtime.mesh import make_mesh, replicated


@dataclass(frozen=True)
class Experiment:
    """A run's static parts and frozen arrays; text is None for a model without."""

    config: Config
    mesh: Mesh
    detector: Detector
    frozen: Frozen
    class_names: tuple[str, ...]
    text: TextTokens | None

    def map_maker(self, prompts: np.ndarray) -> MapMaker:
        """Inference with one prompt image uint8 [K, S, S, 3] a class."""
        return MapMaker(self.detector, self.frozen, self.mesh, self.config.eval.batch_size, prompts)


def load_split(config: Config, split: str) -> ImageSet:
    """The resized images of a split, of the configured classes."""
    data = config.data
    return load_image_set(data.dataset, data.data_dir, split, data.image_size, data.classes)


def build_experiment(
    config: Config, class_names: tuple[str, ...], text: TextTokens | None = None
) -> Experiment:
    """Loads backbone and text tokens and lays them on the mesh.

    Args:
        text: tokens that were computed before; None encodes the class names' phrases.
    """
    mesh = make_mesh(config.mesh)
    backbone, backbone_params = load_backbone(config.backbone)
    if config.model == "promptmad" and text is None:
        text = encode_classes(
            config.text, class_names, str(Path(config.data.data_dir) / "text_cache")
        )
    tokens = Text(text.tokens, text.mask) if config.model == "promptmad" else None
    detector = make_detector(config, backbone, text.tokens.shape[-1] if tokens else 0)
    frozen = jax.device_put(Frozen(backbone_params, tokens), replicated(mesh))
    return Experiment(config, mesh, detector, frozen, class_names, text)


def make_detector(config: Config, backbone, text_width: int) -> Detector:
    """The static detector of a configuration."""
    size = config.data.image_size
    grid = (size // 16, size // 16)
    if config.model == "onenip":
        build = lambda rngs: OneNIP(
            config.reconstructor, config.refiner, sum(backbone.channels), grid, rngs
        )
        fine = OneNIP.uses_fine_levels
    else:
        build = lambda rngs: PromptMAD(
            config.reconstructor,
            config.segmentor,
            config.diffusion,
            backbone.channels,
            grid,
            text_width,
            rngs,
        )
        fine = PromptMAD.uses_fine_levels
    return Detector(backbone, Network.create(build), size, fine)


def class_prompts(train: ImageSet, index: int) -> np.ndarray:
    """One prompt image a class: the index-th of its training images (the last, if it has fewer)."""
    rows = []
    for k in range(len(train.class_names)):
        members = np.flatnonzero(train.class_ids == k)
        rows.append(members[min(index, len(members) - 1)])
    return np.asarray(train.images[np.array(rows)])
