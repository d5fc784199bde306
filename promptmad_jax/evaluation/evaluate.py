"""The evaluation of a model: its maps of a test split, measured class by class."""

from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

from promptmad_jax.data.image_set import ImageSet
from promptmad_jax.evaluation.class_maps import ClassMaps
from promptmad_jax.evaluation.compat.original_size import OriginalMasks
from promptmad_jax.evaluation.config import EvalConfig
from promptmad_jax.evaluation.constants import Calibration
from promptmad_jax.evaluation.inference import MapMaker
from promptmad_jax.evaluation.protocol import Evaluator
from promptmad_jax.runtime.console import track
from promptmad_jax.runtime.processes import ALONE, Communicator, this_run


def class_maps(
    maker: MapMaker,
    test: ImageSet,
    fusion: str,
    calibration: Calibration,
    original_masks: OriginalMasks | None = None,
    shared: Communicator = ALONE,
) -> Iterator[ClassMaps]:
    """Yields the maps of each class that has test images; memory is bounded by the largest.

    Args:
        original_masks: reads the masks before resizing, for the mode "original_size".
        shared: the processes that each take every `count`-th image of a class, possibly none. By
            default each process gets all maps, whichever of them made them.
    """
    names = track(test.class_names, f"mapping {len(test)} test images")
    for k, name in enumerate(names):
        members = np.flatnonzero(test.class_ids == k)
        if not len(members):
            continue
        indices = np.arange(shared.index, len(members), shared.count)
        rows = members[indices]
        images, ids = np.asarray(test.images[rows]), test.class_ids[rows]
        if shared.count == 1:
            maps = maker.maps(images, ids)
        else:
            maps = maker.own_maps(images, ids, -(-len(members) // shared.count))
        maps["final"] = calibration.final_map(maps, fusion, [name] * len(rows))
        masks = np.asarray(test.masks[rows])
        if name in calibration.ignored:
            masks = masks & ~calibration.ignored[name]
        filenames = tuple(test.filenames[i] for i in rows)
        yield ClassMaps(
            name,
            filenames,
            tuple(test.defect_types[i] for i in rows),
            test.labels[rows],
            images,
            masks,
            maps,
            indices=indices,
            original_masks=original_masks and original_masks(name, filenames),
            thresholds=calibration.thresholds.get(name),
            normal_level=calibration.score_range[name][0],
        )


def evaluate_maps(
    maps: Iterator[ClassMaps],
    config: EvalConfig,
    thresholds: Mapping[str, tuple],
    thresholds_from: str,
    also: Callable[[ClassMaps], None] | None = None,
    untested: Iterable[str] = (),
) -> dict:
    """Measures maps, all processes of the run together, and returns the metrics.json object.

    Args:
        maps: of each process's own images; with `also`, of all images on every process.
        also: is called with every class, for a report.
        untested: classes without test images.
    """
    run = this_run()
    with Evaluator(config, thresholds, thresholds_from, run) as evaluator:
        for one in maps:
            evaluator.add(one if also is None else one.share(run.index, run.count))
            if also is not None:
                also(one)
        for name in untested:
            evaluator.add_untested(name)
        return evaluator.result()
