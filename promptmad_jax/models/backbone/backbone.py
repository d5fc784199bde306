"""The configured backbone, and its weights from files or drawn."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp

from promptmad_jax.models.backbone.efficientnet import ARCHITECTURES, EFFICIENTNET_B4, Padding
from promptmad_jax.models.backbone.efficientnet_backbone import EfficientNetBackbone
from promptmad_jax.models.backbone.protocol import Backbone, Params
from promptmad_jax.models.backbone.vit import VITS
from promptmad_jax.models.backbone.vit_backbone import Positions, ViTBackbone
from promptmad_jax.models.backbone.weights.efficientnet import NORM_EPSILON
from promptmad_jax.models.layers.convolution import Lowering
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.field_types import NonNegativeInt, PositiveFloat, Seed
from promptmad_jax.weights.hub import resolve_file


@dataclass(frozen=True)
class BackboneConfig:
    """The frozen network that extracts features, and its weights.

    Attributes:
        name: architecture; "efficientnetv2_nano" is the project's own, "dinov2_vitb14_reg" DINOv2's
            ViT-B with registers.
        weights: "random", "shipped" (nano only), a .safetensors or .npz file, a folder with
            `model.safetensors`, or a hub id such as `timm/tf_efficientnet_b4.aa_in1k`.
        seed: of the "random" weights.
        padding: for EfficientNet-B4 only, and set by the origin of its weights; the others always
            pad as "same". "onenip_static380" is the padding of a 380-pixel image at every size:
            OneNIP's and UniAD's checkpoints, EfficientNet-PyTorch's `efficientnet-b4`, and
            transformers' `google/efficientnet-b4` (`depthwise_padding=[6]`). "same" is
            TensorFlow's: timm's `tf_efficientnet_b4`, and transformers with an empty
            `depthwise_padding`. One layer of B4 tells them apart. "symmetric" pads k//2 on all
            sides, also with a stride: timm's `efficientnet_b4` and torchvision's.
        norm_epsilon: of the BatchNorms that are folded while loading: 1e-3, but 1e-5 for timm's
            `efficientnet_b4` and torchvision's. Weights that are folded already do without.
        groups: blocks of a ViT, counted from 0, whose states each level averages; empty takes two
            groups of four, ((2, 3, 4, 5), (6, 7, 8, 9)) of twelve blocks, as Dinomaly does.
        norm: applies a ViT's last LayerNorm to the state of each of these blocks.
        positions: how DINOv2's position table is resized to other images than of 518 pixels:
            "transformers", "dinov2" (its authors' code, with an offset of 0.1 where there are no
            registers) or "timm" (antialiased always; the others only with registers).
        depthwise: lowering of the depthwise convolutions; "auto" takes "shifted" on a CPU, else
            "conv".
        dtype: of the computation and the features; parameters stay float32.

    Raises:
        ValueError: symmetric padding for a network that is not EfficientNet-B4; groups that are
            empty, or of blocks that the network does not have.
    """

    name: Literal[
        "efficientnet_b4",
        "efficientnetv2_b0",
        "efficientnetv2_nano",
        "dinov2_vits14",
        "dinov2_vits14_reg",
        "dinov2_vitb14",
        "dinov2_vitb14_reg",
        "dinov2_vitl14",
        "dinov2_vitl14_reg",
        "dinov2_vitg14",
        "dinov2_vitg14_reg",
        "dinov3_vits16",
        "dinov3_vits16plus",
        "dinov3_vitb16",
        "dinov3_vitl16",
    ] = "efficientnet_b4"
    weights: str = "random"
    seed: Seed = 0
    padding: Padding = "onenip_static380"
    norm_epsilon: PositiveFloat = NORM_EPSILON
    groups: tuple[tuple[NonNegativeInt, ...], ...] = ()
    norm: bool = False
    positions: Positions = "transformers"
    depthwise: Literal["auto", Lowering] = "auto"
    dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self):
        if self.padding == "symmetric" and self.name != "efficientnet_b4":
            raise ValueError(f"padding 'symmetric' is for efficientnet_b4; {self.name} pads 'same'")
        blocks = VITS[self.name].layers if self.name in VITS else 0
        if any(not group or max(group) >= blocks for group in self.groups):
            has = f"blocks 0 to {blocks - 1}" if blocks else "no such blocks"
            raise ValueError(f"groups={self.groups}: {self.name} has {has}")


def load_backbone(config: BackboneConfig) -> tuple[Backbone, Params]:
    """Builds the network and loads or draws its parameters, nested dicts of float32 arrays.

    Raises:
        UserError: the weights cannot be found, cannot be read, or do not fit.
    """
    backbone, path = build_backbone(config), _weight_file(config)
    if path is not None and not Path(config.weights).expanduser().exists():
        for name in backbone.companions:
            resolve_file(config.weights, name, setting="backbone.weights")
    params = backbone.random_params(config.seed) if path is None else backbone.read_params(path)
    return backbone, jax.tree.map(jnp.asarray, params)


def weights_digest(config: BackboneConfig) -> str | None:
    """SHA-256 of the weight file; None for random weights, which follow from their seed.

    Raises:
        UserError: there is no such file, or a hub cannot be reached.
    """
    path = _weight_file(config)
    if path is None:
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _weight_file(config: BackboneConfig) -> Path | None:
    match config.weights:
        case "random":
            return None
        case "shipped":
            return _shipped(config.name)
        case name:
            return resolve_file(name, "model.safetensors", setting="backbone.weights")


def _shipped(name: str) -> Path:
    path = Path(__file__).parent / "weights" / f"{name}.npz"
    if not path.exists():
        raise UserError(
            f"backbone.weights=shipped: none are shipped for {name}; name a file or a hub id"
        )
    return path


def build_backbone(config: BackboneConfig) -> Backbone:
    """The network of a configuration, without its parameters."""
    if config.name in VITS:
        net = VITS[config.name]
        groups = config.groups or net.groups
        return ViTBackbone(net, groups, config.norm, config.positions, config.dtype)
    padding = config.padding if config.name == EFFICIENTNET_B4.name else "same"
    return EfficientNetBackbone(
        ARCHITECTURES[config.name], padding, config.depthwise, config.dtype, config.norm_epsilon
    )
