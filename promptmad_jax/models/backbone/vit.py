"""DINOv2's and DINOv3's vision Transformers: patches to the states of their blocks.

Oquab et al., DINOv2 (TMLR 2024); Darcet et al., registers (ICLR 2024); Siméoni et al., DINOv3
(arXiv 2508.10104). Sizes are those of the published `config.json` files.
"""

import math
from dataclasses import dataclass
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from promptmad_jax.models.layers.attention import attend
from promptmad_jax.runtime.key_streams import KeyStreams

_ROTARY_BASE = 100.0


@dataclass(frozen=True)
class ViTArchitecture:
    """A network.

    Attributes:
        patch: side in pixels. hidden: width of the blocks' perceptron.
        registers: tokens beside the class token. gated: the perceptron is a SwiGLU.
        positions: side of the learned position table in patches; 0 rotates queries and keys.
        key_bias: keys have a bias. epsilon: of the LayerNorms.
    """

    name: str
    patch: int
    width: int
    layers: int
    heads: int
    hidden: int
    registers: int = 0
    gated: bool = False
    positions: int = 37
    key_bias: bool = True
    epsilon: float = 1e-6

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Two groups of four blocks, counted from 0: 2 to 9 of 12, every second from 4 of 24."""
        step = self.layers // 12
        blocks = range(2 * step, 10 * step, step)
        return tuple(blocks[:4]), tuple(blocks[4:])


def _dinov2(size: str, *sizes: int, gated: bool = False) -> list[ViTArchitecture]:
    plain = ViTArchitecture(f"dinov2_vit{size}14", 14, *sizes, gated=gated)
    return [plain, ViTArchitecture(f"{plain.name}_reg", 14, *sizes, registers=4, gated=gated)]


def _dinov3(size: str, *sizes: int, gated: bool = False) -> ViTArchitecture:
    return ViTArchitecture(f"dinov3_vit{size}16", 16, *sizes, 4, gated, 0, False, 1e-5)


VITS = {
    net.name: net
    for net in (
        *_dinov2("s", 384, 12, 6, 1536),
        *_dinov2("b", 768, 12, 12, 3072),
        *_dinov2("l", 1024, 24, 16, 4096),
        *_dinov2("g", 1536, 40, 24, 4096, gated=True),
        _dinov3("s", 384, 12, 6, 1536),
        ViTArchitecture("dinov3_vits16plus", 16, 384, 12, 6, 1536, 4, True, 0, False, 1e-5),
        _dinov3("b", 768, 12, 12, 3072),
        _dinov3("l", 1024, 24, 16, 4096),
    )
}


def _linear(features_in: int, features_out: int, use_bias: bool = True) -> nnx.Linear:
    # Arrays are always loaded or drawn outside.
    zeros = nnx.initializers.zeros
    return nnx.Linear(
        features_in, features_out, use_bias=use_bias, kernel_init=zeros, rngs=KeyStreams(0)
    )


def _norm(net: ViTArchitecture) -> nnx.LayerNorm:
    # The fast variance E[x^2] - E[x]^2 loses digits on the few huge channels.
    return nnx.LayerNorm(
        net.width, epsilon=net.epsilon, use_fast_variance=False, rngs=KeyStreams(0)
    )


class SelfAttention(nnx.Module):
    """Multi-head self-attention; rotates queries and keys of the patches by `angles`, if given."""

    def __init__(self, net: ViTArchitecture):
        self.heads = net.heads
        self.query, self.value, self.out = (_linear(net.width, net.width) for _ in range(3))
        self.key = _linear(net.width, net.width, net.key_bias)

    def __call__(self, x: jax.Array, angles: jax.Array | None) -> jax.Array:
        """[B, L, D] to [B, L, D]; angles [N, d] of the last N tokens, d a head's width."""
        split = (*x.shape[:2], self.heads, -1)
        query, key, value = (f(x).reshape(split) for f in (self.query, self.key, self.value))
        if angles is not None:
            query, key = rotate(query, angles), rotate(key, angles)
        y = attend(query, key, value, None, fused=True)
        return self.out(y.reshape(x.shape))


def rotate(x: jax.Array, angles: jax.Array) -> jax.Array:
    """Rotates the last N tokens of [B, L, heads, d]: channel i with channel i + d / 2."""
    first, rest = jnp.split(x, [x.shape[1] - len(angles)], axis=1)
    half = rest.shape[-1] // 2
    turned = jnp.concatenate([-rest[..., half:], rest[..., :half]], axis=-1)
    cos, sin = (f(angles)[None, :, None].astype(x.dtype) for f in (jnp.cos, jnp.sin))
    return jnp.concatenate([first, rest * cos + turned * sin], axis=1)


@cache
def rotary_angles(height: int, width: int, channels: int) -> np.ndarray:
    """Angles float32 [height * width, channels] of patch centres in -1..1, rows before columns."""
    rows, columns = (2 * (np.arange(size) + 0.5) / size - 1 for size in (height, width))
    centres = np.stack(np.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2)
    frequency = _ROTARY_BASE ** -np.arange(0, 1, 4 / channels)
    angles = 2 * math.pi * centres[:, :, None] * frequency[None, None]
    return np.tile(angles.reshape(len(centres), -1), 2).astype(np.float32)


class Perceptron(nnx.Module):
    """`down(gelu(up(x)))`; gated, `down(silu(gate(x)) up(x))`."""

    def __init__(self, net: ViTArchitecture):
        self.gated = net.gated
        self.up, self.down = _linear(net.width, net.hidden), _linear(net.hidden, net.width)
        if net.gated:
            self.gate = _linear(net.width, net.hidden)

    def __call__(self, x: jax.Array) -> jax.Array:
        if self.gated:
            return self.down(jax.nn.silu(self.gate(x)) * self.up(x))
        return self.down(jax.nn.gelu(self.up(x), approximate=False))


class Block(nnx.Module):
    """A pre-norm Transformer layer whose two branches are scaled by channel."""

    def __init__(self, net: ViTArchitecture):
        self.norm1, self.norm2 = _norm(net), _norm(net)
        self.attention, self.mlp = SelfAttention(net), Perceptron(net)
        self.scale1, self.scale2 = (nnx.Param(jnp.ones(net.width)) for _ in range(2))

    def __call__(self, x: jax.Array, angles: jax.Array | None) -> jax.Array:
        x = x + self.attention(self.norm1(x), angles) * self.scale1[None, None]
        return x + self.mlp(self.norm2(x)) * self.scale2[None, None]


class PatchEmbedding(nnx.Module):
    """A convolution whose stride is its size: images [B, H, W, 3] to [B, N, D], row by row."""

    def __init__(self, net: ViTArchitecture):
        self.kernel = nnx.Param(jnp.zeros((net.patch, net.patch, 3, net.width)))
        self.bias = nnx.Param(jnp.zeros(net.width))

    def __call__(self, images: jax.Array) -> jax.Array:
        side, _, _, width = self.kernel.shape
        batch, height, columns, _ = images.shape
        x = images.reshape(batch, height // side, side, columns // side, side, 3).swapaxes(2, 3)
        kernel = self.kernel[...].reshape(-1, width)
        return x.reshape(batch, -1, len(kernel)) @ kernel + self.bias[None, None]


class ViT(nnx.Module):
    """The first `blocks` blocks of a network, and with `norm` its last LayerNorm.

    The class token has its position added.
    """

    def __init__(self, net: ViTArchitecture, blocks: int, norm: bool):
        self.net = net
        self.patch_embedding = PatchEmbedding(net)
        self.class_token = nnx.Param(jnp.zeros(net.width))
        if net.registers:
            self.registers = nnx.Param(jnp.zeros((net.registers, net.width)))
        if net.positions:
            self.positions = nnx.Param(jnp.zeros((net.positions**2, net.width)))
        self.blocks = nnx.Dict({str(i): Block(net) for i in range(blocks)})
        if norm:
            self.norm = _norm(net)

    def __call__(self, images: jax.Array, positions: jax.Array | None) -> list[jax.Array]:
        """States [B, 1 + registers + N, D] after each block.

        Args:
            images: [B, H, W, 3], normalised, H and W multiples of the patch.
            positions: [N, D], the position table at this grid; None for rotary positions.
        """
        net = self.net
        batch, rows, columns = len(images), *(side // net.patch for side in images.shape[1:3])
        x = self.patch_embedding(images)
        x = x if positions is None else x + positions[None]
        prefix = self.class_token[None]
        if net.registers:
            prefix = jnp.concatenate([prefix, self.registers[...]])
        prefix = jnp.broadcast_to(prefix[None], (batch, *prefix.shape))
        x, states, angles = jnp.concatenate([prefix, x], axis=1), [], None
        if not net.positions:
            angles = jnp.asarray(rotary_angles(rows, columns, net.width // net.heads))
        for number in range(len(self.blocks)):
            x = self.blocks[str(number)](x, angles)
            states.append(x)
        return states
