"""A batch in passes of a few images gives what it gives in one."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from flax import nnx

from configs import quickstart
from promptmad_jax.commands.benchmark import made_up_experiment, subject_of
from promptmad_jax.config import parse
from promptmad_jax.methods.reconstruction.assembly import (
    CPU_ATTENTION_WEIGHTS,
    CPU_FINE_PIXELS,
    CPU_MAPS_PIXELS,
    images_in_cache,
)
from promptmad_jax.models.layers.chunks import images_a_pass
from promptmad_jax.runtime.cpu import processor
from promptmad_jax.runtime.key_streams import KeyStreams

BATCH = 4


def experiment(method, devices=1, fine_pass=0):
    config = quickstart.get_config("smoke" if method == "promptmad" else f"smoke,{method}")
    config.mesh.data = devices
    config.segmentor.fine_pass = fine_pass
    return made_up_experiment(parse(config), 3, "config")


@pytest.mark.parametrize("method", ["onenip", "promptmad"])
def test_maps(method):
    def maps(fine_pass, **passes):
        subject = subject_of(experiment(method, 1, fine_pass))
        images, ids = subject.images(BATCH)
        detector = replace(subject.detector, **passes)
        state = trained(subject.state)
        return jax.jit(detector.maps)(*state, subject.frozen, subject.bank, images, ids)

    whole = maps(BATCH, backbone_pass=0, maps_pass=0)
    parts = maps(1, backbone_pass=2, maps_pass=2)
    for name, values in whole.items():
        tolerance = 1e-5 * np.abs(values).max()
        np.testing.assert_allclose(parts[name], values, rtol=0, atol=tolerance, err_msg=name)
        assert np.ptp(values) > 0


def trained(state):
    """Parameters that let every part have its say: gates and last layers start at zero."""
    params, stats = state
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    moved = [
        x + 0.05 * jax.random.normal(key, x.shape) for key, x in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(tree, moved), stats


@pytest.mark.parametrize(("mebibytes", "images"), [(0, 2), (32, 2), (96, 6), (260, 8)])
def test_a_larger_cache_takes_more_images(monkeypatch, mebibytes, images):
    monkeypatch.setattr(processor, "largest_cache", lambda: mebibytes * 2**20)
    assert images_in_cache() == images


@pytest.mark.parametrize("devices", [1, 2])
def test_a_single_cpu_device_takes_passes(monkeypatch, devices):
    monkeypatch.setattr(processor, "largest_cache", lambda: 64 * 2**20)
    detector = experiment("promptmad", devices).detector
    model = nnx.eval_shape(lambda: detector.network.build(KeyStreams(0)))
    attention = model.reconstructor.encoder["layer_0"].attention
    fine_pass = model.segmentor.config.fine_pass
    passes = (detector.backbone_pass, fine_pass, detector.maps_pass, attention.most)
    fine, maps = (pixels // 64**2 for pixels in (4 * CPU_FINE_PIXELS, CPU_MAPS_PIXELS))
    assert passes == ((fine, fine, maps, 4 * CPU_ATTENTION_WEIGHTS) if devices == 1 else (0,) * 4)


@pytest.mark.parametrize(
    ("batch", "most", "images"), [(8, 8, 8), (8, 3, 2), (24, 5, 4), (7, 3, 1), (8, 0, 1), (4, 9, 4)]
)
def test_a_pass_divides_the_batch(batch, most, images):
    assert images_a_pass(batch, most) == images
