"""A tower of CLIP from its files."""

from pathlib import Path

import numpy as np
from absl import logging
from flax import nnx, traverse_util

from promptmad_jax.clip.config import (
    ClipConfig,
    ClipTextConfig,
    ClipVisionConfig,
    TowerConfig,
    read_config,
)
from promptmad_jax.clip.text import ClipText
from promptmad_jax.clip.transformer import graph_and_shapes
from promptmad_jax.clip.vision import ClipVision
from promptmad_jax.clip.weights.clip import infer_config, read_canonical
from promptmad_jax.runtime.errors import UserError
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


def load_clip(weights: Path, config: Path | None) -> tuple[ClipConfig, dict]:
    """Both towers, as `load_text`: configuration, and parameters by tower, `text` and `vision`.

    Raises:
        UserError: a file is damaged, they do not fit in some key, or a tower is missing.
    """
    tensors = read_tensors(weights)
    model = read_config(config) if config else _inferred(tensors, weights)
    for side in _TOWERS:
        _check_tower(model, side, config or weights)
    return model, {side: _params(tensors, model, side, weights) for side in _TOWERS}


def _load(side: str, weights: Path, config: Path | None) -> tuple[TowerConfig, nnx.GraphDef, dict]:
    tensors = read_tensors(weights)
    model = read_config(config) if config else _inferred(tensors, weights)
    _check_tower(model, side, config or weights)
    tower = getattr(model, side)
    graph, _ = graph_and_shapes(_TOWERS[side], tower)
    return tower, graph, _params(tensors, model, side, weights)


def _check_tower(model: ClipConfig, side: str, origin: Path) -> None:
    if getattr(model, side) is None:
        raise UserError(f"{origin}: no {side} tower of CLIP; give a model that has one")


def _params(tensors: dict[str, np.ndarray], model: ClipConfig, side: str, origin: Path) -> dict:
    """The nested float32 parameters of one tower."""
    tower = ClipConfig(**{side: getattr(model, side)})
    canonical = read_canonical(tensors, tower, str(origin))
    params = {
        path.removeprefix(f"{side}/"): np.asarray(value, np.float32)
        for path, value in canonical.items()
    }
    return traverse_util.unflatten_dict(params, sep="/")


def _inferred(tensors: dict[str, np.ndarray], weights: Path) -> ClipConfig:
    logging.warning(
        "no config.json beside %s: sizes from the weights, activation quick_gelu as in OpenAI's "
        "models; for another put a config.json with its hidden_act there",
        weights,
    )
    return infer_config(tensors, str(weights))
