"""PromptMAD, OneNIP and UniAD with random arrays, to be measured."""

import dataclasses
import itertools
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from promptmad_jax.config import Config
from promptmad_jax.data.pipeline import BatchOrder, TrainArrays, make_source
from promptmad_jax.evaluation.inference import InferencePrograms, MapMaker
from promptmad_jax.methods.reconstruction.assembly import Assembly, assemble, has_text
from promptmad_jax.methods.reconstruction.random_run import write_run
from promptmad_jax.methods.subject import STEPS, Call, Program, Trainer, divisible, random_arrays
from promptmad_jax.models.backbone.neck import Features
from promptmad_jax.models.functional import Params, Stats
from promptmad_jax.models.reconstruction.detector import Bank, text_of
from promptmad_jax.models.reconstruction.memory import Match, Memory, memory_shapes
from promptmad_jax.models.reconstruction.outputs import Outputs, anomaly_maps
from promptmad_jax.prompts.embeddings import TextTokens
from promptmad_jax.runtime.mesh import batch_sharding, replicated
from promptmad_jax.training.optimizer import make_optimizer
from promptmad_jax.training.reconstruction_step import Clean, make_train_step
from promptmad_jax.training.state import TrainState, state_shapes

# CLIP ViT-B/32's width, and the largest number of states of a class of MVTec-AD.
_TEXT_WIDTH, _TEXT_TOKENS = 512, 9
_IMAGES = 64
# MVTec-AD's training images, whose cache the rows give the size of.
_MVTEC_IMAGES = 3629


class RandomDetector:
    """A `Subject` that also has the cases stages, synthesis and predict.

    Args:
        classes: K, of the class bank. weights: of the backbone, "random" or "config" for those of
            the configuration.
    """

    def __init__(self, config: Config, weights: str, classes: int):
        if weights == "random":
            backbone = dataclasses.replace(config.backbone, weights="random")
            config = dataclasses.replace(config, backbone=backbone)
        self.config, self._classes = config, classes
        names = tuple(f"class_{i:04d}" for i in range(classes))
        prompts, _ = self.images(classes)
        assembly = assemble(config, names, _random_text(config, classes), prompts)
        if assembly.detector.memory is not None:
            assembly = assembly.with_frozen(memory=_random_memory(assembly))
        self.assembly: Assembly = assembly
        self.detector, self.frozen = self.assembly.detector, self.assembly.frozen
        self.mesh = self.assembly.mesh

    @cached_property
    def weights(self) -> tuple[Params, Stats]:
        """Parameters and statistics; drawing them as training does takes far longer."""
        shapes = jax.eval_shape(self.detector.network.init, jax.random.key(0))
        params, stats = random_arrays(shapes, replicated(self.mesh))
        return params, jax.tree.map(lambda x: x * 0 + 1, stats)

    @cached_property
    def bank(self) -> Bank:
        """A class bank of random prompt tokens."""
        prompts = jax.eval_shape(lambda: self.assembly.prompts)
        shapes = jax.eval_shape(self.detector.bank, *self.weights, self.frozen, prompts)
        return Bank(random_arrays(shapes.prompt, replicated(self.mesh)), self.frozen.text)

    def images(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Images uint8 [count, S, S, 3] and their classes int32 [count]."""
        size = self.config.data.image_size
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
        return images, np.arange(count, dtype=np.int32) % self._classes

    def fields(self) -> dict[str, Any]:
        """See `Subject`."""
        return {
            "model": self.config.model,
            "backbone": self.detector.backbone.name,
            "image_size": self.detector.image_size,
            "dtype": self.detector.backbone.dtype,
            "classes": self._classes,
            "devices": self.mesh.size,
        }

    def host_to_host(self, batch_size: int) -> Call:
        """See `Subject`; the class bank is there."""
        maker = self._maker(batch_size)
        maker.bank = self.bank
        images, ids = self.images(maker.batch_size)
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(self.bank)) / 2**20
        return Call(lambda: maker.maps(images, ids), maker.batch_size, {"bank_mib": size})

    def _maker(self, batch_size: int) -> MapMaker:
        parts = self.detector, self.frozen, self.mesh
        return MapMaker(InferencePrograms(*parts, batch_size, self.assembly.prompts), *self.weights)

    def on_device(self, batch_size: int) -> Program:
        """See `Subject`."""
        whole, split = replicated(self.mesh), batch_sharding(self.mesh)
        maps = jax.jit(
            self.detector.maps, in_shardings=(None,) * 4 + (split,) * 3, out_shardings=whole
        )
        images, ids = self.images(divisible(batch_size, self.mesh))
        inputs = jax.device_put((images, ids, np.full_like(ids, -1)), split)
        return Program(maps, (*self.weights, self.frozen, self.bank, *inputs))

    def per_model(self) -> Call:
        """The class bank; each class's prompt counts as an image."""
        programs = self._maker(1).programs
        arguments = (*self.weights, self.frozen, self.assembly.prompts)
        return Call(lambda: programs.bank(*arguments), self._classes, {})

    def trainer(self, batch_size: int) -> tuple[Trainer, dict[str, Any]]:
        """See `Subject`; `cache_mib` is that of MVTec-AD's features."""
        config, arrays = self.config, self.train_arrays()
        optimizer, state = make_optimizer(config.optimizer, *STEPS), self.state()
        shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
        pseudo, loss = config.pseudo_anomaly, config.loss
        step = make_train_step(self.detector, optimizer, pseudo, loss, self.mesh, shardings)
        order = BatchOrder(0, arrays.class_ids, batch_size, len(arrays.textures))
        source = make_source(arrays, self.mesh, config.train.resident)
        batches = map(source, map(order, itertools.count()))
        cache = sum(leaf.nbytes for leaf in jax.tree.leaves(arrays.features)) / _IMAGES
        fields = {"cache_mib": cache * _MVTEC_IMAGES / 2**20}
        return Trainer(step, self.frozen, state, batches), fields

    def train_arrays(self) -> TrainArrays:
        """The arrays that training reads, of a few images, in host memory."""
        images, ids = self.images(_IMAGES)
        shapes = jax.eval_shape(self.detector.features, self.frozen, images)
        rng = np.random.default_rng(1)
        bfloat16 = self.config.train.fine_dtype == "bfloat16"
        dtype = np.dtype(ml_dtypes.bfloat16 if bfloat16 else np.float32)
        draw = lambda leaf: rng.standard_normal(leaf.shape, np.float32)
        # A model that reads no fine levels has none here either.
        fine = jax.tree.map(lambda leaf: draw(leaf).astype(dtype), shapes[1:])
        nearest, memory = None, self.detector.memory
        if memory is not None:
            nearest = rng.integers(memory.patches, size=shapes.patches.shape[:3], dtype=np.int32)
        clean = Clean(Features(draw(shapes.neck), *fine), nearest)
        return TrainArrays(images, images[::-1].copy(), ids, clean)

    def state(self) -> TrainState:
        """A state before the first step; its arrays are its own, since training donates them."""
        tx = make_optimizer(self.config.optimizer).tx
        shapes = state_shapes(self.detector.network, tx, self.mesh)
        zeros = lambda tree: jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), tree)
        state = TrainState(
            zeros(shapes.step), *self.weights, zeros(shapes.opt_state), jax.random.key(0)
        )
        shardings = jax.tree.map(lambda leaf: leaf.sharding, shapes)
        return jax.device_put(state, shardings, may_alias=False)

    def stages(self, batch_size: int) -> dict[str, Program]:
        """Programs that grow by a part each: the backbone alone; then from features to the
        reconstruction, to the coarse map, to the refined map. `jit` drops what no result needs."""
        detector, split = self.detector, batch_sharding(self.mesh)
        images, ids = jax.device_put(self.images(divisible(batch_size, self.mesh)), split)
        shapes = jax.eval_shape(detector.features, self.frozen, images)
        features = random_arrays(shapes, split)
        head = (*self.weights, self.frozen, self.bank, features, ids)

        def compared(frozen, features, ids) -> Match | None:
            nearest = detector.nearest(frozen, features, ids, jnp.full_like(ids, -1))
            return detector.match(frozen, features, ids, nearest)

        def outputs(params, stats, frozen, bank, features, ids) -> Outputs:
            model, match = detector.network.bind(params, stats), compared(frozen, features, ids)
            return model.predict(features, bank.prompt[ids], text_of(bank.text, ids), match)

        def to_map(field: str) -> Program:
            def maps(params, stats, frozen, bank, features, ids):
                every = outputs(params, stats, frozen, bank, features, ids)
                hidden = {name: None for name in ("coarse_logit", "refined_logit") if name != field}
                return anomaly_maps(every._replace(**hidden), features.neck, detector.image_size)

            return Program(jax.jit(maps), head)

        results = jax.eval_shape(outputs, *head)
        found = {"backbone": Program(jax.jit(detector.features), (self.frozen, images))}
        if detector.memory is not None:
            found["memory"] = Program(jax.jit(compared), (self.frozen, features, ids))
        if results.reconstruction is not None:
            found["reconstructor"] = to_map("")
        for name, field in (("segmentor", "coarse_logit"), ("diffusion", "refined_logit")):
            if getattr(results, field) is not None:
                found[name] = to_map(field)
        return found

    def write_run(self, directory: Path) -> tuple[Path, str]:
        """Writes a run's folder as training leaves it; returns an image file and its class."""
        return write_run(self.assembly, self.state(), directory), self.assembly.class_names[0]


def _random_memory(assembly: Assembly) -> Memory:
    """Memories with random patches: the cost of a search does not depend on what they hold."""
    config, rng = assembly.config.memory, np.random.default_rng(0)
    shapes = memory_shapes(config, len(assembly.class_names), assembly.detector.backbone)
    arrays = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes)
    patches = rng.standard_normal(shapes.patches.shape, np.float32)
    return arrays._replace(patches=patches.astype(shapes.patches.dtype))


def _random_text(config: Config, classes: int) -> TextTokens | None:
    """Random text tokens: their cost does not depend on what they say."""
    if not has_text(config):
        return None
    shape = (classes, _TEXT_TOKENS, _TEXT_WIDTH)
    tokens = np.random.default_rng(0).standard_normal(shape, np.float32)
    states = ("normal", *(f"defect_{i}" for i in range(1, _TEXT_TOKENS)))
    return TextTokens(tokens, np.ones(shape[:2], bool), (states,) * classes, ("generic",) * classes)
