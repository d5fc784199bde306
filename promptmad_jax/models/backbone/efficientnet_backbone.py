"""EfficientNets as backbones: a hashable callable and a pure tree of parameters."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from flax import nnx

from promptmad_jax.models.backbone.efficientnet import (
    Architecture,
    EfficientNet,
    Geometry,
    Padding,
)
from promptmad_jax.models.backbone.protocol import Params, Tensors
from promptmad_jax.models.backbone.random_weights import calibrated_params
from promptmad_jax.models.backbone.weights.efficientnet import (
    NORM_EPSILON,
    fold,
    load_efficientnet,
    read_canonical,
)
from promptmad_jax.models.layers.convolution import Lowering


@dataclass(frozen=True)
class EfficientNetBackbone:
    """A `Backbone` of four levels at strides 2, 4, 8, 16.

    Attributes:
        norm_epsilon: of the BatchNorms that are folded into the parameters.
    """

    architecture: Architecture
    padding: Padding
    lowering: Literal["auto", Lowering]
    dtype: str
    norm_epsilon: float = NORM_EPSILON

    strides = (2, 4, 8, 16)
    image_multiple = 16
    companions = ()

    @property
    def name(self) -> str:
        return self.architecture.name

    @property
    def channels(self) -> tuple[int, ...]:
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

    def parameter_shapes(self) -> Params:
        return nnx.to_pure_dict(_graph(self.architecture)[1])

    def random_params(self, seed: int) -> Params:
        return calibrated_params(self.architecture, layer_shapes(self.architecture), seed)

    def read_params(self, path: Path) -> Params:
        return load_efficientnet(path, layer_shapes(self.architecture), self.norm_epsilon)

    def read_canonical(
        self, tensors: Tensors, origin: str, format: str | None = None
    ) -> dict[str, np.ndarray]:
        return read_canonical(tensors, layer_shapes(self.architecture), origin, format)

    def to_params(self, canonical: Tensors) -> Params:
        return fold(canonical, layer_shapes(self.architecture), self.norm_epsilon)


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
