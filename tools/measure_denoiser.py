"""Trains PromptMAD once with several denoisers beside one another and prints how each localizes.

    PYTHONPATH=. python tools/measure_denoiser.py --config=configs/promptmad_folder.py \
        --config.data.data_dir=DATA --config.data.holdout=0.0 --config.backbone.weights=B0.npz \
        --config.text.source=vectors --config.text.weights=VECTORS.npz --config.train.steps=1656

All denoisers see the same coarse maps, features, steps t and noise: their inputs are detached, so
the rest of the model is the same for all, and is trained as in a run but for the clipping of
gradients: here each denoiser's and the rest's are clipped by norms of their own. One JSON line a
step and a map on standard output: means over the classes, maps fused by OneNIP's rule.
"""

import dataclasses
import itertools
import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags
from flax import nnx

from promptmad_jax.config import parse
from promptmad_jax.data.pseudo_anomaly import synthesize
from promptmad_jax.evaluation.class_maps import ClassMaps
from promptmad_jax.evaluation.config import EvalConfig
from promptmad_jax.evaluation.protocol import Evaluator
from promptmad_jax.losses.objective import objective
from promptmad_jax.methods.reconstruction.training import NormalImages
from promptmad_jax.models.functional import Network, batch_stats
from promptmad_jax.models.layers.pixel_shuffle import unfold
from promptmad_jax.models.reconstruction import diffusion
from promptmad_jax.models.reconstruction.denoiser import Denoiser
from promptmad_jax.models.reconstruction.detector import text_of
from promptmad_jax.models.reconstruction.outputs import (
    Outputs,
    full_size_logit,
    fuse,
    reconstruction_map,
)
from promptmad_jax.models.reconstruction.pairs import for_both, interleave
from promptmad_jax.models.reconstruction.promptmad import PromptMAD
from promptmad_jax.runtime.config_file import define_config_flag
from promptmad_jax.runtime.key_streams import KeyStreams
from promptmad_jax.training.loop import total_steps
from promptmad_jax.training.optimizer import make_optimizer, make_schedule
from promptmad_jax.training.step import Stream, join, step_rngs

_CONFIG = define_config_flag("configuration to measure", default="promptmad_folder.py")
_WIDTHS = flags.DEFINE_list("widths", ["16/24", "8/16"], "channels of the two levels")
_RATES = flags.DEFINE_list("rates", ["1e-4", "1e-3"], "the denoisers' learning rates")
_SEEDS = flags.DEFINE_integer("seeds", 2, "denoisers of each kind")
_EVERY = flags.DEFINE_integer("every", 414, "steps from one evaluation to the next")
_FIGURES = ("image_auroc", "image_ap", "pixel_auroc", "pixel_ap", "pixel_f1max", "pixel_aupro")


class ManyDenoisers(PromptMAD):
    """PromptMAD without a denoiser, and several on what it gives: name -> widths."""

    def __init__(self, widths: dict, reconstructor, segmentor, config, *shapes, rngs):
        none = dataclasses.replace(config, steps=0)
        super().__init__(reconstructor, segmentor, none, *shapes, rngs)
        self.diffusion = config
        make = lambda width, deep: Denoiser(
            dataclasses.replace(segmentor, denoiser_width=width, denoiser_deep_width=deep),
            rngs,
            segmentor.text,
            segmentor.residual,
        )
        self.denoisers = nnx.Dict({name: make(*pair) for name, pair in widths.items()})

    def train_all(self, features, prompt, text, mask, rngs) -> tuple[Outputs, dict]:
        """`train_forward` without a refined logit, and the refined logit of each denoiser."""
        image, prompt = self.reconstructor.encode_pairs(features.neck, prompt, rngs)
        prompt = self.reconstructor.fuse_prompt(prompt, text)
        text = type(text)(*map(for_both, text))
        reconstruction = self.reconstructor.decode(for_both(prompt), image, text, rngs)
        error = jnp.abs(reconstruction - features.neck)
        trunk = self.segmentor(error, features.stride8, features.stride4, text, True)
        key, refined = rngs.diffusion(), {}
        for name, denoiser in self.denoisers.items():
            self.denoiser = denoiser
            refined[name], _ = self._denoise_once(trunk, mask, KeyStreams(diffusion=key))
        return Outputs(reconstruction, trunk.logit, None), refined

    def predict_all(self, features, prompt, text) -> tuple[Outputs, dict]:
        """`predict`, and the refined logit of each denoiser."""
        image = self.reconstructor.encode(features.neck)
        reconstruction = self.reconstructor.decode(prompt, image, text)
        error = jnp.abs(reconstruction - features.neck)
        trunk = self.segmentor(error, features.stride8, features.stride4, text, False)
        prior, starts = self._chains(trunk.logit)
        refined = {}
        for name, denoiser in self.denoisers.items():
            self.denoiser = denoiser
            denoise = self._denoise(self.denoiser.condition(trunk))
            refined[name] = unfold(diffusion.refine(denoise, prior, starts, self.diffusion))
        return Outputs(reconstruction, trunk.logit, None), refined


class Run:
    """The training, and the evaluation of all its maps."""

    def __init__(self, config, widths: dict, rates: dict):
        self.config, self.data = config, NormalImages(config)
        self.experiment = self.data.experiment
        detector, text = self.experiment.detector, self.experiment.text
        side = config.data.image_size // 16
        shapes = (detector.backbone.channels, (side, side), text.tokens.shape[-1])
        parts = (config.reconstructor, config.segmentor, config.diffusion)
        build = lambda rngs: ManyDenoisers(widths, *parts, *shapes, rngs=rngs)
        self.detector = dataclasses.replace(detector, network=Network.create(build))
        self.tx = self._optimizer(rates)
        self.frozen = self.experiment.frozen
        key = jax.random.key(config.train.seed)
        self.params, self.stats = jax.jit(self.detector.network.init)(jax.random.fold_in(key, 0))
        self.opt_state = jax.jit(self.tx.init)(self.params)
        self.key = key
        self._step = jax.jit(self._train_step, donate_argnums=(0, 1, 2))
        self._bank, self._maps = jax.jit(self._make_bank), jax.jit(self._make_maps)

    def _optimizer(self, rates: dict) -> optax.GradientTransformation:
        config = self.config
        steps, per_epoch = total_steps(config.train, self.data.num_images)

        def adam(rate):
            settings = dataclasses.replace(config.optimizer, learning_rate=rate)
            return make_optimizer(settings, make_schedule(settings, steps, per_epoch))

        def labels(params):
            of_rest = {key: jax.tree.map(lambda _: "rest", x) for key, x in params.items()}
            denoisers = params["denoisers"].items()
            return of_rest | {
                "denoisers": {name: jax.tree.map(lambda _, n=name: n, x) for name, x in denoisers}
            }

        transforms = {name: adam(rate) for name, rate in rates.items()}
        return optax.multi_transform(
            transforms | {"rest": adam(config.optimizer.learning_rate)}, labels
        )

    def _train_step(self, params, stats, opt_state, frozen, batch, step):
        # As training/step.py.
        key = jax.random.fold_in(self.key, step)
        stream = jax.random.fold_in(key, Stream.PSEUDO_ANOMALY)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(stream, batch.image_ids)
        pseudo, masks = synthesize(keys, batch.images, batch.textures, self.config.pseudo_anomaly)
        masks = interleave(jnp.zeros_like(masks), masks)

        def loss_fn(params):
            model = self.detector.network.bind(params, stats)
            features = join(batch.features, self.detector.features(frozen, pseudo))
            text = text_of(frozen.text, batch.class_ids)
            outputs, refined = model.train_all(features, batch.prompt, text, masks, step_rngs(key))
            clean, losses = batch.features.neck, {}
            total, _ = objective(outputs, clean, masks, self.config.loss)
            error = jax.lax.stop_gradient(outputs.reconstruction)
            for name, logit in refined.items():
                own = outputs._replace(reconstruction=error, coarse_logit=None, refined_logit=logit)
                loss, terms = objective(own, clean, masks, self.config.loss)
                total, losses[name] = total + loss, terms["refined_focal"]
            return total, (losses, batch_stats(model))

        grads, (losses, stats) = jax.grad(loss_fn, has_aux=True)(params)
        updates, opt_state = self.tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), stats, opt_state, losses

    def _make_bank(self, params, stats, frozen, prompts):
        model = self.detector.network.bind(params, stats)
        return model.encode_prompt(self.detector.features(frozen, prompts).neck, frozen.text)

    def _make_maps(self, params, stats, frozen, bank, images, class_ids):
        model = self.detector.network.bind(params, stats)
        features = self.detector.features(frozen, images)
        text = text_of(frozen.text, class_ids)
        outputs, refined = model.predict_all(features, bank[class_ids], text)
        logits = {"coarse": outputs.coarse_logit} | refined
        size = self.config.data.image_size
        maps = {name: jax.nn.sigmoid(full_size_logit(x, size)) for name, x in logits.items()}
        return maps | {
            "reconstruction": reconstruction_map(outputs.reconstruction, features.neck, size)
        }

    def evaluate(self) -> dict:
        """Mean figures of every map, and of every map fused with the reconstruction's."""
        test, size = self.data._splits.test, self.config.eval.batch_size
        bank = self._bank(self.params, self.stats, self.frozen, self.data._maker.prompts)
        parts = []
        for start in range(0, len(test.images), size):
            rows = np.minimum(np.arange(start, start + size), len(test.images) - 1)
            images, ids = np.asarray(test.images[rows]), test.class_ids[rows]
            maps = self._maps(self.params, self.stats, self.frozen, bank, images, ids)
            parts.append(jax.tree.map(np.asarray, maps))
        maps = {k: np.concatenate([p[k] for p in parts])[: len(test.images)] for k in parts[0]}
        distance = maps.pop("reconstruction")
        scale = (distance.max() + distance.min()) / 2
        fused = {f"fused {name}": fuse(distance, x, scale) for name, x in maps.items()}
        maps = {"final": distance} | maps | fused
        with Evaluator(EvalConfig(compat=())) as evaluator:
            for k, name in enumerate(test.class_names):
                rows = np.flatnonzero(test.class_ids == k)
                pick = lambda x, rows=rows: [x[i] for i in rows]
                evaluator.add(
                    ClassMaps(
                        name,
                        tuple(pick(test.filenames)),
                        tuple(pick(test.defect_types)),
                        test.labels[rows],
                        np.asarray(test.images[rows]),
                        np.asarray(test.masks[rows]),
                        {key: x[rows] for key, x in maps.items()},
                    )
                )
            return {name: block["mean"] for name, block in evaluator.result()["maps"].items()}

    def train(self, every: int):
        """Yields the step, the mean focal loss since the last time, and the figures."""
        order, source = self.data.batches()
        steps, _ = total_steps(self.config.train, self.data.num_images)
        since = []
        for step in range(1, steps + 1):
            state = (self.params, self.stats, self.opt_state, self.frozen)
            batch = source(order(step - 1))
            *state, losses = self._step(*state, batch, step - 1)
            self.params, self.stats, self.opt_state = state
            since.append(jax.tree.map(float, losses))
            if step % 50 == 0:
                print(f"step {step} of {steps}", file=sys.stderr, flush=True)
            if step % every == 0 or step == steps:
                focal = {name: np.mean([row[name] for row in since]) for name in losses}
                yield step, focal, self.evaluate()
                since = []


def main(argv) -> None:
    del argv
    widths, rates = {}, {}
    kinds = itertools.product(_WIDTHS.value, _RATES.value, range(_SEEDS.value))
    for pair, rate, seed in kinds:
        name = f"{pair.replace('/', '_')} rate {rate} seed {seed}"
        widths[name], rates[name] = tuple(map(int, pair.split("/"))), float(rate)
    for step, focal, figures in Run(parse(_CONFIG.value), widths, rates).train(_EVERY.value):
        for name, values in figures.items():
            row = {"step": step, "map": name, "focal": focal.get(name)}
            row |= {key: round(100 * values[key], 2) for key in _FIGURES}
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    app.run(main)
