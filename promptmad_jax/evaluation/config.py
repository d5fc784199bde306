"""Settings of the evaluation."""

from dataclasses import dataclass
from typing import Annotated, Literal

from promptmad_jax.evaluation.compat.modes import DEFAULT_MODES, check_mode
from promptmad_jax.runtime.field_types import NonNegativeInt, PositiveInt, Range, UnitInterval

Fusion = Literal[
    "calibrated", "image_local", "standardized", "reconstruction", "segmentor", "weighted"
]


@dataclass(frozen=True)
class EvalConfig:
    """Inference, fusion of the maps, thresholds and metrics.

    Attributes:
        batch_size: images per forward pass.
        fusion: rule of the final map. "calibrated" is OneNIP's rule with its scale from normal
            images, held-out ones where there are any, and their pseudo-anomalies (the reference
            takes it from the whole test set; the compat mode `onenip_fusion` reports that).
            "image_local" is that rule with a scale per image. "standardized" adds the
            reconstruction map and half the segmentor's log-odds, each in standard deviations of the
            pixels of the class's normal images. "reconstruction" and "segmentor" take one map
            alone. "weighted", for a model with a memory, adds the maps of memory, segmentor and
            reconstruction in the same units, with the weights that find pseudo-anomalies on those
            normal images best.
        calibration_images: training images that set these constants where none are held out.
        threshold_images: normal images per class that set the thresholds: those held out and, with
            a memory, training images, each scored without its own patches.
        image_pool: the image score is the maximum of the map's image_pool x image_pool average.
        aupro_limit: false-positive rate up to which AUPRO integrates.
        compat: additional figures as other code bases define them, see the modes.
        prompt_index: position, in file order, of the training image of a class that is its prompt.
        pixel_fpr: share of normal pixels above the pixel threshold.
        image_fpr: share of new normal images above the image threshold.
        unknown_fpr: share of new normal images that may be called no picture of the class.
        checkpoint: kept checkpoint that is evaluated and used: "last" is the newest; "held_out" the
            one with the highest pixel AP on pseudo-anomalies of the normal images that
            `data.holdout` keeps out of training. Never chosen by the test images.

    Raises:
        ValueError: an unknown compat mode.
    """

    batch_size: Annotated[int, Range(1, 1_000_000)] = 8
    fusion: Fusion = "calibrated"
    calibration_images: PositiveInt = 64
    threshold_images: PositiveInt = 200
    image_pool: Annotated[int, Range(1, 8192)] = 16
    aupro_limit: Annotated[float, Range(0, 1, above=True)] = 0.3
    compat: tuple[str, ...] = DEFAULT_MODES
    prompt_index: NonNegativeInt = 0
    pixel_fpr: UnitInterval = 0.01
    image_fpr: UnitInterval = 0.05
    unknown_fpr: UnitInterval = 0.01
    checkpoint: Literal["last", "held_out"] = "last"

    def __post_init__(self):
        for name in self.compat:
            check_mode(name)
