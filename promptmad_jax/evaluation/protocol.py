"""The evaluation protocol: the maps of each class in, metrics.json out."""

from collections.abc import Mapping

import numpy as np

from promptmad_jax.evaluation.class_maps import ClassMaps
from promptmad_jax.evaluation.compat.modes import describe_mode, make_mode
from promptmad_jax.evaluation.config import EvalConfig
from promptmad_jax.evaluation.metrics.blocks import (
    METRICS,
    Block,
    ClassScores,
    Pooled,
    score_maps,
    unknown,
)
from promptmad_jax.evaluation.metrics.ground_truth import GroundTruth
from promptmad_jax.evaluation.metrics.metrics import SMALL_LIMIT, check_finite
from promptmad_jax.evaluation.metrics.thresholds import Decisions
from promptmad_jax.evaluation.scratch import Scratch
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.processes import ALONE, Communicator, agree, jointly

NO_TEST = "no test image"


def describe(config: EvalConfig) -> dict:
    """The choices that figures depend on, in words and numbers, for metrics.json."""
    pool = config.image_pool
    return {
        "image_score": f"maximum of the {pool}x{pool} average of the map, stride 1",
        "image_pool": pool,
        "image_label": "of the data set",
        "pixel_label": "mask > 0, resized to the map size with nearest",
        "thresholds": "all distinct scores, exact",
        "ap": "step-wise",
        "aupro": "8-connected regions of each image, interpolated at the limit",
        "aupro_limit": config.aupro_limit,
        "aupro_05_limit": SMALL_LIMIT,
        "mean": "plain mean over the classes where the metric is defined",
        "pooled": "all images and all pixels of all classes together",
        "compat": {name: describe_mode(name) for name in config.compat},
    }


class Evaluator:
    """Takes the maps of one class at a time; what concerns the whole test set waits on disk.

    `maps["final"]` gives the metrics of `classes`; every other map gets a block of its own under
    `maps`. Memory is bounded by the largest class. As a context manager it removes its temporary
    files at the end; otherwise the garbage collector does.

    If several processes evaluate together, each adds its own images of every class, possibly none,
    with their `indices` in the class (`ClassMaps.share`), in the same order of classes. The result
    is the same on all of them, and that of one process, to the bit.

    Args:
      config: `image_pool`, `aupro_limit` and `compat` are read.
      thresholds: class -> thresholds of a pixel and of an image, for the block `thresholds`.
      thresholds_from: their origin, in words.
      communicator: the processes.
    """

    def __init__(
        self,
        config: EvalConfig,
        thresholds: Mapping[str, tuple] | None = None,
        thresholds_from: str = "given by the user",
        communicator: Communicator = ALONE,
    ):
        self._config = config
        self._communicator = communicator
        self._decisions = Decisions(thresholds) if thresholds else None
        self._thresholds_from = thresholds_from
        self._scratch = jointly(communicator, Scratch)
        self._final = Block()
        self._others: dict[str, Block] = {}
        self._pooled = Pooled(self._keep)
        self._images: dict[str, dict[str, int]] = {}
        self._sizes: set[tuple[int, int]] = set()
        self._own_scores = False
        pool, limit = config.image_pool, config.aupro_limit
        self._compat = {
            name: make_mode(name, pool, limit, self._keep, communicator) for name in config.compat
        }

    def add(self, class_maps: ClassMaps) -> None:
        """Measures one class.

        Raises:
          UserError: a class comes twice, has no images or no thresholds, or a map holds NaN or
            infinity; the message names the image.
          ValueError: the processes add different classes or maps, or an image twice.
        """
        agree(self._communicator, _form(class_maps))
        jointly(self._communicator, lambda: self._check(class_maps))
        name = class_maps.class_name
        truth = GroundTruth(class_maps.masks, class_maps.indices, self._communicator)
        if not truth.count:
            raise UserError(f"class {name} has no test images: leave it out or add some")
        labels = truth.images(np.asarray(class_maps.labels).astype(bool))
        for key, values in class_maps.maps.items():
            own = class_maps.image_scores if key == "final" else None
            scored = score_maps(values, truth, labels, self._config.image_pool, own)
            block = self._final if key == "final" else self._others.setdefault(key, Block())
            block.add(name, *scored.figures(self._config.aupro_limit))
            if key == "final":
                self._add_final(class_maps, scored)
        self._own_scores |= class_maps.image_scores is not None
        defective = int(np.count_nonzero(labels))
        self._images[name] = {"normal": truth.count - defective, "defective": defective}
        self._sizes.add(class_maps.masks.shape[1:])

    def add_untested(self, class_name: str) -> None:
        """Adds a class without test images: its thresholds hold, its figures are unknown."""
        self._images[class_name] = {"normal": 0, "defective": 0}
        self._final.add_unknown(class_name, NO_TEST)
        if self._decisions is not None:
            self._decisions.add_unknown(class_name, NO_TEST)

    def result(self) -> dict:
        """The content of metrics.json for all classes added so far.

        Returns:
          `classes`, `mean`, `defined_classes` and `undefined` of the final maps (see
          `Block.result`), `pooled` (metric -> value over all images and pixels together), `maps`
          (map -> block), `compat` (mode -> block), `thresholds` (a block) if thresholds were given,
          and `protocol`, the choices in words.

        Raises:
          UserError: no class was added.
        """
        if not self._images:
            raise UserError("no class to evaluate")
        block = self._final.result()
        tested, modes = bool(self._sizes), self._compat.items()
        pooled, missing = unknown(METRICS, NO_TEST)
        if tested:
            pooled, missing = self._pooled.figures(self._config.aupro_limit)
        if missing:
            block["undefined"]["pooled"] = missing
        decisions = {} if self._decisions is None else {"thresholds": self._decisions.result()}
        return block | {
            "pooled": pooled,
            "maps": {key: other.result() for key, other in self._others.items()},
            "compat": {name: mode.result() for name, mode in modes if tested and not mode.left_out},
            **decisions,
            "protocol": self._describe(),
        }

    def __enter__(self) -> "Evaluator":
        return self

    def __exit__(self, *exception: object) -> None:
        self._scratch.close()

    def _keep(self, array: np.ndarray) -> np.ndarray:
        return jointly(self._communicator, lambda: self._scratch.keep(array))

    def _check(self, class_maps: ClassMaps) -> None:
        name = class_maps.class_name
        if name in self._images:
            raise UserError(f"class {name} was added twice")
        if self._decisions is not None:
            self._decisions.check(name)
        for key, values in class_maps.maps.items():
            check_finite(values, class_maps.filenames, f"{key} map")
        if class_maps.image_scores is not None:
            check_finite(class_maps.image_scores, class_maps.filenames, "image score")

    def _add_final(self, class_maps: ClassMaps, scored: ClassScores) -> None:
        self._pooled.add(class_maps.class_name, scored)
        if self._decisions is not None:
            self._decisions.add(class_maps.class_name, scored)
        for mode in self._compat.values():
            mode.add(class_maps, scored)

    def _describe(self) -> dict:
        own = {
            "map_size": sorted(list(size) for size in self._sizes),
            "images": dict(self._images),
            "compat_left_out": {
                name: mode.left_out for name, mode in self._compat.items() if mode.left_out
            },
        }
        if self._own_scores:
            own["image_score"] = "the model's own; compat modes have theirs"
        if self._decisions is not None:
            own["decisions"] = f"above thresholds {self._thresholds_from}"
        return describe(self._config) | own


def _form(class_maps: ClassMaps) -> list:
    """The facts that must be the same on all processes, as JSON values."""
    maps = [[key, str(values.dtype)] for key, values in class_maps.maps.items()]
    size = list(class_maps.masks.shape[1:])
    given = [class_maps.original_masks is not None, class_maps.image_scores is not None]
    return [class_maps.class_name, size, maps, *given]
