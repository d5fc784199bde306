"""The shape of a CLIP model, and its form in Hugging Face's config.json."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from promptmad_jax.runtime.dataclass_parser import parse_dataclass
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.field_types import (
    ImageSize,
    Layers,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Width,
)

LEGACY_EOS = 2  # config files older than a correction say 2; pooling is then at the largest id


@dataclass(frozen=True, kw_only=True)
class TowerConfig:
    """The settings of either tower.

    Attributes:
        hidden: width of the layers' perceptron.
        projection: width of the embeddings; None for a tower that ends at its last LayerNorm.

    Raises:
        ValueError: the heads do not divide the width.
    """

    width: Width
    hidden: Width
    heads: Width
    layers: Layers = 12
    projection: Width | None = 512
    activation: Literal["quick_gelu", "gelu"] = "quick_gelu"
    epsilon: PositiveFloat = 1e-5

    def __post_init__(self):
        if self.width % self.heads:
            raise ValueError(f"{self.heads} attention heads do not divide the width {self.width}")


@dataclass(frozen=True, kw_only=True)
class ClipTextConfig(TowerConfig):
    """A text tower; the defaults are ViT-B/32's.

    Attributes:
        eos_id: pooling is at its first occurrence; 2 (legacy files) means the largest id instead.
    """

    width: Width = 512
    hidden: Width = 2048
    heads: Width = 8
    vocabulary: PositiveInt = 49408
    context: Width = 77
    eos_id: NonNegativeInt = 49407


@dataclass(frozen=True, kw_only=True)
class ClipVisionConfig(TowerConfig):
    """A vision tower; the defaults are ViT-B/32's.

    Attributes:
        image: side in pixels of the images that it was trained with.
        patch: side in pixels of a patch.
    """

    width: Width = 768
    hidden: Width = 3072
    heads: Width = 12
    image: ImageSize = 224
    patch: Width = 32

    @property
    def grid(self) -> int:
        """Patches along a side of the position table."""
        return self.image // self.patch


@dataclass(frozen=True)
class ClipConfig:
    """A CLIP model, or one tower of it."""

    text: ClipTextConfig | None = None
    vision: ClipVisionConfig | None = None


_TOWERS = {"text": ClipTextConfig, "vision": ClipVisionConfig}
# Hugging Face writes a key only where it differs from ViT-B/32's value, so that the defaults above
# are part of the file format.
_KEYS = {
    "width": "hidden_size",
    "hidden": "intermediate_size",
    "heads": "num_attention_heads",
    "layers": "num_hidden_layers",
    "projection": "projection_dim",
    "activation": "hidden_act",
    "epsilon": "layer_norm_eps",
    "vocabulary": "vocab_size",
    "context": "max_position_embeddings",
    "eos_id": "eos_token_id",
    "image": "image_size",
    "patch": "patch_size",
}


def read_config(path: Path) -> ClipConfig:
    """Reads the towers that a config.json describes: both of a CLIPModel, else a single one.

    Raises:
        UserError: the file is no JSON, no CLIP model, or asks for something that is not built.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}); fetch the file again") from error
    kind = document.get("model_type") if isinstance(document, Mapping) else None
    if kind == "clip":
        return ClipConfig(**{s: _tower(s, _section(document, s), path) for s in _TOWERS})
    for side in _TOWERS:
        if kind == f"clip_{side}_model":
            return ClipConfig(**{side: _tower(side, _single(document, side), path)})
    raise UserError(
        f"{path} describes a model of type {kind!r}; it must be a CLIP model "
        "(model_type clip, clip_text_model or clip_vision_model)"
    )


def _section(document: Mapping[str, Any], side: str) -> Mapping[str, Any]:
    """A tower's section of a whole model; old files repeat it as text_config_dict, which wins."""
    section = document.get(f"{side}_config_dict")
    if section is None:
        section = document.get(f"{side}_config") or {}
    projection = document.get("projection_dim") or TowerConfig.projection
    return {**section, "projection_dim": projection}


def _single(document: Mapping[str, Any], side: str) -> Mapping[str, Any]:
    bare = document.get("architectures") == [f"CLIP{side.capitalize()}Model"]
    return {**document, "projection_dim": None} if bare else document


def _tower(side: str, section: Mapping[str, Any], path: Path) -> TowerConfig:
    if section.get("num_channels", 3) != 3:
        raise UserError(f"{path}: num_channels is {section['num_channels']}; images have 3")
    names = {field.name: _KEYS[field.name] for field in dataclasses.fields(_TOWERS[side])}
    values = {name: section[key] for name, key in names.items() if key in section}
    return parse_dataclass(_TOWERS[side], values, f"{path}: {side}")


def to_document(config: ClipConfig) -> dict[str, Any]:
    """The content of a config.json that `read_config` reads as `config`."""
    sections = {
        side: {_KEYS[name]: value for name, value in vars(tower).items() if value is not None}
        for side, tower in vars(config).items()
        if tower is not None
    }
    if len(sections) == len(_TOWERS):
        whole = {"architectures": ["CLIPModel"], "model_type": "clip"}
        whole["projection_dim"] = config.text.projection
        return whole | {f"{side}_config": section for side, section in sections.items()}
    ((side, section),) = sections.items()
    head = "WithProjection" if "projection_dim" in section else ""
    name = f"CLIP{side.capitalize()}Model{head}"
    return {"architectures": [name], "model_type": f"clip_{side}_model"} | section


_LARGE_TEXT = ClipTextConfig(width=768, hidden=3072, heads=12, projection=768)
_LARGE = ClipVisionConfig(patch=14, width=1024, hidden=4096, heads=16, layers=24, projection=768)
PUBLISHED = {
    "openai/clip-vit-base-patch32": ClipConfig(ClipTextConfig(), ClipVisionConfig()),
    "openai/clip-vit-base-patch16": ClipConfig(ClipTextConfig(), ClipVisionConfig(patch=16)),
    "openai/clip-vit-large-patch14": ClipConfig(_LARGE_TEXT, _LARGE),
    "openai/clip-vit-large-patch14-336": ClipConfig(
        _LARGE_TEXT, dataclasses.replace(_LARGE, image=336)
    ),
}
