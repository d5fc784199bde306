"""The protocol of a backbone: levels with stated strides and channels."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import jax
import numpy as np

Params = dict[str, Any]
Tensors = Mapping[str, np.ndarray]


class Backbone(Protocol):
    """A frozen network without its arrays: `levels = backbone(params, images)`, a pure function.

    Hashable, so that a jitted function can close over it; its `repr` says all that decides the
    features. Images are float32 [B, H, W, 3], normalised with the ImageNet mean and deviation.
    Level i is [B, H / strides[i], W / strides[i], channels[i]].

    Attributes:
        name: of the network. dtype: of the computation and the levels.
        strides: of the levels, never falling; the last is that of the token grid.
        channels: of the levels.
        image_multiple: H and W are multiples of it.
        companions: files that a hub has beside the weights and that `read_params` checks.
    """

    @property
    def name(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def strides(self) -> tuple[int, ...]: ...
    @property
    def channels(self) -> tuple[int, ...]: ...
    @property
    def image_multiple(self) -> int: ...
    @property
    def companions(self) -> tuple[str, ...]: ...

    def __call__(self, params: Params, images: jax.Array) -> tuple[jax.Array, ...]: ...

    def parameter_shapes(self) -> Params:
        """`jax.ShapeDtypeStruct`s of the parameters."""
        ...

    def random_params(self, seed: int) -> Params:
        """Parameters drawn from `seed` such that the levels carry signal."""
        ...

    def read_params(self, path: Path) -> Params:
        """The parameters of a weight file of any known origin, float32.

        Raises:
            UserError: the file cannot be read or is of another network.
        """
        ...

    def read_canonical(
        self, tensors: Tensors, origin: str, format: str | None = None
    ) -> dict[str, np.ndarray]:
        """Tensors of a file under our names, in the file's types.

        Args:
            origin: of the tensors, for messages. format: None detects it.

        Raises:
            UserError: the keys do not fit.
        """
        ...

    def to_params(self, canonical: Tensors) -> Params:
        """Parameters of what `read_canonical` returns, float32."""
        ...


def level_channels(backbone: Backbone) -> dict[int, int]:
    """Channels of all levels of each stride, summed."""
    found: dict[int, int] = {}
    for stride, channels in zip(backbone.strides, backbone.channels, strict=True):
        found[stride] = found.get(stride, 0) + channels
    return found
