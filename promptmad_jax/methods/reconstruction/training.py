"""Training of the detectors that learn from normal images."""

import functools
from typing import Any

from jax.sharding import Mesh

from promptmad_jax.config import Config, for_platform
from promptmad_jax.data.levels import PIXEL_RANGE
from promptmad_jax.data.pipeline import BatchOrder, Source, TrainArrays, make_source
from promptmad_jax.data.textures import load_textures
from promptmad_jax.methods.reconstruction.assembly import (
    Assembly,
    assemble,
    backbone_weights,
    class_text,
)
from promptmad_jax.methods.reconstruction.evaluation import finish
from promptmad_jax.methods.reconstruction.memory import run_memory
from promptmad_jax.methods.reconstruction.splits import class_prompts, load_splits
from promptmad_jax.methods.reconstruction.trained import TrainedDetector
from promptmad_jax.models.backbone.neck import Features
from promptmad_jax.models.reconstruction.detector import Frozen
from promptmad_jax.runs.frozen_weights import FrozenWeights
from promptmad_jax.runs.manifest import write_manifest
from promptmad_jax.runs.memory_file import ENTRY as MEMORY
from promptmad_jax.runs.memory_file import StoredMemory
from promptmad_jax.runs.workdir import Workdir
from promptmad_jax.runtime.dataclass_parser import to_dict
from promptmad_jax.runtime.processes import is_writer
from promptmad_jax.training.feature_cache import channel_moments, load_clean_features
from promptmad_jax.training.optimizer import Optimizer
from promptmad_jax.training.reconstruction_step import Clean, make_train_step
from promptmad_jax.training.state import Initializer, TrainState
from promptmad_jax.training.update import StepFunction


class ReconstructionTraining:
    """A `Training` of PromptMAD, OneNIP or UniAD on the normal images of the configured classes."""

    def __init__(self, config: Config, files: Workdir):
        self.config, self._files, self._splits = config, files, load_splits(config, files)
        self.fingerprint = self._splits.train.fingerprint
        self.num_images = len(self._splits.train)

    @functools.cached_property
    def _parts(self) -> Assembly:
        """The parts of the run without what is made of the training images."""
        config, train = self.config, self._splits.train
        names = train.class_names
        prompts = class_prompts(train, config.eval.prompt_index)
        return assemble(config, names, class_text(config, names), prompts)

    @functools.cached_property
    def _features(self) -> Features:
        """The cached features of the training images."""
        config = self.config
        return load_clean_features(
            f"{config.data.cache}/feature_cache",
            self._parts.detector,
            self._parts.frozen,
            self._splits.train,
            config.train.fine_dtype,
            self.mesh,
        )

    @functools.cached_property
    def _memory(self) -> StoredMemory | None:
        """The memory in the run's folder; None for a model without one."""
        if not self.config.memory.patches:
            return None
        weights = self.frozen_weights.digest()
        patches = self._features.patches
        return run_memory(self.config, self._files, self._splits.train, patches, weights)

    @functools.cached_property
    def assembly(self) -> Assembly:
        """All parts of the run; caches features and makes the memory where they are asked for."""
        assembly = self._parts
        if self.config.reconstructor.standardize:
            assembly = assembly.with_frozen(moments=channel_moments(self._features.neck))
        if self._memory is not None:
            assembly = assembly.with_frozen(memory=self._memory.trained.memory)
        return assembly

    @property
    def mesh(self) -> Mesh:
        return self._parts.mesh

    @property
    def network(self) -> Initializer:
        return self._parts.network

    @property
    def frozen(self) -> Frozen:
        return self.assembly.frozen

    @property
    def frozen_weights(self) -> FrozenWeights:
        return backbone_weights(self.config)

    def describe(self, files: Workdir) -> None:
        """Writes the bank and the manifest."""
        assembly, splits = self.assembly, self._splits
        if not is_writer():
            return
        moments, platform = assembly.frozen.moments, self.mesh.devices.flat[0].platform
        files.write_bank(assembly.class_names, assembly.prompts, assembly.text, moments)
        write_manifest(
            files.manifest,
            to_dict(self.config),
            self.config.train.seed,
            self.fingerprint,
            self.mesh,
            {
                "classes": list(assembly.class_names),
                "train_images": len(splits.train.images),
                "held_out_images": len(splits.held.images),
                "test_images": len(splits.test.images),
                "test_fingerprint": splits.test.fingerprint,
                "compute_dtype": for_platform(self.config, platform).compute_dtype,
                PIXEL_RANGE: splits.train.levels and splits.train.levels.to_json(),
            }
            | self.frozen_weights.facts()
            | ({} if self._memory is None else {MEMORY: self._memory.digest}),
        )

    def batches(self) -> tuple[BatchOrder, Source]:
        """See `Training`."""
        config, train = self.config, self._splits.train
        textures = load_textures(config.data.texture_dir, config.data.image_size, train.images)
        size = config.train.batch_size
        order = BatchOrder(config.train.seed, train.class_ids, size, len(textures))
        nearest = None if self._memory is None else self._memory.trained.nearest
        clean = Clean(self._features, nearest)
        arrays = TrainArrays(train.images, textures, train.class_ids, clean)
        return order, make_source(arrays, self.mesh, config.train.resident)

    def step_function(self, optimizer: Optimizer, shardings: Any) -> StepFunction:
        """See `Training`."""
        config, detector = self.config, self.assembly.detector
        settings, ignored = (config.pseudo_anomaly, config.loss), self._splits.train.ignored_by_id
        return make_train_step(detector, optimizer, *settings, self.mesh, shardings, ignored)

    def evaluate(self, state: TrainState) -> dict:
        """See `Training`."""
        detector = TrainedDetector(self.assembly, state.weights)
        return detector.evaluate(self._splits, detector.calibrate(self._splits))

    def finish(self, state: TrainState, files: Workdir) -> dict:
        """See `Training`."""
        detector = TrainedDetector(self.assembly, state.weights)
        return finish(detector, self._splits, files, files)
