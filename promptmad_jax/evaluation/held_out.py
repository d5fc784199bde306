"""How good a state is by images that are neither trained on nor tested on."""

import numpy as np

from promptmad_jax.evaluation.calibration import Calibration, Probe
from promptmad_jax.evaluation.metrics import pixel_metrics
from promptmad_jax.runtime.errors import UserError

CHOICE = "mean pixel AP of pseudo-anomalies on normal images held out of training"


def pseudo_anomaly_ap(probe: Probe, calibration: Calibration, fusion: str) -> float:
    """Pixel AP of the final map, the plain mean over the classes, in 0..1.

    Each class is measured on its held-out normal images, as they are and with a pseudo-anomaly; the
    masks of these are the truth. It ranks the states of one run. It does not tell how well real
    defects are found.

    Args:
        calibration: of the same probe.

    Raises:
        UserError: no class has a pseudo-anomaly.
    """
    values = []
    for name, normal, anomalous, masks in probe.by_class():
        final = np.concatenate(
            [calibration.final_map(m, fusion, [name] * len(masks)) for m in (normal, anomalous)]
        )
        truth = np.concatenate([np.zeros_like(masks), masks])
        values.append(pixel_metrics(final, truth)[0]["pixel_ap"])
    defined = [value for value in values if value is not None]
    if not defined:
        raise UserError(
            "none of the held-out images got a pseudo-anomaly, so there is nothing to choose a "
            "checkpoint by: raise data.holdout, or set eval.checkpoint to 'last'"
        )
    return float(np.mean(defined))
