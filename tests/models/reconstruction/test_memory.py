"""The memory: patch features by hand, exact nearest patches, and a model that begins at it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from promptmad_jax.config import parse
from promptmad_jax.methods.reconstruction.assembly import has_text
from promptmad_jax.models.backbone.backbone import BackboneConfig, build_backbone
from promptmad_jax.models.backbone.neck import Features
from promptmad_jax.models.functional import Network
from promptmad_jax.models.layers.attention import Text
from promptmad_jax.models.reconstruction import memory
from promptmad_jax.models.reconstruction.correction import Correction
from promptmad_jax.models.reconstruction.detector import Detector, Frozen
from promptmad_jax.models.reconstruction.diffusion import DiffusionConfig
from promptmad_jax.models.reconstruction.encoder import ReconstructorConfig
from promptmad_jax.models.reconstruction.memory import Match, Memory, MemoryConfig
from promptmad_jax.models.reconstruction.outputs import anomaly_maps
from promptmad_jax.models.reconstruction.promptmad import PromptMAD
from promptmad_jax.models.reconstruction.segmentor import InputSizes, SegmentorConfig
from promptmad_jax.runtime.config_file import load_config
from promptmad_jax.training.feature_cache import channel_moments
from promptmad_jax.training.reconstruction_step import step_rngs
from tests.goldens import make_promptmad_small

GOLDEN = make_promptmad_small.__file__.replace("make_promptmad_small.py", "promptmad_small.npz")
CHANNELS, GRID = {2: 4, 4: 6, 8: 8, 16: 10}, (4, 4)
STRIDES = tuple(CHANNELS)
MEMORY = MemoryConfig(patches=5, levels=(4, 8, 16), stride=8)
WITHOUT_RECONSTRUCTION = ReconstructorConfig(enabled=False)
SEGMENTOR = SegmentorConfig(
    width=16, fine_width=8, heads=2, denoiser_width=8, denoiser_deep_width=16
)


def test_without_a_memory_nothing_has_changed():
    """Outputs, loss and gradients equal those of the version before the memory."""
    found = make_promptmad_small.arrays()
    with np.load(GOLDEN) as golden:
        for name in golden.files:
            if name == "gradients":
                np.testing.assert_array_equal(found[name], golden[name])
            else:
                np.testing.assert_allclose(found[name], golden[name], rtol=2e-4, atol=2e-5)


def test_patch_features_by_hand():
    """Zeros outside count in the average; a finer level is averaged over pairs of cells."""
    levels = [np.zeros((1, 16 // s, 16 // s, 1), np.float32) for s in STRIDES]
    levels[1][:] = 9.0
    levels[2][0, 0, 0] = 9.0
    config = MemoryConfig(levels=(4, 8), stride=8)
    patches = memory.patch_features(tuple(map(jnp.asarray, levels)), STRIDES, config)
    # Of 4 x 4 cells a corner sees 4 of 9, an edge 6, the middle 9.
    np.testing.assert_allclose(patches[0, ..., 0], (4 + 6 + 6 + 9) / 4)
    np.testing.assert_allclose(patches[0, ..., 1], 1.0)


def random_memory(rng, classes=2, patches=5, width=3):
    """Memories whose patches come from images 0, 1, ... in turn."""
    return Memory(
        jnp.asarray(rng.normal(size=(classes, patches, width)), jnp.float32),
        jnp.tile(jnp.arange(patches, dtype=jnp.int32)[None], (classes, 1)),
        jnp.asarray(rng.normal(size=(classes, width)), jnp.float32),
        jnp.asarray(rng.uniform(0.5, 2, (classes, width)), jnp.float32),
        jnp.asarray([[1.0, 0.5], [2.0, 0.25]], jnp.float32),
    )


@pytest.mark.parametrize(("limit", "block"), [(0, 9), (0, 2), (1, 9), (3, 9), (9, 9)])
def test_search_and_match_equal_a_loop(limit, block, monkeypatch):
    monkeypatch.setattr(memory, "_BLOCK", block)
    rng = np.random.default_rng(0)
    stored, patches = random_memory(rng), rng.normal(size=(3, 2, 2, 3)).astype(np.float32)
    class_ids, image_ids = np.array([0, 1, 1]), np.array([-1, 2, -1])
    nearest = memory.search(stored, patches, class_ids, image_ids, limit)
    found = memory.match(stored, patches, class_ids, nearest)
    for b, y, x in np.ndindex(3, 2, 2):
        k = class_ids[b]
        query = (patches[b, y, x] - stored.mean[k]) / stored.deviation[k]
        distance = np.linalg.norm(query[None] - stored.patches[k], axis=1)
        distance[np.asarray(stored.images[k]) == image_ids[b]] = np.inf
        place = int(distance.argmin())
        assert nearest[b, y, x] == place
        np.testing.assert_allclose(
            found.residual[b, y, x], abs(query - stored.patches[k, place]), rtol=1e-5, atol=1e-6
        )
        mean, deviation = stored.normal[k]
        expected = 4 * np.arcsinh((distance[place] - mean) / deviation / 4)
        np.testing.assert_allclose(found.distance[b, y, x], expected, rtol=1e-5, atol=1e-6)


def make(reconstructor=WITHOUT_RECONSTRUCTION, steps=2, config=MEMORY, segmentor=SEGMENTOR):
    diffusion = DiffusionConfig(steps=steps)
    return Network.create(
        lambda rngs: PromptMAD(
            reconstructor, segmentor, diffusion, InputSizes(CHANNELS, GRID, 12), rngs, config
        )
    )


def inputs(rows=4, stride=8, seed=0):
    rng = np.random.default_rng(seed)
    normal = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    features = Features(normal(rows, 4, 4, 28), normal(rows, 8, 8, 8), normal(rows, 16, 16, 6))
    side = 64 // stride
    match = Match(jnp.abs(normal(rows, side, side, 24)), 3 * normal(rows, side, side))
    text = Text(normal(rows, 3, 12), jnp.ones((rows, 3), bool))
    return features, normal(rows, 4, 4, 28), text, match


@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize("stride", [4, 8, 16])
def test_before_training_the_maps_are_the_memorys(steps, stride):
    config = MemoryConfig(patches=5, levels=(4, 8, 16), stride=stride)
    network, (features, prompt, text, match) = make(steps=steps, config=config), inputs(2, stride)
    params, stats = jax.jit(network.init)(jax.random.key(0))

    @jax.jit
    def maps(params, stats):
        model = network.bind(params, stats)
        outputs = model.predict(features, model.encode_prompt(prompt, text), text, match)
        return anomaly_maps(outputs, features.neck, 64, match)

    found = maps(params, stats)
    assert "reconstruction" not in found
    np.testing.assert_allclose(found["corrected"], found["memory"], atol=1e-4)
    assert np.ptp(found["memory"]) > 1


def test_a_large_correction_counts_by_its_logarithm():
    distance, delta = jnp.array([[[1.0, -2.0, 3.0]]]), jnp.array([[[0.0, 2.0, -30.0]]])
    correction = Correction(delta, distance, jnp.array(2.0), jnp.array(-1.0))
    expected = [1.0, -2.0 + 2 * np.log(2), 3.0 - 2 * np.log(16)]
    found = correction.corrected(correction.logit(), 2.0)
    np.testing.assert_allclose(found[0, 0], expected, rtol=1e-5)
    assert Correction(delta).corrected(delta, 2.0) is None


def test_everything_learns():
    network, (features, prompt, text, match) = make(), inputs()
    params, stats = jax.jit(network.init)(jax.random.key(0))
    mask = jnp.zeros((4, 64, 64)).at[1::2, 20:40, 20:40].set(1)

    @jax.jit
    def loss(params):
        model = network.bind(params, stats)
        half = jax.tree.map(lambda x: x[:2], (prompt, text))
        outputs = model.train_forward(features, *half, mask, step_rngs(jax.random.key(0)), match)
        return jnp.square(outputs.coarse_logit).sum() + jnp.square(outputs.refined_logit).sum()

    large = jax.tree.map(lambda x: x + 0.3, params)
    grads = jax.grad(loss)(large)
    dead = [
        jax.tree_util.keystr(path)
        for path, grad in jax.tree_util.tree_leaves_with_path(grads)
        if not np.abs(grad).max() > 0
    ]
    assert not dead


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("default", False),
        ("diffusion.steps", False),
        ("segmentor.text", True),
        ("reconstructor.enabled", True),
        ("memory.patches", True),
    ],
)
def test_text_is_read_only_where_a_part_reads_it(setting, expected):
    """With a memory; without one the parameters stay those of older runs."""
    raw = load_config("promptmad_mvtec.py:memory")
    changes = {
        "default": {},
        "diffusion.steps": {"diffusion.steps": 10},
        "segmentor.text": {"segmentor.text": True, "segmentor.attention_layers": 1},
        "reconstructor.enabled": {"reconstructor.enabled": True},
        "memory.patches": {"memory.patches": 0, "reconstructor.enabled": True},
    }[setting]
    if setting == "memory.patches":
        changes["eval.fusion"] = "calibrated"
    raw.update_from_flattened_dict(changes)
    assert has_text(parse(raw)) is expected


def test_the_neck_is_standardised_where_moments_are_given():
    neck = np.random.default_rng(0).normal(3, 2, (5, 4, 4, 6)).astype(np.float32)
    moments = channel_moments(neck)
    backbone = build_backbone(BackboneConfig())
    detector = Detector(backbone, make(), 64, False)
    scaled = detector.scale_neck(Frozen({}, None, None, jnp.asarray(moments)), jnp.asarray(neck))
    np.testing.assert_allclose(scaled.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(scaled.std((0, 1, 2)), 1, rtol=1e-4)
    assert detector.scale_neck(Frozen({}, None), neck) is neck
    flat = np.concatenate([neck, np.zeros_like(neck[..., :1])], -1)
    assert 1e-3 < channel_moments(flat)[1, -1] < 3e-3, "a channel without variation keeps a floor"
