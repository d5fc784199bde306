"""Shapes of CLIP's parameters under our names, and the configuration that shapes imply."""

import functools
from collections.abc import Mapping

from flax import traverse_util

from promptmad_jax.clip.config import LEGACY_EOS, ClipConfig, ClipTextConfig, ClipVisionConfig
from promptmad_jax.clip.text import ClipText
from promptmad_jax.clip.transformer import graph_and_shapes
from promptmad_jax.clip.vision import ClipVision
from promptmad_jax.weights.key_table import Shapes

# open_clip's ViT-H, g and bigG have vision heads of 80, 88 and 104; all other heads are 64 wide.
_VISION_HEADS = {1280: 16, 1408: 16, 1664: 16}
_HEAD_WIDTH = 64


@functools.cache
def clip_shapes(config: ClipConfig) -> Shapes:
    """The shape of every parameter: `text/...`, `vision/...` and, with both, `logit_scale`."""
    towers = {"text": (ClipText, config.text), "vision": (ClipVision, config.vision)}
    trees = {side: graph_and_shapes(*tower)[1] for side, tower in towers.items() if tower[1]}
    flat = traverse_util.flatten_dict(trees, sep="/")
    shapes = {path: leaf.shape for path, leaf in flat.items()}
    return shapes | ({"logit_scale": ()} if len(trees) == 2 else {})


def text_from_shapes(shapes: Shapes, layers: int, activation: str) -> ClipTextConfig:
    """The text tower that these shapes imply; only layer 0 and what is outside the layers count.

    Raises:
        KeyError: a parameter is missing.
        ValueError: one has another number of dimensions.
    """
    vocabulary, width = shapes["text/token_embedding/embedding"]
    context, _ = shapes["text/position_embedding"]
    return ClipTextConfig(
        heads=max(width // _HEAD_WIDTH, 1),
        vocabulary=vocabulary,
        context=context,
        eos_id=LEGACY_EOS,
        **_common(shapes, "text", width, layers, activation),
    )


def vision_from_shapes(shapes: Shapes, layers: int, activation: str) -> ClipVisionConfig:
    """As `text_from_shapes`, the vision tower."""
    patch, _, _, width = shapes["vision/patch_embedding/kernel"]
    positions, _ = shapes["vision/position_embedding"]
    return ClipVisionConfig(
        heads=_VISION_HEADS.get(width, max(width // _HEAD_WIDTH, 1)),
        image=patch * round((positions - 1) ** 0.5),
        patch=patch,
        **_common(shapes, "vision", width, layers, activation),
    )


def _common(shapes: Shapes, side: str, width: int, layers: int, activation: str) -> Mapping:
    _, hidden = shapes[f"{side}/layers/0/lin1/kernel"]
    projection = f"{side}/projection/kernel"
    return {
        "width": width,
        "hidden": hidden,
        "layers": layers,
        "projection": shapes[projection][-1] if projection in shapes else None,
        "activation": activation,
    }
