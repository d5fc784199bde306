"""Parameters of CLIP's towers from files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import logging
from flax import traverse_util

from promptmad_jax.clip.config import ClipConfig, read_config
from promptmad_jax.clip.weights.clip import infer_config, read_canonical
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.weights.files import read_tensors


def load_clip(
    weights: Path, config: Path | None, sides: Sequence[str] = ("text", "vision")
) -> tuple[ClipConfig, dict]:
    """Loads towers of CLIP.

    Args:
        weights: tensors in any format of `weights.clip`, of a whole CLIP or of one tower.
        config: config.json in Hugging Face's form; without one the sizes follow from the weights
            and the activation is quick_gelu, which is wrong for most models of open_clip.
        sides: the towers to load, `text` and `vision`.

    Returns:
        The configuration of the model, and by tower the nested float32 parameters.

    Raises:
        UserError: a file is damaged, a key does not fit, or a tower is missing.
    """
    tensors = read_tensors(weights)
    if config:
        model = read_config(config)
    else:
        logging.warning(
            "no config.json beside %s: sizes from the weights, activation quick_gelu as in "
            "OpenAI's models; for another put a config.json with its hidden_act there",
            weights,
        )
        model = infer_config(tensors, str(weights))
    params = {}
    for side in sides:
        tower = getattr(model, side)
        if tower is None:
            raise UserError(
                f"{config or weights}: no {side} tower of CLIP; give a model that has one"
            )
        params |= read_canonical(tensors, ClipConfig(**{side: tower}), str(weights))
    float32 = {path: np.asarray(value, np.float32) for path, value in params.items()}
    return model, traverse_util.unflatten_dict(float32, sep="/")
