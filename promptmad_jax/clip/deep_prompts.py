"""Learnt tokens that stand in every layer of a tower, behind its first token.

After VPT (Jia et al., 2022, arXiv 2203.12119), with DAPO's rule for what a layer's tokens are made
of (arXiv 2512.09446): a little of what came out of the layer before, and for the rest its own.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp


@dataclass(frozen=True)
class DeepPrompts:
    """Tokens of each layer; lives inside one traced function.

    Attributes:
        tokens: [layers, n, D]; they have no position embedding.
        alpha: share of the previous layer's output, 0..1.
    """

    tokens: jax.Array
    alpha: float

    def enter(self, layer: int, x: jax.Array) -> jax.Array:
        """What the layer reads.

        Args:
            layer: counted from 0.
            x: [B, L, D] for the first layer, [B, L + n, D], the output of the one before, for all
                others.

        Returns:
            [B, L + n, D] in the type of x: first token, n prompts, the rest.
        """
        own = self.tokens[layer].astype(x.dtype)[None]
        if layer == 0:
            first = jnp.broadcast_to(own, (len(x), *own.shape[1:]))
            return jnp.concatenate([x[:, :1], first, x[:, 1:]], axis=1)
        end = 1 + own.shape[1]
        mixed = self.alpha * x[:, 1:end] + (1 - self.alpha) * own
        return jnp.concatenate([x[:, :1], mixed, x[:, end:]], axis=1)
