"""The shape of a CLIP model, and its form in Hugging Face's config.json."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptmad_jax.runtime.errors import UserError

LEGACY_EOS = 2  # config files older than the correction carry 2; pooling is then at the largest id
ACTIVATIONS = ("quick_gelu", "gelu")


@dataclass(frozen=True, kw_only=True)
class TowerConfig:
    """What both towers have.

    Attributes:
        hidden: width of the layers' perceptron.
        projection: width of the embeddings; None for a tower that ends at its last LayerNorm.
    """

    width: int
    hidden: int
    heads: int
    layers: int = 12
    projection: int | None = 512
    activation: str = "quick_gelu"
    epsilon: float = 1e-5


@dataclass(frozen=True, kw_only=True)
class ClipTextConfig(TowerConfig):
    """A text tower; the defaults are ViT-B/32's.

    Attributes:
        eos_id: pooling is at its first occurrence; 2 (legacy files) means the largest id instead.
    """

    width: int = 512
    hidden: int = 2048
    heads: int = 8
    vocabulary: int = 49408
    context: int = 77
    eos_id: int = 49407


@dataclass(frozen=True, kw_only=True)
class ClipVisionConfig(TowerConfig):
    """A vision tower; the defaults are ViT-B/32's.

    Attributes:
        image: side in pixels of the images that it was trained with.
        patch: side in pixels of a patch.
    """

    width: int = 768
    hidden: int = 3072
    heads: int = 12
    image: int = 224
    patch: int = 32

    @property
    def grid(self) -> int:
        """Patches along a side of the position table."""
        return self.image // self.patch


@dataclass(frozen=True)
class ClipConfig:
    """A CLIP model, or one tower of it."""

    text: ClipTextConfig | None = None
    vision: ClipVisionConfig | None = None


# Hugging Face writes a key only where it differs from ViT-B/32's value, so that the defaults above
# are part of the file format.
_COMMON = {
    "hidden_size": "width",
    "intermediate_size": "hidden",
    "num_attention_heads": "heads",
    "num_hidden_layers": "layers",
    "projection_dim": "projection",
    "hidden_act": "activation",
    "layer_norm_eps": "epsilon",
}
_TEXT = _COMMON | {
    "vocab_size": "vocabulary",
    "max_position_embeddings": "context",
    "eos_token_id": "eos_id",
}
_VISION = _COMMON | {"image_size": "image", "patch_size": "patch"}
_TOWERS = {"text": (ClipTextConfig, _TEXT), "vision": (ClipVisionConfig, _VISION)}


def read_config(path: Path) -> ClipConfig:
    """The towers that a config.json describes: both of a CLIPModel, else the one it is of.

    Raises:
        UserError: the file is no JSON, no CLIP model, or asks for something that is not built.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}); fetch the file again") from error
    kind = document.get("model_type") if isinstance(document, Mapping) else None
    if kind == "clip":
        return ClipConfig(**{side: _half(document, side, path) for side in _TOWERS})
    for side in _TOWERS:
        if kind == f"clip_{side}_model":
            return ClipConfig(**{side: _tower(side, _without_head(document, side), path)})
    raise UserError(
        f"{path} describes a model of type {kind!r}; it must be a CLIP model "
        "(model_type clip, clip_text_model or clip_vision_model)"
    )


def _half(document: Mapping[str, Any], side: str, path: Path) -> TowerConfig:
    # Old files repeat the section as text_config_dict, and that one is the valid one.
    section = document.get(f"{side}_config_dict")
    if section is None:
        section = document.get(f"{side}_config") or {}
    projection = document.get("projection_dim") or TowerConfig.projection
    return _tower(side, {**section, "projection_dim": projection}, path)


def _without_head(document: Mapping[str, Any], side: str) -> Mapping[str, Any]:
    """The document, its projection crossed out where the class is one without."""
    bare = document.get("architectures") == [f"CLIP{side.capitalize()}Model"]
    return {**document, "projection_dim": None} if bare else document


def _tower(side: str, section: Mapping[str, Any], path: Path) -> TowerConfig:
    kind, fields = _TOWERS[side]
    if section.get("num_channels", 3) != 3:
        raise UserError(f"{path}: num_channels is {section['num_channels']}; images have 3")
    config = kind(**{field: section[key] for key, field in fields.items() if key in section})
    check_tower(config, str(path))
    return config


def to_document(config: ClipConfig) -> dict[str, Any]:
    """The content of a config.json that `read_config` reads as `config`."""
    sections = {
        side: {key: getattr(tower, field) for key, field in _TOWERS[side][1].items()}
        for side, tower in vars(config).items()
        if tower is not None
    }
    if len(sections) == len(_TOWERS):
        halves = {f"{side}_config": section for side, section in sections.items()}
        projection = config.text.projection
        return {
            "architectures": ["CLIPModel"],
            "model_type": "clip",
            "projection_dim": projection,
        } | halves
    ((side, section),) = sections.items()
    head = "" if section["projection_dim"] is None else "WithProjection"
    kind = {
        "architectures": [f"CLIP{side.capitalize()}Model{head}"],
        "model_type": f"clip_{side}_model",
    }
    return kind | {key: value for key, value in section.items() if value is not None}


def check_tower(config: TowerConfig, origin: str) -> None:
    """Raises UserError for sizes that no tower can have."""
    if config.activation not in ACTIVATIONS:
        raise UserError(
            f"{origin}: hidden_act {config.activation!r} is not one of {', '.join(ACTIVATIONS)}"
        )
    for name, value in vars(config).items():
        if name in ("activation", "epsilon") or (name == "projection" and value is None):
            continue
        if type(value) is not int or value < (0 if name == "eos_id" else 1):
            raise UserError(f"{origin}: {name} is {value!r}, not a whole number in its range")
    if config.width % config.heads:
        raise UserError(
            f"{origin}: {config.heads} attention heads do not divide the width {config.width}"
        )


_LARGE_TEXT = ClipTextConfig(width=768, hidden=3072, heads=12, projection=768)


_LARGE = {"patch": 14, "width": 1024, "hidden": 4096, "heads": 16, "layers": 24, "projection": 768}


PUBLISHED = {
    "openai/clip-vit-base-patch32": ClipConfig(ClipTextConfig(), ClipVisionConfig()),
    "openai/clip-vit-base-patch16": ClipConfig(ClipTextConfig(), ClipVisionConfig(patch=16)),
    "openai/clip-vit-large-patch14": ClipConfig(_LARGE_TEXT, ClipVisionConfig(**_LARGE)),
    "openai/clip-vit-large-patch14-336": ClipConfig(
        _LARGE_TEXT, ClipVisionConfig(**_LARGE, image=336)
    ),
}
