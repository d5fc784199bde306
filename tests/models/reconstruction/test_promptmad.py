"""PromptMAD: starts at OneNIP, the text and the image matter, sizes and cost."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from promptmad_jax.models.backbone.neck import Features
from promptmad_jax.models.functional import Network
from promptmad_jax.models.layers.attention import Text
from promptmad_jax.models.layers.pixel_shuffle import depth_to_space, fold, space_to_depth, unfold
from promptmad_jax.models.reconstruction.correction import Correction
from promptmad_jax.models.reconstruction.denoiser import Condition
from promptmad_jax.models.reconstruction.diffusion import DiffusionConfig
from promptmad_jax.models.reconstruction.encoder import ReconstructorConfig
from promptmad_jax.models.reconstruction.onenip import OneNIP, RefinerConfig
from promptmad_jax.models.reconstruction.promptmad import PromptMAD, shrink_mask
from promptmad_jax.models.reconstruction.segmentor import InputSizes, SegmentorConfig
from promptmad_jax.training.reconstruction_step import step_rngs
from tests.trees import count_params

CHANNELS, GRID, TEXT_WIDTH, BATCH = {2: 4, 4: 6, 8: 8, 16: 10}, (4, 4), 12, 2
RECONSTRUCTOR = ReconstructorConfig(
    width=16, heads=2, encoder_layers=1, decoder_layers=1, mlp_width=32
)
SEGMENTOR = SegmentorConfig(
    width=16, fine_width=8, heads=2, denoiser_width=8, denoiser_deep_width=16
)


THREE_STEPS = DiffusionConfig(steps=3)


def make(diffusion=THREE_STEPS, segmentor=SEGMENTOR, text_width=TEXT_WIDTH):
    return Network.create(
        lambda rngs: PromptMAD(
            RECONSTRUCTOR, segmentor, diffusion, InputSizes(CHANNELS, GRID, text_width), rngs
        )
    )


def inputs(batch=BATCH, seed=0):
    rng = np.random.default_rng(seed)
    normal = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    features = Features(normal(batch, 4, 4, 28), normal(batch, 8, 8, 8), normal(batch, 16, 16, 6))
    text = Text(normal(batch, 3, TEXT_WIDTH), jnp.asarray([[True, True, False]] * batch))
    return features, normal(batch, 4, 4, 28), text


@pytest.fixture(scope="module")
def trained():
    """A network with every gate open and no zero weights left, as after some training."""
    network = make()
    params, stats = jax.jit(network.init)(jax.random.key(0))
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    leaves = [x + 0.1 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    return network, jax.tree.unflatten(tree, leaves), stats


@functools.partial(jax.jit, static_argnums=0)
def predict(network, params, stats, features, prompt, text):
    model = network.bind(params, stats)
    return model.predict(features, model.encode_prompt(prompt, text), text)


def test_reconstruction_equals_onenips_at_initialisation():
    network, (features, prompt, text) = make(), inputs()
    params, stats = jax.jit(network.init)(jax.random.key(0))
    onenip = Network.create(lambda rngs: OneNIP(RECONSTRUCTOR, RefinerConfig(8), 28, GRID, rngs))
    base, base_stats = jax.jit(onenip.init)(jax.random.key(1))
    shared = jax.tree_util.tree_map_with_path(
        lambda path, _: _at(params["reconstructor"], path), base["reconstructor"]
    )
    base["reconstructor"] = shared
    ours = predict(network, params, stats, features, prompt, text)
    theirs = predict(onenip, base, base_stats, features, prompt, None)
    np.testing.assert_allclose(ours.reconstruction, theirs.reconstruction, atol=1e-6)


def _at(tree, path):
    for entry in path:
        tree = tree[entry.key]
    return tree


def test_refined_starts_at_coarse():
    network, (features, prompt, text) = make(), inputs()
    outputs = predict(network, *jax.jit(network.init)(jax.random.key(0)), features, prompt, text)
    np.testing.assert_allclose(outputs.refined_logit, outputs.coarse_logit, atol=1e-4)


def test_refinement_looks_at_the_image(trained):
    network, params, stats = trained
    features, prompt, text = inputs()
    model = network.bind(params, stats)
    *_, condition = model._predict_coarse(features, model.encode_prompt(prompt, text), text, None)
    blind = condition._replace(static=jnp.zeros_like(condition.static))
    x_t, t = jnp.zeros_like(condition.coarse.delta), jnp.full(BATCH, 3)
    sees, guesses = (model._denoise(given)(x_t, t) for given in (condition, blind))
    assert np.abs(sees - guesses).max() > 1e-3


@pytest.mark.parametrize("part", ["tokens", "fine levels", "prompt"])
def test_every_input_matters(trained, part):
    features, prompt, text = inputs()
    before = predict(*trained, features, prompt, text)
    match part:
        case "tokens":
            text = Text(text.tokens.at[:, 1].add(1.0), text.mask)
        case "fine levels":
            features = features._replace(stride4=features.stride4 + 1)
        case "prompt":
            prompt = prompt + 1
    after = predict(*trained, features, prompt, text)
    assert np.abs(after.refined_logit - before.refined_logit).max() > 1e-4


def test_padding_tokens_do_not_matter_and_defect_words_do_not_reach_the_reconstruction(trained):
    features, prompt, text = inputs()
    before = predict(*trained, features, prompt, text)
    padded = predict(*trained, features, prompt, Text(text.tokens.at[:, 2].set(9.0), text.mask))
    np.testing.assert_array_equal(before.refined_logit, padded.refined_logit)
    defects = predict(*trained, features, prompt, Text(text.tokens.at[:, 1].add(1.0), text.mask))
    np.testing.assert_array_equal(before.reconstruction, defects.reconstruction)


def test_predictions_do_not_depend_on_the_batch(trained):
    features, prompt, text = inputs()
    both = predict(*trained, features, prompt, text)
    one = jax.tree.map(lambda x: x[:1], (features, prompt, text))
    np.testing.assert_allclose(
        predict(*trained, *one).refined_logit, both.refined_logit[:1], atol=1e-4
    )


def test_gradients_of_the_refined_loss_stay_in_the_denoiser(trained):
    network, params, stats = trained
    features, prompt, text = inputs(2 * BATCH)
    half = jax.tree.map(lambda x: x[:BATCH], (prompt, text))
    mask = jnp.zeros((2 * BATCH, 64, 64)).at[1::2, 10:30, 10:30].set(1.0)

    def loss(params):
        model = network.bind(params, stats)
        outputs = model.train_forward(features, *half, mask, step_rngs(jax.random.key(0)))
        return jnp.square(outputs.refined_logit).sum()

    grads = jax.jit(jax.grad(loss))(params)
    assert max(float(jnp.abs(x).max()) for x in jax.tree.leaves(grads["denoiser"])) > 0
    for part in ("reconstructor", "segmentor"):
        assert max(float(jnp.abs(x).max()) for x in jax.tree.leaves(grads[part])) == 0


def test_epsilon_objective_trains_and_predicts():
    diffusion = DiffusionConfig(steps=3, objective="epsilon", zero_terminal_snr=False)
    network, (features, prompt, text) = make(diffusion), inputs(2 * BATCH)
    params, stats = jax.jit(network.init)(jax.random.key(0))
    half = jax.tree.map(lambda x: x[:BATCH], (prompt, text))
    mask = jnp.zeros((2 * BATCH, 64, 64)).at[1::2, :20].set(1.0)

    @jax.jit
    def train_forward(params, stats):
        model = network.bind(params, stats)
        return model.train_forward(features, *half, mask, step_rngs(jax.random.key(0)))

    outputs = train_forward(params, stats)
    assert outputs.refined_logit is None and outputs.noise_error.shape == (2 * BATCH, 16, 16)
    assert np.isfinite(predict(network, params, stats, features, prompt, text).refined_logit).all()


def test_without_diffusion_laterals_and_text():
    segmentor = SegmentorConfig(width=16, fine_width=8, heads=2, laterals=False, text=False)
    network = make(DiffusionConfig(steps=0), segmentor)
    params, stats = jax.jit(network.init)(jax.random.key(0))
    assert "denoiser" not in params and "lateral4" not in params["segmentor"]
    outputs = predict(network, params, stats, *inputs())
    assert outputs.refined_logit is None and outputs.coarse_logit.shape == (BATCH, 16, 16)


def test_shrinking_a_mask_keeps_a_thin_scar():
    mask = jnp.zeros((1, 16, 16)).at[0, 3].set(1.0)
    small = shrink_mask(mask, 4, 4)
    np.testing.assert_allclose(small[0, 0], 0.25)
    np.testing.assert_allclose(small.sum(), mask.sum() / 16)


def test_space_to_depth_round_trip():
    x = jnp.arange(2 * 4 * 6 * 3.0).reshape(2, 4, 6, 3)
    np.testing.assert_array_equal(depth_to_space(space_to_depth(x)), x)
    np.testing.assert_array_equal(space_to_depth(x)[0, 0, 0], x[0, :2, :2].reshape(-1))
    np.testing.assert_array_equal(unfold(fold(x[..., 0])), x[..., 0])


def test_a_denoiser_step_at_full_size_costs_three_megaflop():
    network = Network.create(
        lambda rngs: PromptMAD(
            ReconstructorConfig(),
            SegmentorConfig(),
            DiffusionConfig(),
            InputSizes({2: 24, 4: 32, 8: 56, 16: 160}, (14, 14), 512),
            rngs,
        )
    )
    params, stats = jax.eval_shape(network.init, jax.random.key(0))
    assert 8_372_625 < count_params(params) < 11_000_000

    def denoise(params, stats, x_t, condition):
        denoiser = network.bind(params, stats).denoiser
        return denoiser(x_t, denoiser.films(jnp.ones(1, int), condition.text), condition)

    shape = lambda *dims: jax.ShapeDtypeStruct(dims, jnp.float32)
    condition = Condition(shape(1, 28, 28, 8), shape(1, 128), Correction(shape(1, 28, 28, 4)))
    lowered = jax.jit(denoise).lower(params, stats, shape(1, 28, 28, 4), condition)
    assert lowered.out_info.shape == (1, 28, 28, 4)
    assert 2.5e6 < lowered.cost_analysis()["flops"] < 3.5e6
