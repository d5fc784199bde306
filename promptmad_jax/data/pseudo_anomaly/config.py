"""Settings of the pseudo-anomalies."""

import math
from dataclasses import dataclass
from typing import Literal

from promptmad_jax.runtime.field_types import UnitInterval


@dataclass(frozen=True)
class PseudoAnomalyConfig:
    """Kinds of pseudo-anomalies and their shares, which must sum to 1.

    Attributes:
        perlin: share of images with a texture pasted through a Perlin-noise mask.
        patch: share of images with a large jittered rectangle of themselves (CutPaste).
        scar: share of images with a thin rotated strip of themselves (CutPaste-Scar).
        textures: source of the Perlin textures: "images" augments images of `data.texture_dir` or
            of the training set, "noise" makes coloured noise on the device, "mixed" tosses a coin
            per image.
        batching: "map" makes only the kind that is drawn, image after image (fast on a CPU); "vmap"
            makes every kind for the whole batch (fast on accelerators); "auto" takes "map" where
            JAX's default backend is the CPU. The values do not depend on it. "map" gathers a batch
            that is sharded over several devices.

    Raises:
        ValueError: the shares do not sum to 1.
    """

    perlin: UnitInterval = 0.5
    patch: UnitInterval = 0.25
    scar: UnitInterval = 0.25
    textures: Literal["images", "noise", "mixed"] = "mixed"
    batching: Literal["auto", "vmap", "map"] = "auto"

    def __post_init__(self) -> None:
        shares = (self.perlin, self.patch, self.scar)
        if not math.isclose(sum(shares), 1.0, abs_tol=1e-6):
            raise ValueError(f"perlin, patch and scar are {shares}; they must sum to 1")
