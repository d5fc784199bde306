"""Small classes with maps, and brute-force metrics of them."""

import itertools

import numpy as np
from scipy import ndimage

from promptmad_jax.evaluation.class_maps import ClassMaps
from promptmad_jax.evaluation.metrics.exact import build_curve, image_sample, measure
from promptmad_jax.evaluation.metrics.metrics import IMAGE_FIGURES

SIZE = 24
PARTS = ("reconstruction", "coarse", "refined")


def make_class(name, seed, normal=3, defective=3, keys=PARTS, levels=None):
    """Random maps, higher on a square defect; `levels` rounds them to that many values."""
    rng = np.random.default_rng(seed)
    count = normal + defective
    labels = np.repeat([0, 1], [normal, defective])
    masks = np.zeros((count, SIZE, SIZE), bool)
    masks[normal:, 4:9, 5:12] = True
    masks[normal + 1 :, 20, 20] = True

    def draw(scale):
        values = rng.random((count, SIZE, SIZE), np.float32) + 0.6 * masks
        if levels is not None:
            values = np.floor(values * levels) / levels
        return (scale * values).astype(np.float32)

    return ClassMaps(
        class_name=name,
        filenames=tuple(f"{name}/test/{i:03d}.png" for i in range(count)),
        defect_types=("good",) * normal + ("dent",) * defective,
        labels=labels,
        images=rng.integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8),
        masks=masks,
        maps={"final": draw(1.0)} | {key: draw(3.0 + seed) for key in keys},
    )


def random_case(seed, levels, images=4, size=12):
    """Maps float32 [n, H, W] with at most `levels` values in a unit, and masks with small regions;
    the first image is normal."""
    rng = np.random.default_rng(seed)
    masks = ndimage.binary_dilation(
        rng.random((images, size, size)) > 0.97, structure=np.ones((1, 2, 2))
    )
    masks[0] = False
    masks[1, 3, 3] = True
    maps = rng.random((images, size, size)) + 0.5 * masks
    return (np.floor(maps * levels) / levels).astype(np.float32), masks


def image_metrics(scores, labels):
    return measure(build_curve([image_sample(scores, labels)]), IMAGE_FIGURES)


def regions_of(masks):
    """(image, mask of one region) of all regions."""
    for index, mask in enumerate(masks):
        labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
        for region in range(1, count + 1):
            yield index, labels == region


def brute_force_aupro(maps, masks, limit):
    """Every threshold by itself, every region by itself."""
    regions = list(regions_of(masks))
    rates, overlaps = [0.0], [0.0]
    for threshold in np.unique(maps)[::-1]:
        found = maps >= threshold
        rates.append(found[~masks].mean())
        overlaps.append(np.mean([found[i][region].mean() for i, region in regions]))
    fine = np.unique(np.append(np.asarray(rates)[np.asarray(rates) <= limit], limit))
    area = 0.0
    for left, right in itertools.pairwise(fine):
        # At a jump the curve leaves from the higher of its values.
        start = max(o for r, o in zip(rates, overlaps, strict=True) if r == left)
        ends = [o for r, o in zip(rates, overlaps, strict=True) if r == right]
        end = min(ends) if ends else np.interp(right, rates, overlaps)
        area += (right - left) * (start + end) / 2
    return area / limit
