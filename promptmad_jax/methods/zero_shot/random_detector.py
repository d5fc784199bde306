"""A zero-shot detector with random arrays, to be measured."""

import itertools
from functools import cached_property
from typing import Any

import jax
import ml_dtypes
import numpy as np

from promptmad_jax.clip.config import PUBLISHED
from promptmad_jax.config import Config
from promptmad_jax.data.defect_types.images import DefectTypeExamples, take_examples
from promptmad_jax.data.defect_types.taxonomy import find_taxonomy
from promptmad_jax.data.pipeline import BatchOrder, make_source
from promptmad_jax.evaluation.zero_shot_inference import ZeroShotMapMaker
from promptmad_jax.methods.subject import STEPS, Call, Program, Trainer, divisible
from promptmad_jax.methods.zero_shot.assembly import ZeroShotAssembly, assemble
from promptmad_jax.models.functional import Params
from promptmad_jax.models.zero_shot.loading import random_detector
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.mesh import batch_sharding, replicated
from promptmad_jax.training.optimizer import make_optimizer
from promptmad_jax.training.state import TrainState, create_state
from promptmad_jax.training.zero_shot_step import make_zero_shot_step

# To train on; their cached features can be large, 22 MB per image at 518 px.
_IMAGES = 16


class RandomZeroShot:
    """A `Subject` with the defect types of the configured target.

    Args:
        weights: CLIP's: "random", in the shape of the configured model, or "config".
    """

    def __init__(self, config: Config, weights: str):
        loaded = None
        if weights == "random" and config.clip.weights != "random":
            if config.clip.weights not in PUBLISHED:
                raise UserError(
                    f"clip.weights={config.clip.weights}: the shape of this CLIP is not known; "
                    f"give --weights=config, or one of {', '.join(PUBLISHED)}"
                )
            loaded = random_detector(config.dapo, PUBLISHED[config.clip.weights], config.clip.seed)
        self.config = config
        self.words = find_taxonomy(config.data.dataset, config.data.taxonomy, ()).words
        self.assembly: ZeroShotAssembly = assemble(config, loaded)
        self.mesh = self.assembly.mesh

    @cached_property
    def params(self) -> Params:
        """The trained parameters, as drawn."""
        init = lambda key: self.assembly.network.init(key)[0]
        return jax.jit(init, out_shardings=replicated(self.mesh))(jax.random.key(0))

    @cached_property
    def states(self) -> jax.Array:
        """[K + 1, d]."""
        return self.assembly.maker.states(self.params, self.assembly.tokens(self.words))

    def images(self, count: int) -> np.ndarray:
        """uint8 [count, S, S, 3]."""
        size = self.config.dapo.image_size
        return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)

    def fields(self) -> dict[str, Any]:
        """See `Subject`."""
        return {
            "model": self.config.name,
            "clip": self.config.clip.weights,
            "image_size": self.config.dapo.image_size,
            "dtype": self.config.dapo.dtype,
            "types": len(self.words),
            "devices": self.mesh.size,
        }

    def host_to_host(self, batch_size: int) -> Call:
        """Images to the maps and scores of all states, whose texts are computed beforehand."""
        assembly = self.assembly
        maker = ZeroShotMapMaker(assembly.detector, assembly.frozen, self.mesh, batch_size)
        images, own = self.images(maker.batch_size), np.ones(len(self.words) + 1, bool)
        params, states = self.params, self.states
        call = lambda: list(maker.batches(params, states, own, images))
        return Call(call, maker.batch_size, {})

    def on_device(self, batch_size: int) -> Program:
        """See `Subject`."""
        whole, split = replicated(self.mesh), batch_sharding(self.mesh)
        inputs = (None,) * 3 + (split,)
        maps = jax.jit(self.assembly.detector.maps, in_shardings=inputs, out_shardings=whole)
        images = jax.device_put(self.images(divisible(batch_size, self.mesh)), split)
        return Program(maps, (self.params, self.assembly.frozen, self.states, images))

    def per_model(self) -> Call:
        """The states of all types."""
        tokens, maker = self.assembly.tokens(self.words), self.assembly.maker
        return Call(lambda: maker.states(self.params, tokens), None, {})

    def trainer(self, batch_size: int) -> tuple[Trainer, dict[str, Any]]:
        """See `Subject`."""
        config, assembly = self.config, self.assembly
        optimizer = make_optimizer(config.optimizer, *STEPS)
        state, shardings = create_state(assembly.network, optimizer.tx, 0, self.mesh)
        mosaic = config.source.mosaic
        step = make_zero_shot_step(
            assembly.detector, optimizer, config.type_loss, mosaic, self.mesh, shardings
        )
        order = BatchOrder(0, np.zeros(_IMAGES, np.int32), batch_size, 1)
        examples = self._examples(state)
        source = make_source(examples, self.mesh, config.train.resident, take_examples)
        batches = map(source, map(order, itertools.count()))
        return Trainer(step, assembly.frozen_inputs(self.words), state, batches), {}

    def _examples(self, state: TrainState) -> DefectTypeExamples:
        """A few random images, or random features of them where these are cached."""
        assembly = self.assembly
        config, images, states = self.config, self.images(_IMAGES), None
        rng = np.random.default_rng(1)
        if assembly.caches_images:
            shapes = jax.eval_shape(
                assembly.detector.image_states, state.params, assembly.frozen, images
            )
            dtype = ml_dtypes.bfloat16 if config.train.fine_dtype == "bfloat16" else np.float32
            draw = lambda leaf: rng.standard_normal(leaf.shape, np.float32).astype(dtype)
            images, states = None, jax.tree.map(draw, shapes)
        size = config.dapo.image_size
        masks = rng.integers(0, len(self.words) + 1, (_IMAGES, size, size), np.uint8)
        return DefectTypeExamples(images, states, masks, masks.any((1, 2)))
