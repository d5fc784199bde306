"""Settings of the pseudo-anomalies."""

import math
from dataclasses import dataclass
from typing import Literal

from promptmad_jax.runtime.field_types import PositiveFloat, UnitInterval


@dataclass(frozen=True)
class PseudoAnomalyConfig:
    """Kinds of pseudo-anomalies, their shares (which sum to 1), contrast, size and place.

    Attributes:
        perlin: share of images with a texture pasted through a Perlin-noise mask.
        patch: share of images with a large jittered rectangle of themselves (CutPaste).
        scar: share of images with a thin rotated strip of themselves (CutPaste-Scar).
        textures: source of the Perlin textures: "images" augments images of `data.texture_dir` or
            of the training set, "noise" makes coloured noise on the device, "mixed" tosses a coin
            per image.
        contrast: share of a pseudo-anomaly's difference from the image that is kept, drawn
            uniformly per image between the two numbers.
        shrink: probability that a pseudo-anomaly is cut down to an ellipse around one of its
            pixels.
        shrink_radius: range of the ellipse's two semi-axes, drawn log-uniformly, as shares of the
            image side.
        foreground: probability that a pseudo-anomaly is restricted to the object of an image, and
            shifted there if less than a quarter of it is on the object. An object is what differs
            in colour from the border of the image; images without one are left alone.
        batching: "map" makes only the kind that is drawn, image after image (fast on a CPU); "vmap"
            makes every kind for the whole batch (fast on accelerators); "auto" takes "map" where
            JAX's default backend is the CPU. The values do not depend on it. "map" gathers a batch
            that is sharded over several devices.

    Raises:
        ValueError: the shares do not sum to 1, or a range is not rising within 0 to 1.
    """

    perlin: UnitInterval = 0.5
    patch: UnitInterval = 0.25
    scar: UnitInterval = 0.25
    textures: Literal["images", "noise", "mixed"] = "mixed"
    contrast: tuple[UnitInterval, UnitInterval] = (1.0, 1.0)
    shrink: UnitInterval = 0.0
    shrink_radius: tuple[PositiveFloat, PositiveFloat] = (0.015, 0.12)
    foreground: UnitInterval = 0.0
    batching: Literal["auto", "vmap", "map"] = "auto"

    def __post_init__(self) -> None:
        shares = (self.perlin, self.patch, self.scar)
        if not math.isclose(sum(shares), 1.0, abs_tol=1e-6):
            raise ValueError(f"perlin, patch and scar are {shares}; they must sum to 1")
        for name in ("contrast", "shrink_radius"):
            lowest, highest = getattr(self, name)
            if not 0.0 <= lowest <= highest <= 1.0:
                raise ValueError(f"{name} is ({lowest}, {highest}); it must rise within 0 to 1")
