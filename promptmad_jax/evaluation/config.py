"""Settings of the evaluation."""

from dataclasses import dataclass

from promptmad_jax.evaluation.compat.modes import DEFAULT_MODES


@dataclass(frozen=True)
class EvalConfig:
    """How maps are fused and measured.

    Attributes:
        batch_size: images a forward pass.
        fusion: the final map. "calibrated" is OneNIP's rule with its scale from normal images,
            held-out ones where there are some, and their pseudo-anomalies (the reference reads it
            off the whole test set, which the compat rows `onenip_fusion` report); "image_local" is
            that rule with a scale an image; "standardized" adds the reconstruction map and half
            the segmentor's log-odds, each in standard deviations of the pixels of the class's
            normal images; "reconstruction" or "segmentor" takes one part alone.
        calibration_images: how many training images set those constants, where none are held out.
        pixel_fpr, image_fpr: share of normal pixels and images above the thresholds.
        image_pool: the image score is the maximum of the map's image_pool x image_pool average.
        aupro_limit: false-positive rate up to which AUPRO integrates.
        compat: figures as other code bases define them, beside ours; see `COMPAT_MODES` in
            evaluation/compat.py.
        prompt_index: which training image of a class, in file order, is its prompt.
        checkpoint: which of the kept checkpoints is evaluated and used: "last", the newest; or
            "held_out", that with the highest pixel AP on pseudo-anomalies of the normal images that
            data.holdout keeps out of training. Never by the test images.
    """

    batch_size: int = 8
    fusion: str = "calibrated"
    calibration_images: int = 64
    image_pool: int = 16
    aupro_limit: float = 0.3
    compat: tuple[str, ...] = DEFAULT_MODES
    prompt_index: int = 0
    pixel_fpr: float = 0.01
    image_fpr: float = 0.05
    checkpoint: str = "last"
