"""One evaluation: a model's maps of a test split, class by class, measured and drawn."""

from collections.abc import Callable, Iterator

import numpy as np

from promptmad_jax.data.image_set import ImageSet
from promptmad_jax.evaluation.calibration import Calibration, final_map
from promptmad_jax.evaluation.class_maps import ClassMaps
from promptmad_jax.evaluation.inference import MapMaker
from promptmad_jax.evaluation.protocol import Evaluator, Protocol
from promptmad_jax.models.functional import Params, Stats


def class_maps(
    maker: MapMaker,
    params: Params,
    stats: Stats,
    test: ImageSet,
    fusion: str,
    calibration: Calibration,
) -> Iterator[ClassMaps]:
    """Yields the maps of each class that has test images; memory is bounded by the largest."""
    bank = maker.bank(params, stats)
    for k, name in enumerate(test.class_names):
        rows = np.flatnonzero(test.class_ids == k)
        if not len(rows):
            continue
        images = np.asarray(test.images[rows])
        maps = maker.maps(params, stats, bank, images, test.class_ids[rows])
        maps["final"] = final_map(maps, fusion, calibration, [name] * len(rows))
        yield ClassMaps(
            name,
            tuple(test.filenames[i] for i in rows),
            tuple(test.defect_types[i] for i in rows),
            test.labels[rows],
            images,
            np.asarray(test.masks[rows]),
            maps,
        )


def evaluate_maps(
    maps: Iterator[ClassMaps], protocol: Protocol, also: Callable[[ClassMaps], None] | None = None
) -> dict:
    """The metrics.json object of the maps; `also` sees every class once, for a report."""
    evaluator = Evaluator(protocol)
    try:
        for one in maps:
            evaluator.add(one)
            if also is not None:
                also(one)
        return evaluator.result()
    finally:
        evaluator.close()
