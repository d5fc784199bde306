"""Normal training images held out of training, to set thresholds with."""

import numpy as np

from promptmad_jax.data.image_set import ImageSet


def hold_out(train: ImageSet, fraction: float) -> tuple[ImageSet, ImageSet]:
    """Splits training images into those to train on and those held out.

    Of each class `fraction` of the images is held out, rounded up and spread evenly over its files,
    but never its first, which is its prompt. A class of one image has it on both sides.

    Args:
        fraction: 0 to 0.5.

    Returns:
        (kept, held); held is empty if fraction is 0.
    """
    if fraction == 0:
        return train, train.select([])
    kept, held = np.ones(len(train), bool), np.zeros(len(train), bool)
    for k in range(len(train.class_names)):
        members = np.flatnonzero(train.class_ids == k)
        if len(members) == 1:
            held[members] = True
            continue
        count = int(np.ceil(fraction * len(members)))
        chosen = members[np.linspace(1, len(members) - 1, count).round().astype(int)]
        held[chosen], kept[chosen] = True, False
    return train.select(np.flatnonzero(kept)), train.select(np.flatnonzero(held))
