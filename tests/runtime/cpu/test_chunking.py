"""A batch in chunks gives what it gives as a whole."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from promptmad_jax.config import parse
from promptmad_jax.methods.reconstruction.random_detector import RandomDetector
from promptmad_jax.runtime.config_file import load_config
from promptmad_jax.runtime.cpu import chunking, processor
from promptmad_jax.runtime.cpu.chunking import WHOLE_BATCH, Chunking, chunk_size

BATCH = 4


def subject(method, fine_pass, devices=1):
    config = load_config(f"quickstart.py:smoke{'' if method == 'promptmad' else ',onenip'}")
    config.mesh.data = devices
    config.segmentor.fine_pass = fine_pass
    return RandomDetector(parse(config), "config", 3)


@pytest.mark.parametrize("method", ["onenip", "promptmad"])
def test_maps(method):
    def maps(fine_pass, chunks):
        made = subject(method, fine_pass)
        images, ids = made.images(BATCH)
        detector, state = replace(made.detector, chunking=chunks), trained(made.state)
        return jax.jit(detector.maps)(*state, made.frozen, made.bank, images, ids)

    whole, parts = maps(BATCH, WHOLE_BATCH), maps(1, Chunking(backbone=2, maps=2))
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
    mesh = jax.make_mesh((1,), ("data",), devices=jax.devices()[:1])
    expected = Chunking(images, 8, images, images * 8 * 196**2)
    assert chunking.chunking_for(mesh, 224) == expected


@pytest.mark.parametrize("devices", [1, 2])
def test_only_a_single_cpu_device_takes_chunks(devices):
    assert (subject("onenip", 0, devices).detector.chunking == WHOLE_BATCH) == (devices == 2)


@pytest.mark.parametrize(
    ("batch", "limit", "size"), [(8, 8, 8), (8, 3, 2), (24, 5, 4), (7, 3, 1), (8, 0, 8), (4, 9, 4)]
)
def test_a_chunk_divides_the_batch(batch, limit, size):
    assert chunk_size(batch, limit) == size
