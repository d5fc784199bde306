"""Configuration of the pseudo-anomalies."""

import dataclasses
import math

from promptmad_jax.runtime.errors import UserError

TEXTURE_SOURCES = ("images", "noise", "mixed")
BATCHINGS = ("auto", "vmap", "map")


@dataclasses.dataclass(frozen=True)
class PseudoAnomalyConfig:
    """What is pasted, how often, and how the batch is walked.

    Attributes:
      perlin: share of images with a texture pasted through a Perlin-noise mask.
      patch: share of images with a large jittered rectangle of themselves (CutPaste).
      scar: share of images with a thin rotated strip of themselves (CutPaste-Scar).
      textures: where Perlin textures come from: `images` augments the `textures` argument,
        `noise` makes coloured noise on the device, `mixed` tosses a coin for each image.
      batching: `map` runs only the chosen kind, image after image (fast on a CPU); `vmap`
        computes every kind for the whole batch (fast on accelerators); `auto` takes `map`
        where JAX's default backend is the CPU. The values do not depend on it. Under `map`
        a batch axis sharded over several devices is gathered: use `vmap` or `jax.shard_map`.

    Raises:
      UserError: for shares that are negative or do not sum to one, or an unknown name.
    """

    perlin: float = 0.5
    patch: float = 0.25
    scar: float = 0.25
    textures: str = "mixed"
    batching: str = "auto"

    def __post_init__(self) -> None:
        shares = (self.perlin, self.patch, self.scar)
        if min(shares) < 0 or not math.isclose(sum(shares), 1.0, abs_tol=1e-6):
            raise UserError(
                f"pseudo_anomaly: the shares perlin, patch and scar are {shares}; "
                "they must not be negative and must sum to 1."
            )
        _check_choice("textures", self.textures, TEXTURE_SOURCES)
        _check_choice("batching", self.batching, BATCHINGS)


def _check_choice(field: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UserError(f"pseudo_anomaly.{field} is {value!r}; choose one of {', '.join(choices)}.")
