"""Zero-shot detectors on CLIP's weights from files, or on random ones."""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from promptmad_jax.clip.config import ClipConfig, ClipTextConfig, ClipVisionConfig, TowerConfig
from promptmad_jax.clip.files import find_files, tokenizer_of
from promptmad_jax.clip.loading import load_clip
from promptmad_jax.clip.text import ClipText
from promptmad_jax.clip.tokenizer import Tokenizer, byte_tokenizer
from promptmad_jax.clip.transformer import graph_and_shapes
from promptmad_jax.clip.vision import ClipVision
from promptmad_jax.models.zero_shot.config import DapoConfig
from promptmad_jax.models.zero_shot.detector import FrozenClip, ZeroShotDetector
from promptmad_jax.runtime.field_types import ImageSize, Layers, Seed, Width


@dataclass(frozen=True)
class ClipSource:
    """The CLIP model of a zero-shot detector; all but `weights` shapes the random towers.

    Attributes:
        weights: a Hugging Face id, a weight file, or a folder with weights, config.json and
            tokenizer; or "random", untrained towers over bytes whose maps mean nothing, for smoke
            tests.
        width: width of both random towers.
        layers: depth of both random towers.
        heads: attention heads of both random towers; must divide `width`.
        image: side of the images that the position table is made for, in pixels.
        patch: side of a patch, in pixels.
        projection: width of the shared space of images and texts.
        context: length of the text tower's position table, in tokens.
        seed: of the random towers.

    Raises:
        ValueError: heads does not divide width.
    """

    weights: str = "openai/clip-vit-large-patch14-336"
    width: Width = 32
    layers: Layers = 4
    heads: Width = 2
    image: ImageSize = 64
    patch: Width = 16
    projection: Width = 32
    context: Width = 160
    seed: Seed = 0

    def __post_init__(self):
        if self.width % self.heads:
            raise ValueError(f"heads={self.heads} must divide width={self.width}")

    def random_config(self) -> ClipConfig:
        """The shape of the random towers."""
        tower = {name: getattr(self, name) for name in ("width", "heads", "layers", "projection")}
        tower["hidden"] = 4 * self.width
        return ClipConfig(
            ClipTextConfig(**tower, context=self.context),
            ClipVisionConfig(**tower, image=self.image, patch=self.patch),
        )


class Loaded(NamedTuple):
    """A detector, the frozen weights of its CLIP, and CLIP's tokenizer."""

    detector: ZeroShotDetector
    frozen: FrozenClip
    tokenizer: Tokenizer


def open_detector(config: DapoConfig, source: ClipSource) -> Loaded:
    """Builds a detector on the CLIP of `source`; see `load_detector` and `random_detector`."""
    if source.weights == "random":
        return random_detector(config, source.random_config(), source.seed)
    return load_detector(config, source.weights, "clip.weights")


def load_detector(config: DapoConfig, weights: str, setting: str) -> Loaded:
    """Builds a detector on a CLIP model with both towers.

    Args:
        weights: as `ClipSource.weights`, from files.
        setting: the config key that holds `weights`, for messages.

    Raises:
        UserError: files are missing or damaged, or do not fit together or to `config`.
    """
    files = find_files(weights, setting)
    clip, params = load_clip(files.weights, files.config)
    detector = ZeroShotDetector.create(config, clip)
    return Loaded(detector, _frozen(params, config.dtype), tokenizer_of(files, clip.text))


def random_detector(config: DapoConfig, clip: ClipConfig, seed: int) -> Loaded:
    """Builds a detector on untrained towers over bytes, whose maps mean nothing.

    The text tower's vocabulary and end token are those of the bytes, whatever `clip` says.

    Raises:
        UserError: `clip` does not fit `config`.
    """
    tokenizer = byte_tokenizer()
    text = replace(clip.text, vocabulary=len(tokenizer), eos_id=tokenizer.end)
    clip = ClipConfig(text, clip.vision)
    detector = ZeroShotDetector.create(config, clip)
    rng = np.random.default_rng(seed)
    params = {
        "text": _draw(ClipText, text, 1.0, rng),
        "vision": _draw(ClipVision, clip.vision, clip.vision.width**-0.5, rng),
    }
    return Loaded(detector, _frozen(params, config.dtype), tokenizer)


def _draw(
    tower: type[nnx.Module], config: TowerConfig, embedding: float, rng: np.random.Generator
) -> dict:
    """Draws the parameters of a tower; `embedding` is the deviation of its embeddings.

    On the host: the modules' own initialisers compile for seconds.
    """

    def draw(path: tuple, leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        name = path[-1].key
        if name in ("scale", "bias"):
            return np.full(leaf.shape, name == "scale", np.float32)
        deviation = math.prod(leaf.shape[:-1]) ** -0.5 if name == "kernel" else embedding
        return deviation * rng.standard_normal(leaf.shape, np.float32)

    return jax.tree_util.tree_map_with_path(draw, graph_and_shapes(tower, config)[1])


def _frozen(params: dict, dtype: str) -> FrozenClip:
    cast = lambda tree, dtype: jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), tree)
    return FrozenClip(cast(params["text"], jnp.float32), cast(params["vision"], dtype))
