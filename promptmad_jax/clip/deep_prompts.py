"""Learnt tokens in every layer of a tower, behind its first token.

After VPT (Jia et al., 2022, arXiv 2203.12119), with DAPO's mixture (arXiv 2512.09446): a layer's
tokens are its own and, by a small share, the previous layer's output at their place.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp


@dataclass(frozen=True)
class DeepPrompts:
    """The tokens of all layers; lives inside one traced function.

    Attributes:
        tokens: [layers, n, D]; they have no position embedding.
        alpha: share of the previous layer's output, 0..1.
    """

    tokens: jax.Array
    alpha: float

    def enter(self, layer: int, x: jax.Array) -> jax.Array:
        """The input of a layer, [B, L + n, D] in the type of x: first token, n prompts, the rest.

        Args:
            layer: counted from 0.
            x: [B, L, D] for layer 0, else [B, L + n, D], the output of the layer before.
        """
        own = self.tokens[layer].astype(x.dtype)[None]
        if layer == 0:
            first = jnp.broadcast_to(own, (len(x), *own.shape[1:]))
            return jnp.concatenate([x[:, :1], first, x[:, 1:]], axis=1)
        end = 1 + own.shape[1]
        mixed = self.alpha * x[:, 1:end] + (1 - self.alpha) * own
        return jnp.concatenate([x[:, :1], mixed, x[:, end:]], axis=1)
