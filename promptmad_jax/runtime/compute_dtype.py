"""The type that the layers of a model compute in."""

import jax.numpy as jnp
from flax import nnx


def set_compute_dtype(model: nnx.Module, dtype: str) -> nnx.Module:
    """Has the layers of a model compute in this type; "float32" leaves them as they are.

    Their parameters stay float32, and so do statistics and softmax. Layers that a submodule names
    in `float32_layers` compute in float32.

    Returns:
        The model, which is changed.
    """
    if dtype == "float32":
        return model
    for layer in (nnx.Linear, nnx.Conv, nnx.LayerNorm):
        model.set_attributes(layer, dtype=jnp.dtype(dtype), raise_if_not_found=False)
    for _, module in nnx.iter_modules(model):
        for name in getattr(module, "float32_layers", ()):
            getattr(module, name).dtype = jnp.float32
    return model
