"""The diffusion steps of one image, from the coarse map to the refined one."""

from collections.abc import Callable, Sequence

import numpy as np
from scipy import ndimage
from scipy.special import expit

from promptmad_jax.evaluation.class_maps import ClassMaps
from promptmad_jax.evaluation.inference import MapMaker
from promptmad_jax.reporting.gallery import Example, colour_scale
from promptmad_jax.reporting.overlay import colorize, diverging

MAX_STEPS = 10

# (class name, images uint8 [n, S, S, 3]) to the logit after each step, [T, n, h, w].
StepSource = Callable[[str, np.ndarray], np.ndarray]


def step_source(maker: MapMaker, class_names: Sequence[str]) -> StepSource:
    """The diffusion steps of a model's images; nothing is computed before the first call."""

    def steps(class_name: str, images: np.ndarray) -> np.ndarray:
        ids = np.full(len(images), list(class_names).index(class_name))
        return maker.diffusion_steps(images, ids)

    return steps


def make_strip(class_maps: ClassMaps, steps: StepSource) -> Example | None:
    """The diffusion steps of the image that the refinement changed most on its defect.

    All maps share one colour scale, which spans those of the class's coarse and refined maps.

    Returns:
      None if no mask has a defect or the model has no refined map.
    """
    if not class_maps.masks.any() or "refined" not in class_maps.maps:
        return None
    index = most_changed(class_maps)
    image, mask = class_maps.images[index], class_maps.masks[index]
    logits = steps(class_maps.class_name, image[None])[:, 0]
    coarse, refined = (class_maps.maps[name][index] for name in ("coarse", "refined"))
    scales = [colour_scale(class_maps, name) for name in ("coarse", "refined")]
    scale = min(low for low, _ in scales), max(high for _, high in scales)
    pictures = {"image": image, "mask": mask, "coarse": colorize(coarse, *scale)}
    for step in np.unique(np.linspace(0, len(logits) - 1, MAX_STEPS).round().astype(int)):
        pictures[f"step {step + 1}"] = colorize(_probability(logits[step], mask.shape), *scale)
    change = refined - coarse
    extent = max(float(np.abs(change).max()), 1e-6)
    pictures[f"change, ±{extent:.2g}"] = diverging(change, extent)
    return Example(
        class_maps.filenames[index],
        class_maps.defect_types[index],
        _summary(coarse, refined, mask),
        pictures,
    )


def most_changed(class_maps: ClassMaps) -> int:
    """The image whose mean probability on the defect differs most between coarse and refined."""
    change = class_maps.maps["refined"] - class_maps.maps["coarse"]
    area = class_maps.masks.sum((1, 2))
    moved = np.abs((change * class_maps.masks).sum((1, 2))) / np.maximum(area, 1)
    return int(np.argmax(np.where(area > 0, moved, -1.0)))


def _summary(coarse: np.ndarray, refined: np.ndarray, mask: np.ndarray) -> str:
    places = {"on the defect": mask, "elsewhere": ~mask}
    means = (
        f"{place} {coarse[pixels].mean():.2g} → {refined[pixels].mean():.2g}"
        for place, pixels in places.items()
        if pixels.any()
    )
    return f"mean probability, coarse → refined: {'; '.join(means)}"


def _probability(logit: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Enlarges the logit bilinearly with aligned corners, as the model does, to a probability."""
    factors = [size / own for size, own in zip(shape, logit.shape, strict=True)]
    return expit(ndimage.zoom(logit, factors, order=1))
