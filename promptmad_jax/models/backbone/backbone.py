"""The frozen backbone: a hashable callable and a pure tree of parameters."""

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx

from promptmad_jax.models.backbone.efficientnet import (
    ARCHITECTURES,
    EFFICIENTNET_B4,
    Architecture,
    EfficientNet,
    Geometry,
    Padding,
)
from promptmad_jax.models.backbone.random_weights import calibrated_params
from promptmad_jax.models.backbone.weights.efficientnet import NORM_EPSILON, load_efficientnet
from promptmad_jax.models.layers.convolution import Lowering
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.field_types import PositiveFloat, Seed
from promptmad_jax.weights.hub import resolve_file

Params = dict[str, Any]


@dataclass(frozen=True)
class BackboneConfig:
    """The frozen network that extracts features, and its weights.

    Attributes:
        name: architecture; "efficientnetv2_nano" is the project's own.
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
        depthwise: lowering of the depthwise convolutions; "auto" takes "shifted" on a CPU, else
            "conv".
        dtype: of the computation and the features; parameters stay float32.

    Raises:
        ValueError: symmetric padding for a network that is not EfficientNet-B4.
    """

    name: Literal["efficientnet_b4", "efficientnetv2_b0", "efficientnetv2_nano"] = "efficientnet_b4"
    weights: str = "random"
    seed: Seed = 0
    padding: Padding = "onenip_static380"
    norm_epsilon: PositiveFloat = NORM_EPSILON
    depthwise: Literal["auto", Lowering] = "auto"
    dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self):
        if self.padding == "symmetric" and self.name != "efficientnet_b4":
            raise ValueError(f"padding 'symmetric' is for efficientnet_b4; {self.name} pads 'same'")


@dataclass(frozen=True)
class Backbone:
    """`taps = backbone(params, images)`: a pure function of its two arguments.

    Images are float32 [B, H, W, 3], normalised with the ImageNet mean and deviation, H and W
    multiples of 16. The four taps are [B, H/s, W/s, C] at strides s = 2, 4, 8, 16.
    """

    architecture: Architecture
    padding: Padding
    lowering: Literal["auto", Lowering]
    dtype: str

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of the four taps."""
        return self.architecture.channels

    def __call__(self, params: Params, images: jax.Array) -> tuple[jax.Array, ...]:
        def forward(lowering: Lowering):
            def run(params: Params, images: jax.Array) -> tuple[jax.Array, ...]:
                network = nnx.merge(_graph(self.architecture)[0], params)
                geometry = Geometry(lowering, self.padding)
                return network(images.astype(self.dtype), geometry)

            return run

        if self.lowering != "auto":
            return forward(self.lowering)(params, images)
        return jax.lax.platform_dependent(
            params, images, cpu=forward("shifted"), default=forward("conv")
        )


def load_backbone(config: BackboneConfig) -> tuple[Backbone, Params]:
    """Builds the network and loads or draws its parameters.

    Returns:
        The backbone and its parameters: nested dicts of float32 arrays, BatchNorm folded.

    Raises:
        UserError: the weights cannot be found, cannot be read, or do not fit.
    """
    backbone = build_backbone(config)
    shapes = layer_shapes(backbone.architecture)
    path = _weight_file(config)
    if path is None:
        params = calibrated_params(backbone.architecture, shapes, config.seed)
    else:
        params = load_efficientnet(path, shapes, config.norm_epsilon)
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
    padding = config.padding if config.name == EFFICIENTNET_B4.name else "same"
    return Backbone(ARCHITECTURES[config.name], padding, config.depthwise, config.dtype)


def parameter_shapes(backbone: Backbone) -> Params:
    """`jax.ShapeDtypeStruct`s of the parameters, as `load_backbone` returns them."""
    return nnx.to_pure_dict(_graph(backbone.architecture)[1])


@cache
def _graph(architecture: Architecture) -> tuple[nnx.GraphDef, nnx.State]:
    return nnx.split(nnx.eval_shape(lambda: EfficientNet(architecture)))


def layer_shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Kernel shape (HWIO) of every layer by its path, in the order of the network."""
    shapes = {}
    tree = nnx.to_pure_dict(_graph(architecture)[1])
    for name in ("stem", *(block.name for block in architecture.blocks)):
        layers = (
            {name: tree[name]}
            if name == "stem"
            else {f"{name}/{role}": layer for role, layer in tree[name].items()}
        )
        shapes |= {path: tuple(layer["kernel"].shape) for path, layer in layers.items()}
    return shapes
