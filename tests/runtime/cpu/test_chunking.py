"""A batch in chunks gives what it gives as a whole."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from flax import nnx

from promptmad_jax.config import parse
from promptmad_jax.methods.reconstruction.random_detector import RandomDetector
from promptmad_jax.runtime.config_file import load_config
from promptmad_jax.runtime.cpu import chunking, processor
from promptmad_jax.runtime.cpu.chunking import WHOLE_BATCH, Chunking, chunk_size
from promptmad_jax.runtime.key_streams import KeyStreams

BATCH = 4


def subject(devices=1):
    config = load_config("study/parts.py:row=whole,base=quickstart,smoke")
    config.mesh.data = devices
    return RandomDetector(parse(config), "config", 3)


def test_maps():
    made = subject()
    images, ids = made.images(BATCH)
    params, stats = made.weights
    # Gates and last layers start at zero: moved, every part has its say.
    params = jax.tree.map(lambda x: x + 0.05, params)
    arguments = params, stats, made.frozen, made.bank, images, ids, np.full_like(ids, -1)

    def maps(chunks):
        return jax.jit(replace(made.detector, chunking=chunks).maps)(*arguments)

    whole, parts = maps(WHOLE_BATCH), maps(Chunking(backbone=1, maps=2, search=24))
    for name, values in whole.items():
        tolerance = 1e-5 * np.abs(values).max()
        np.testing.assert_allclose(parts[name], values, rtol=0, atol=tolerance, err_msg=name)
        assert np.ptp(values) > 0


@pytest.mark.parametrize(("mebibytes", "images"), [(0, 2), (32, 2), (96, 6), (260, 8)])
def test_a_larger_cache_takes_more_images(monkeypatch, mebibytes, images):
    monkeypatch.setattr(processor, "largest_cache", lambda: mebibytes * 2**20)
    mesh = jax.make_mesh((1,), ("data",), devices=jax.devices()[:1])
    expected = Chunking(images, 8, images * 8 * 196**2, 512)
    assert chunking.chunking_for(mesh, 224) == expected


@pytest.mark.parametrize("devices", [1, 2])
def test_only_a_single_cpu_device_takes_chunks(devices):
    detector = subject(devices).detector
    model = nnx.eval_shape(lambda: detector.network.build(KeyStreams(0)))
    limits = {layer.attention.limit for layer in model.reconstructor.encoder.values()}
    assert limits == {detector.chunking.attention}
    assert (detector.chunking == WHOLE_BATCH) == (devices == 2)


@pytest.mark.parametrize(
    ("batch", "limit", "size"), [(8, 8, 8), (8, 3, 2), (24, 5, 4), (7, 3, 1), (8, 0, 8), (4, 9, 4)]
)
def test_a_chunk_divides_the_batch(batch, limit, size):
    assert chunk_size(batch, limit) == size
