"""The shape of a CLIP text tower, read from Hugging Face's config.json or from the weights."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from promptmad_jax.runtime.errors import UserError

# Hugging Face writes a key only where it differs from these, so they are part of the file format.
_DEFAULTS = {
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "eos_token_id": 49407,
    "projection_dim": 512,
}
LEGACY_EOS = 2  # config files older than the correction carry 2; pooling is then at the largest id


@dataclass(frozen=True)
class ClipTextConfig:
    """Sizes and constants of a CLIP text tower; the defaults are ViT-B/32's.

    Attributes:
        projection: width of the text vectors; None for a tower that ends at its final LayerNorm.
        eos_id: pooling is at its first occurrence; 2 (legacy files) means the largest id instead.
    """

    vocabulary: int = 49408
    context: int = 77
    width: int = 512
    hidden: int = 2048
    layers: int = 12
    heads: int = 8
    projection: int | None = 512
    activation: str = "quick_gelu"
    epsilon: float = 1e-5
    eos_id: int = 49407


def read_config(path: Path) -> ClipTextConfig:
    """The text part of a config.json of a CLIPModel, CLIPTextModel or CLIPTextModelWithProjection.

    Raises:
        UserError: the file is no JSON, no CLIP model, or asks for something that is not built.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}); fetch the file again") from error
    section, projection = _text_section(document, path)
    values = _DEFAULTS | {key: section[key] for key in _DEFAULTS.keys() & section.keys()}
    config = ClipTextConfig(
        vocabulary=values["vocab_size"],
        context=values["max_position_embeddings"],
        width=values["hidden_size"],
        hidden=values["intermediate_size"],
        layers=values["num_hidden_layers"],
        heads=values["num_attention_heads"],
        projection=values["projection_dim"] if projection == "own" else projection,
        activation=values["hidden_act"],
        epsilon=values["layer_norm_eps"],
        eos_id=values["eos_token_id"],
    )
    _check(config, path)
    return config


def _text_section(document: object, path: Path) -> tuple[Mapping, int | str | None]:
    """The mapping that describes the tower, and its projection: a width, "own" key, or None."""
    kind = document.get("model_type") if isinstance(document, Mapping) else None
    if kind == "clip":
        # Old files repeat the section as text_config_dict, and that one is the valid one.
        section = document.get("text_config_dict") or document.get("text_config") or {}
        return section, document.get("projection_dim") or _DEFAULTS["projection_dim"]
    if kind == "clip_text_model":
        bare = document.get("architectures") == ["CLIPTextModel"]
        return document, None if bare else "own"
    raise UserError(
        f"{path} describes a model of type {kind!r}; text.weights must be a CLIP model "
        "(model_type clip or clip_text_model)"
    )


def _check(config: ClipTextConfig, path: Path) -> None:
    if config.activation not in ("quick_gelu", "gelu"):
        raise UserError(f"{path}: hidden_act {config.activation!r} is not one of quick_gelu, gelu")
    for name in ("vocabulary", "context", "width", "hidden", "layers", "heads", "eos_id"):
        if not isinstance(getattr(config, name), int):
            raise UserError(f"{path}: {name} is {getattr(config, name)!r}, not a whole number")
    if config.heads < 1 or config.width % config.heads:
        raise UserError(
            f"{path}: {config.heads} attention heads do not divide the width {config.width}"
        )


def infer_config(shapes: Mapping[str, tuple[int, ...]], origin: str) -> ClipTextConfig:
    """The configuration that the shapes of a text tower imply, where no config.json is at hand.

    Heads are 64 wide and the activation is quick_gelu, as in OpenAI's models.

    Args:
        shapes: of the tower's tensors, Hugging Face names without the prefix `text_model.`.
        origin: the file, for messages.
    """
    try:
        vocabulary, width = shapes["embeddings.token_embedding.weight"]
        context = shapes["embeddings.position_embedding.weight"][0]
        hidden = shapes["encoder.layers.0.mlp.fc1.weight"][0]
    except KeyError as error:
        raise UserError(
            f"{origin} has no tensor {error} of a CLIP text tower; text.weights must "
            "be a CLIP model in Hugging Face's form"
        ) from error
    layers = 1 + max(int(key.split(".")[2]) for key in shapes if key.startswith("encoder.layers."))
    projection = shapes.get("text_projection.weight", (None,))[0]
    config = ClipTextConfig(
        vocabulary,
        context,
        width,
        hidden,
        layers,
        max(width // 64, 1),
        projection,
        eos_id=LEGACY_EOS,
    )
    _check(config, Path(origin))
    return config
