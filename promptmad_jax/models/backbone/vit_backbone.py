"""DINOv2 and DINOv3 as backbones: groups of blocks, averaged, on the grid of the patches."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from flax import nnx, traverse_util

from promptmad_jax.clip.positions import resize_patches
from promptmad_jax.models.backbone.protocol import Params, Tensors
from promptmad_jax.models.backbone.vit import ViT, ViTArchitecture
from promptmad_jax.models.backbone.weights import vit as weights
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.weights.files import read_tensors

CONFIG = "config.json"
Groups = tuple[tuple[int, ...], ...]
Positions = Literal["transformers", "dinov2", "timm"]


@dataclass(frozen=True)
class ViTBackbone:
    """A `Backbone` of one level per group of blocks, all at the patch's stride.

    Attributes:
        groups: blocks, counted from 0, whose states a level averages.
        norm: the network's last LayerNorm is applied to each state first.
        positions: origin of the resizing of the position table.
    """

    architecture: ViTArchitecture
    groups: Groups
    norm: bool
    positions: Positions
    dtype: str

    companions = (CONFIG,)

    @property
    def name(self) -> str:
        return self.architecture.name

    @property
    def strides(self) -> tuple[int, ...]:
        return (self.architecture.patch,) * len(self.groups)

    @property
    def channels(self) -> tuple[int, ...]:
        return (self.architecture.width,) * len(self.groups)

    @property
    def image_multiple(self) -> int:
        return self.architecture.patch

    def __call__(self, params: Params, images: jax.Array) -> tuple[jax.Array, ...]:
        batch, grid = len(images), tuple(n // self.architecture.patch for n in images.shape[1:3])
        # Resized in float32: half precision would shift the table.
        positions = self._resized(params, grid)
        cast = lambda x: x.astype(self.dtype)
        network = nnx.merge(self._graph[0], jax.tree.map(cast, params))
        states = network(cast(images), None if positions is None else cast(positions))
        levels = []
        for group in self.groups:
            tapped = [network.norm(states[i]) if self.norm else states[i] for i in group]
            patches = (sum(tapped) / len(group))[:, 1 + self.architecture.registers :]
            levels.append(patches.reshape(batch, *grid, -1))
        return tuple(levels)

    def _resized(self, params: Params, grid: tuple[int, int]) -> jax.Array | None:
        """The position table [N, D] at this grid, as the origin resizes it."""
        net = self.architecture
        if not net.positions:
            return None
        antialias = self.positions == "timm" or net.registers > 0
        offset = 0.1 if self.positions == "dinov2" and not net.registers else 0.0
        return resize_patches(params["positions"], net.positions, grid, antialias, offset)

    @property
    def _graph(self) -> tuple[nnx.GraphDef, nnx.State]:
        return _graph(self.architecture, 1 + max(max(group) for group in self.groups), self.norm)

    def parameter_shapes(self) -> Params:
        return nnx.to_pure_dict(self._graph[1])

    def _canonical_shapes(self) -> dict[str, tuple[int, ...]]:
        flat = traverse_util.flatten_dict(self.parameter_shapes(), sep="/")
        shapes = {path: leaf.shape for path, leaf in flat.items()}
        position = {weights.CLASS_POSITION: shapes["class_token"]}
        return shapes | (position if self.architecture.positions else {})

    def random_params(self, seed: int) -> Params:
        """Kernels of unit gain, tokens and positions of unit variance."""
        rng, drawn = np.random.default_rng(seed), {}
        for path, leaf in traverse_util.flatten_dict(self.parameter_shapes(), sep="/").items():
            if path.endswith(("scale", "scale1", "scale2")):
                drawn[path] = np.ones(leaf.shape, np.float32)
            elif path.endswith("bias"):
                drawn[path] = np.zeros(leaf.shape, np.float32)
            else:
                fan = np.prod(leaf.shape[:-1]) if path.endswith("kernel") else 1
                drawn[path] = rng.standard_normal(leaf.shape, np.float32) / np.float32(fan**0.5)
        return traverse_util.unflatten_dict(drawn, sep="/")

    def read_params(self, path: Path) -> Params:
        config = path.parent / CONFIG
        if config.is_file():
            check_config(self.architecture, config)
        canonical = self.read_canonical(read_tensors(path), str(path))
        for name, value in canonical.items():
            if not np.isfinite(value.astype(np.float32)).all():
                raise UserError(f"{path}: {name} is not finite; the file is damaged")
        return self.to_params(canonical)

    def read_canonical(
        self, tensors: Tensors, origin: str, format: str | None = None
    ) -> dict[str, np.ndarray]:
        return weights.read_canonical(tensors, self._canonical_shapes(), origin, format)

    def to_params(self, canonical: Tensors) -> Params:
        return weights.to_params(canonical)


@cache
def _graph(net: ViTArchitecture, blocks: int, norm: bool) -> tuple[nnx.GraphDef, nnx.State]:
    return nnx.split(nnx.eval_shape(lambda: ViT(net, blocks, norm)))


def check_config(net: ViTArchitecture, path: Path) -> None:
    """Checks that transformers' config.json beside the weights describes this network.

    Raises:
        UserError: it is no JSON, or says something else.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}); fetch the file again") from error
    # timm's files have other keys, and those of another kind end in a list of keys that do not fit.
    if not isinstance(document, Mapping) or "model_type" not in document:
        return
    faults = [
        f"{key} is {document[key]!r} instead of {value!r}"
        for key, value in _document(net).items()
        if key in document and document[key] != value
    ]
    if faults:
        raise UserError(
            f"{path}: not the network {net.name}: {'; '.join(faults)}. Set backbone.name to that "
            "of the weights"
        )


def _document(net: ViTArchitecture) -> dict[str, object]:
    """The fields of config.json that describe the network, as far as they are there."""
    v2 = "dinov2_with_registers" if net.registers else "dinov2"
    v3 = not net.positions
    both = {
        "model_type": "dinov3_vit" if v3 else v2,
        "hidden_size": net.width,
        "num_hidden_layers": net.layers,
        "num_attention_heads": net.heads,
        "patch_size": net.patch,
        "layer_norm_eps": net.epsilon,
        "num_register_tokens": net.registers,
    }
    if v3:
        own = dict.fromkeys(("query_bias", "value_bias", "proj_bias", "mlp_bias"), True) | {
            "intermediate_size": net.hidden,
            "use_gated_mlp": net.gated,
            "hidden_act": "silu" if net.gated else "gelu",
            "key_bias": net.key_bias,
            "rope_theta": 100.0,
        }
    else:
        side = net.positions * net.patch
        own = {"use_swiglu_ffn": net.gated, "image_size": side, "mlp_ratio": 4, "qkv_bias": True}
    return both | own
