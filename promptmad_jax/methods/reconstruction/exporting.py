"""The programs and arrays of a trained detector, to be run without this code."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from promptmad_jax.methods.reconstruction.trained import TrainedDetector
from promptmad_jax.runtime.cpu.chunking import WHOLE_BATCH


class ExportedReconstruction:
    """See `Exportable`."""

    def __init__(self, detector: TrainedDetector):
        self._detector = detector.assembly.detector
        assembly, maker = detector.assembly, detector.maker
        tree = (maker.params, maker.stats, assembly.frozen, maker.bank)
        leaves, self._structure = jax.tree_util.tree_flatten_with_path(tree)
        name = lambda path: jax.tree_util.keystr(path, simple=True, separator="/")
        self.arrays = {name(path): np.asarray(leaf) for path, leaf in leaves}
        self.class_names = assembly.class_names
        self.image_size = self._detector.image_size
        self.fusion = assembly.config.eval.fusion
        self.image_pool = assembly.config.eval.image_pool

    def program(self, platform: str, batch_size: int) -> export.Exported:
        """See `Exportable`."""
        size, shape = self.image_size, jax.ShapeDtypeStruct
        arrays = jax.tree.map(lambda x: shape(x.shape, x.dtype), self.arrays)
        images = shape((batch_size, size, size, 3), jnp.uint8)
        ids = shape((batch_size,), jnp.int32)
        function = jax.jit(self.function(platform))
        return export.export(function, platforms=(platform,))(arrays, images, ids)

    def function(self, platform: str) -> Callable:
        """See `Exportable`."""
        detector = self._detector
        if platform != "cpu":
            detector = dataclasses.replace(detector, chunking=WHOLE_BATCH)
        return functools.partial(self._compute, detector)

    def _compute(self, detector, arrays, images, class_ids):
        leaves = [arrays[name] for name in self.arrays]
        params, stats, frozen, bank = jax.tree.unflatten(self._structure, leaves)
        outside = jnp.full(class_ids.shape, -1, jnp.int32)  # of the training set
        return detector.described_maps(params, stats, frozen, bank, images, class_ids, outside)
