"""An evaluation of everything, for one process or several."""

from dataclasses import replace

import numpy as np

from promptmad_jax.evaluation.config import EvalConfig
from promptmad_jax.evaluation.protocol import Evaluator
from tests.evaluation.classes import make_class

MODES = (
    "onenip_fusion",
    "resized_mask_label",
    "plain_max",
    "mean_top_1pct",
    "trapezoid_ap",
    "f1max_21",
    "pro_200",
    "bins_50",
    "original_size",
)
THRESHOLDS = {"tile": (0.9, 0.7), "screw": (1.0, 0.6), "plain": (2.0, 2.0)}


def classes():
    """Ties within and between images, a class without defects, one whose mask vanished."""
    tile = make_class("tile", 1, normal=2, defective=5, levels=7)
    screw = make_class("screw", 2, normal=1, defective=2)
    screw.masks[2] = False
    plain = make_class("plain", 3, normal=2, defective=0)
    return [
        replace(one, original_masks=tuple(np.kron(mask, np.ones((2, 3))) > 0 for mask in one.masks))
        for one in (tile, screw, plain)
    ]


def evaluate(communicator, split):
    protocol = EvalConfig(compat=MODES)
    with Evaluator(protocol, THRESHOLDS, "of the test", communicator) as evaluator:
        for one in classes():
            evaluator.add(split(one, communicator))
        return evaluator.result()


# Of the 7, 3 and 2 images, four processes have 2, 2, 2, 1; 1, 1, 1, 0; and 1, 1, 0, 0.
def in_turn(one, communicator):
    return one.share(communicator.index, communicator.count)
