"""The config.json beside converted CLIP weights, which holds their heads and activation."""

import json
from dataclasses import replace
from pathlib import Path

from promptmad_jax.clip.config import ClipConfig, read_config, to_document
from promptmad_jax.clip.weights.clip import infer_config, read_canonical
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.files import write_text_atomic
from promptmad_jax.weights.key_table import Tensors

FILE = "config.json"


def config_of(tensors: Tensors, source: str, format: str, activation: str | None) -> ClipConfig:
    """The configuration of a weight file: its config.json's, else inferred from shapes.

    Args:
        activation: "quick_gelu" or "gelu", in place of the one found; None keeps that one.

    Raises:
        UserError: config.json is of another model.
    """
    path = Path(source).parent / FILE
    if path.is_file():
        config = read_config(path)
        read_canonical(tensors, config, f"{source}, by {path}", format)
    else:
        config = infer_config(tensors, source, format)
    if activation is None:
        return config
    towers = {side: tower for side, tower in vars(config).items() if tower is not None}
    return ClipConfig(**{s: replace(tower, activation=activation) for s, tower in towers.items()})


def config_path(target: str, config: ClipConfig) -> Path:
    """The path of config.json beside `target`.

    Raises:
        UserError: it exists, for another model.
    """
    path = Path(target).parent / FILE
    if path.is_file() and read_config(path) != config:
        raise UserError(
            f"{path} exists and describes another model than the weights to write beside it; "
            "write them into a folder of their own"
        )
    return path


def write_config(path: Path, config: ClipConfig) -> str:
    """Writes config.json, unless it exists; returns a sentence on it."""
    if not path.is_file():
        write_text_atomic(path, json.dumps(to_document(config), indent=2) + "\n")
    activation = (config.text or config.vision).activation
    return f"{path} says {activation}; --activation is for weights that were trained otherwise"
