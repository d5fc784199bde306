"""Training batches of images with the type of every pixel."""

from typing import Any, NamedTuple

import jax

from promptmad_jax.data.pipeline import BatchIndices


class TypedExamples(NamedTuple):
    """N examples, or a batch of them; one of the first two is None.

    Attributes:
        images: uint8 [N, S, S, 3].
        states: what a frozen image tower gives of the images, any tree of arrays.
        type_masks: uint8 [N, S, S], 0 normal, k the k-th trained type.
        labels: bool [N], whether the image is defective.
    """

    images: Any
    states: Any
    type_masks: Any
    labels: Any


def take_typed(examples: TypedExamples, indices: BatchIndices) -> TypedExamples:
    """The examples at `indices.image`, from numpy or jax arrays."""
    return jax.tree.map(lambda x: x[indices.image], examples)
