"""EfficientNet-B4 and EfficientNetV2-B0 up to stride 16, BatchNorm folded into the convolutions.

Tables: Tan and Le, EfficientNet (ICML 2019) and EfficientNetV2 (ICML 2021). Only the part that the
detectors read is built; the taps are the outputs of a stage's last block.
"""

from dataclasses import dataclass
from functools import cache
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from promptmad_jax.models.layers.convolution import (
    Lowering,
    Pads,
    convolve,
    depthwise,
    same_padding,
)

Kind = Literal["plain", "fused", "mbconv"]
Padding = Literal["onenip_static380", "same", "symmetric"]
STATIC_SIDE = 380


@dataclass(frozen=True)
class Stage:
    """One row of the published table."""

    kind: Kind
    kernel: int
    stride: int
    expansion: int
    channels: int
    repeats: int
    tapped: bool


@dataclass(frozen=True)
class Block:
    """One block; `squeezed` is the width inside squeeze-and-excitation."""

    name: str
    kind: Kind
    kernel: int
    stride: int
    inputs: int
    expanded: int
    squeezed: int
    outputs: int
    tapped: bool

    @property
    def residual(self) -> bool:
        return self.stride == 1 and self.inputs == self.outputs


@dataclass(frozen=True)
class Architecture:
    """A truncated network."""

    name: str
    stem: int
    stages: tuple[Stage, ...]

    @property
    def blocks(self) -> tuple[Block, ...]:
        return _blocks(self)

    @property
    def channels(self) -> tuple[int, ...]:
        return tuple(block.outputs for block in self.blocks if block.tapped)


@cache
def _blocks(architecture: Architecture) -> tuple[Block, ...]:
    blocks, inputs = [], architecture.stem
    for number, stage in enumerate(architecture.stages, start=1):
        for repeat in range(stage.repeats):
            blocks.append(
                Block(
                    name=f"block{number}{'abcdefgh'[repeat]}",
                    kind=stage.kind,
                    kernel=stage.kernel,
                    stride=stage.stride if repeat == 0 else 1,
                    inputs=inputs,
                    expanded=inputs * stage.expansion,
                    squeezed=max(1, inputs // 4) if stage.kind == "mbconv" else 0,
                    outputs=stage.channels,
                    tapped=stage.tapped and repeat == stage.repeats - 1,
                )
            )
            inputs = stage.channels
    return tuple(blocks)


EFFICIENTNET_B4 = Architecture(
    "efficientnet_b4",
    48,
    (
        Stage("mbconv", 3, 1, 1, 24, 2, tapped=True),
        Stage("mbconv", 3, 2, 6, 32, 4, tapped=True),
        Stage("mbconv", 5, 2, 6, 56, 4, tapped=True),
        Stage("mbconv", 3, 2, 6, 112, 6, tapped=False),
        Stage("mbconv", 5, 1, 6, 160, 6, tapped=True),
    ),
)

EFFICIENTNETV2_B0 = Architecture(
    "efficientnetv2_b0",
    32,
    (
        Stage("plain", 3, 1, 1, 16, 1, tapped=True),
        Stage("fused", 3, 2, 4, 32, 2, tapped=True),
        Stage("fused", 3, 2, 4, 48, 2, tapped=True),
        Stage("mbconv", 3, 2, 4, 96, 3, tapped=False),
        Stage("mbconv", 3, 1, 6, 112, 5, tapped=True),
    ),
)

# The project's own miniature, whose weights it makes and ships: see `tools.pretrain_nano`.
EFFICIENTNETV2_NANO = Architecture(
    "efficientnetv2_nano",
    24,
    (
        Stage("plain", 3, 1, 1, 16, 1, tapped=True),
        Stage("fused", 3, 2, 3, 24, 2, tapped=True),
        Stage("fused", 3, 2, 3, 40, 2, tapped=True),
        Stage("mbconv", 3, 2, 4, 64, 2, tapped=False),
        Stage("mbconv", 3, 1, 4, 80, 2, tapped=True),
    ),
)

ARCHITECTURES = {net.name: net for net in (EFFICIENTNET_B4, EFFICIENTNETV2_B0, EFFICIENTNETV2_NANO)}


@dataclass(frozen=True)
class Geometry:
    """Padding and lowering of all convolutions.

    `same` is TensorFlow's for the true size; `onenip_static380` that of a 380-pixel image at every
    size, as in PyTorch ports with static padding; `symmetric` is k//2 on all sides.
    """

    lowering: Lowering
    padding: Padding

    def pads(self, x: jax.Array, kernel: int, stride: int, level: int) -> Pads:
        """Padding of both axes of x, which is at stride `level`."""
        if self.padding == "symmetric":
            return ((kernel // 2, kernel // 2),) * 2
        static = self.padding == "onenip_static380"
        sides = (-(-STATIC_SIDE // level),) * 2 if static else x.shape[1:3]
        return tuple(same_padding(side, kernel, stride) for side in sides)


class Convolution(nnx.Module):
    """A convolution with bias (BatchNorm folded) and an optional swish.

    `level` is the stride of its input relative to the image. Arrays start as zeros: they are always
    loaded or drawn outside (`backbone.load_backbone`).
    """

    def __init__(
        self,
        shape: tuple[int, int, int, int],
        *,
        stride: int = 1,
        level: int = 1,
        swish: bool = False,
    ):
        self.kernel = nnx.Param(jnp.zeros(shape))
        self.bias = nnx.Param(jnp.zeros(shape[-1]))
        self.stride, self.level = stride, level
        self.swish = swish

    multiply = staticmethod(convolve)

    def __call__(self, x: jax.Array, geometry: Geometry) -> jax.Array:
        kernel, bias = self.kernel[...].astype(x.dtype), self.bias[...].astype(x.dtype)
        pads = geometry.pads(x, kernel.shape[0], self.stride, self.level)
        y = self.multiply(x, kernel, self.stride, pads, geometry.lowering)
        y = y + bias[None, None, None, :]
        return jax.nn.silu(y) if self.swish else y


class DepthwiseConvolution(Convolution):
    """One filter per channel; kernel [k, k, 1, C]."""

    multiply = staticmethod(depthwise)


class ConvolutionBlock(nnx.Module):
    """A block of one of three kinds.

    mbconv: 1x1 expand (unless the expansion is 1), depthwise k x k, SE, 1x1 project.
    fused: k x k expand, 1x1 project. plain: one k x k convolution with swish.
    """

    def __init__(self, block: Block, level: int):
        self.residual = block.residual
        self.gated = block.kind == "mbconv"
        self.expands = block.kind == "fused" or block.expanded != block.inputs
        k, c = block.kernel, block.expanded
        spatial = {"stride": block.stride, "level": level, "swish": True}
        if block.kind == "plain":
            self.project = Convolution((k, k, block.inputs, block.outputs), **spatial)
            return
        if block.kind == "fused":
            self.expand = Convolution((k, k, block.inputs, c), **spatial)
        elif self.expands:
            self.expand = Convolution((1, 1, block.inputs, c), swish=True)
        if self.gated:
            self.depthwise = DepthwiseConvolution((k, k, 1, c), **spatial)
            self.squeeze = Convolution((1, 1, c, block.squeezed), swish=True)
            self.excite = Convolution((1, 1, block.squeezed, c))
        self.project = Convolution((1, 1, c, block.outputs))

    def __call__(self, x: jax.Array, geometry: Geometry) -> jax.Array:
        y = self.expand(x, geometry) if self.expands else x
        if self.gated:
            y = self.depthwise(y, geometry)
            pooled = y.mean(axis=(1, 2), keepdims=True)
            gate = self.excite(self.squeeze(pooled, geometry), geometry)
            y = y * jax.nn.sigmoid(gate)
        y = self.project(y, geometry)
        return x + y if self.residual else y


class EfficientNet(nnx.Module):
    """images [B, H, W, 3], normalised -> taps [B, H/s, W/s, C] at strides s = 2, 4, 8, 16."""

    def __init__(self, architecture: Architecture):
        self.blocks = architecture.blocks
        self.stem = Convolution((3, 3, 3, architecture.stem), stride=2, swish=True)
        level = 2
        for block in self.blocks:
            setattr(self, block.name, ConvolutionBlock(block, level))
            level *= block.stride

    def __call__(self, images: jax.Array, geometry: Geometry) -> tuple[jax.Array, ...]:
        x, taps = self.stem(images, geometry), []
        for block in self.blocks:
            x = getattr(self, block.name)(x, geometry)
            if block.tapped:
                taps.append(x)
        return tuple(taps)
