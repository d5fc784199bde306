"""The evaluation protocol: class after class in, metrics.json out."""

from dataclasses import dataclass

import numpy as np

from promptmad_jax.evaluation.blocks import Block, Values, class_metrics
from promptmad_jax.evaluation.class_maps import ClassMaps
from promptmad_jax.evaluation.compat import COMPAT_MODES, OneNipFusion, ResizedMaskLabel
from promptmad_jax.evaluation.metrics import (
    PixelScores,
    check_finite,
    image_metrics,
    image_scores,
    pixel_metrics_of,
    split_pixels,
)
from promptmad_jax.evaluation.scratch import Scratch
from promptmad_jax.runtime.errors import UserError


@dataclass(frozen=True)
class Protocol:
    """The choices that figures depend on.

    Attributes:
      image_pool: window in pixels of the average whose maximum is the image score.
      aupro_limit: the false-positive rate up to which AUPRO integrates.
      compat: the compatibility modes to add, of `COMPAT_MODES`.
      scratch: folder for temporary files, the system's where empty. Pooling takes one float32 a
        pixel of the test set there, "onenip_fusion" two more and one byte.

    Raises:
      UserError: for values outside their range and unknown modes.
    """

    image_pool: int = 16
    aupro_limit: float = 0.3
    compat: tuple[str, ...] = COMPAT_MODES
    scratch: str = ""

    def __post_init__(self):
        if not 0 < self.aupro_limit <= 1:
            raise UserError(f"aupro_limit is {self.aupro_limit}; it must lie in (0, 1]")
        if self.image_pool < 1:
            raise UserError(f"image_pool is {self.image_pool}; it must be 1 or more")
        unknown = sorted(set(self.compat) - set(COMPAT_MODES))
        if unknown:
            raise UserError(f"compat mode {unknown[0]!r} is unknown; known: {COMPAT_MODES}")


class Evaluator:
    """Takes the maps of one class at a time and keeps on disk what the whole test set needs.

    `maps["final"]` makes the figures of `classes`; every other map gets a block of its own under
    `maps`. Memory is bounded by the largest class. As a context manager it removes its temporary
    files at the end; otherwise `close` does, or the garbage collector.
    """

    def __init__(self, protocol: Protocol | None = None):
        self._protocol = protocol if protocol is not None else Protocol()
        self._scratch = Scratch(self._protocol.scratch)
        self._final = Block()
        self._others: dict[str, Block] = {}
        self._pooled: dict[str, tuple[PixelScores, np.ndarray, np.ndarray]] = {}
        self._images: dict[str, dict[str, int]] = {}
        self._sizes: set[tuple[int, int]] = set()
        pool, limit = self._protocol.image_pool, self._protocol.aupro_limit
        self._fusion = OneNipFusion(pool, limit, self._scratch)
        self._mask_label = ResizedMaskLabel()

    def add(self, class_maps: ClassMaps) -> None:
        """Measures one class.

        Raises:
          UserError: where a class comes twice, has no images, or a map holds NaN or infinity; the
            message names the image.
        """
        name = class_maps.class_name
        if name in self._images:
            raise UserError(f"class {name} was evaluated already; give every class once")
        if not len(class_maps.labels):
            raise UserError(f"class {name} has no test images; leave it out or add some")
        for key, values in class_maps.maps.items():
            check_finite(values, class_maps.filenames, f"{key} map")
        self._add_final(class_maps)
        for key, values in class_maps.maps.items():
            if key != "final":
                block = self._others.setdefault(key, Block())
                block.add(name, *self._measure(class_maps, values)[:2])
        if "onenip_fusion" in self._protocol.compat:
            self._fusion.add(class_maps)
        defective = int(np.count_nonzero(class_maps.labels))
        counts = {"normal": len(class_maps.labels) - defective, "defective": defective}
        self._images[name] = counts
        self._sizes.add(class_maps.masks.shape[1:])

    def result(self) -> dict:
        """The content of metrics.json, for all classes added so far.

        Returns:
          `classes`, `mean`, `defined_classes` and `undefined` of the final maps (see
          `Block.result`), `pooled` (metric -> value over all images and pixels together), `maps`
          (map -> block), `compat` (mode -> block) and `protocol`, the choices in words.

        Raises:
          UserError: before the first class.
        """
        if not self._images:
            raise UserError("there is no class to evaluate; the test split is empty")
        block = self._final.result()
        pooled, missing = self._pool_classes()
        if missing:
            block["undefined"]["pooled"] = missing
        compat, left_out = self._compat()
        return block | {
            "pooled": pooled,
            "maps": {key: other.result() for key, other in self._others.items()},
            "compat": compat,
            "protocol": self._describe() | {"compat_left_out": left_out},
        }

    def close(self) -> None:
        """Removes the temporary files."""
        self._scratch.close()

    def __enter__(self) -> "Evaluator":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _measure(
        self, class_maps: ClassMaps, maps: np.ndarray
    ) -> tuple[Values, dict[str, str], PixelScores]:
        pixels = split_pixels(maps, class_maps.masks)
        pool, limit = self._protocol.image_pool, self._protocol.aupro_limit
        return *class_metrics(maps, pixels, class_maps.labels, pool, limit), pixels

    def _add_final(self, class_maps: ClassMaps) -> None:
        maps = class_maps.maps["final"]
        values, undefined, pixels = self._measure(class_maps, maps)
        self._final.add(class_maps.class_name, values, undefined)
        scores = image_scores(maps, self._protocol.image_pool)
        on_disk = PixelScores(
            self._scratch.keep(pixels.negatives), pixels.positives, pixels.weights
        )
        self._pooled[class_maps.class_name] = on_disk, scores, np.asarray(class_maps.labels)
        if "resized_mask_label" in self._protocol.compat:
            self._mask_label.add(class_maps, scores)

    def _pool_classes(self) -> tuple[Values, dict[str, str]]:
        # By name, so that sums are taken in one order whatever the order of the classes.
        kept = [self._pooled[name] for name in sorted(self._pooled)]
        of_pixels, pixels_missing = pixel_metrics_of(
            [pixels for pixels, _, _ in kept], self._protocol.aupro_limit
        )
        of_images, images_missing = image_metrics(
            np.concatenate([scores for _, scores, _ in kept]),
            np.concatenate([labels for _, _, labels in kept]),
        )
        return of_images | of_pixels, images_missing | pixels_missing

    def _compat(self) -> tuple[dict, dict[str, str]]:
        modes = {"onenip_fusion": self._fusion, "resized_mask_label": self._mask_label}
        chosen = {name: modes[name] for name in self._protocol.compat}
        results = {name: mode.result() for name, mode in chosen.items() if not mode.left_out}
        return results, {name: mode.left_out for name, mode in chosen.items() if mode.left_out}

    def _describe(self) -> dict:
        pool = self._protocol.image_pool
        return {
            "image_score": f"maximum of the {pool}x{pool} average of the map, stride 1",
            "image_pool": pool,
            "image_label": "of the data set",
            "pixel_label": "mask > 0, resized to the map size with nearest",
            "map_size": sorted(list(size) for size in self._sizes),
            "thresholds": "all distinct scores, exact",
            "ap": "step-wise",
            "aupro": "8-connected regions of each image, interpolated at the limit",
            "aupro_limit": self._protocol.aupro_limit,
            "mean": "plain mean over the classes where the metric is defined",
            "pooled": "all images and all pixels of all classes together",
            "images": dict(self._images),
        }
