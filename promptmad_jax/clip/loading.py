"""A tower of CLIP from its files."""

from pathlib import Path

import numpy as np
from absl import logging
from flax import nnx, traverse_util

from promptmad_jax.clip.text import ClipText
from promptmad_jax.clip.transformer import graph_and_shapes
from promptmad_jax.clip.vision import ClipVision
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.weights.clip import infer_config, read_canonical
from promptmad_jax.weights.clip_config import (
    ClipConfig,
    ClipTextConfig,
    ClipVisionConfig,
    TowerConfig,
    read_config,
)
from promptmad_jax.weights.files import read_tensors

_TOWERS = {"text": ClipText, "vision": ClipVision}


def load_text(weights: Path, config: Path | None) -> tuple[ClipTextConfig, nnx.GraphDef, dict]:
    """The text tower of a weight file: configuration, graph, nested float32 parameters.

    Args:
        weights: tensors in any format of `weights.clip`, of a whole CLIP or of the tower alone.
        config: config.json in Hugging Face's form; without one the sizes follow from the weights
            and the activation is quick_gelu, which is wrong for most models of open_clip.

    Raises:
        UserError: a file is damaged, or they do not fit in some key.
    """
    return _load("text", weights, config)


def load_vision(weights: Path, config: Path | None) -> tuple[ClipVisionConfig, nnx.GraphDef, dict]:
    """As `load_text`, the vision tower."""
    return _load("vision", weights, config)


def _load(side: str, weights: Path, config: Path | None) -> tuple[TowerConfig, nnx.GraphDef, dict]:
    tensors = read_tensors(weights)
    model = read_config(config) if config else _inferred(tensors, weights)
    tower = getattr(model, side)
    if tower is None:
        raise UserError(f"{config or weights}: no {side} tower of CLIP; give a model that has one")
    canonical = read_canonical(tensors, ClipConfig(**{side: tower}), str(weights))
    params = {
        path.removeprefix(f"{side}/"): np.asarray(value, np.float32)
        for path, value in canonical.items()
    }
    graph, _ = graph_and_shapes(_TOWERS[side], tower)
    return tower, graph, traverse_util.unflatten_dict(params, sep="/")


def _inferred(tensors: dict[str, np.ndarray], weights: Path) -> ClipConfig:
    logging.warning(
        "no config.json beside %s: sizes from the weights, activation quick_gelu as in OpenAI's "
        "models; for another put a config.json with its hidden_act there",
        weights,
    )
    return infer_config(tensors, str(weights))
