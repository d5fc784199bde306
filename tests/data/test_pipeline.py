"""The order of the data and the two sources of batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from promptmad_jax.data import pipeline
from promptmad_jax.data.pipeline import (
    BatchOrder,
    TrainArrays,
    host_source,
    make_source,
    resident_source,
)
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.mesh import MeshConfig, batch_sharding, make_mesh

CLASS_IDS = np.array([0] * 7 + [1] * 6 + [2])


@pytest.fixture(scope="module")
def arrays():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (14, 4, 4, 3), dtype=np.uint8)
    features = {"a": rng.normal(size=(14, 2, 2, 5)).astype(np.float32), "b": None}
    return TrainArrays(images, images[::-1], CLASS_IDS, features)


def test_every_image_once_an_epoch_whatever_the_batch_size():
    order = BatchOrder(3, CLASS_IDS, 4, 14)
    seen = np.concatenate([order(step).image for step in range(7)])
    assert sorted(seen[:14]) == sorted(seen[14:28]) == list(range(14))
    assert (seen[:14] != seen[14:28]).any()


def test_a_batch_depends_on_seed_and_step_alone():
    for step in (0, 5, 1000):
        one, other = BatchOrder(3, CLASS_IDS, 4, 14), BatchOrder(3, CLASS_IDS, 4, 14)
        other(step + 7)
        jax.tree.map(np.testing.assert_array_equal, one(step), other(step))
    assert (
        BatchOrder(4, CLASS_IDS, 4, 14)(0).image != BatchOrder(3, CLASS_IDS, 4, 14)(0).image
    ).any()


def test_prompts_come_from_the_images_own_class():
    order = BatchOrder(0, CLASS_IDS, 8, 14)
    drawn = [order(step) for step in range(50)]
    for indices in drawn:
        np.testing.assert_array_equal(CLASS_IDS[indices.prompt], CLASS_IDS[indices.image])
    assert len({int(p) for d in drawn for p in d.prompt}) == 14


@pytest.mark.parametrize("source", [host_source, resident_source])
def test_sources_cut_the_same_sharded_batch(source, arrays):
    mesh = make_mesh(MeshConfig())
    indices = BatchOrder(1, CLASS_IDS, 8, 14)(2)
    batch = source(arrays, mesh)(indices)
    np.testing.assert_array_equal(batch.images, arrays.images[indices.image])
    np.testing.assert_array_equal(batch.textures, arrays.textures[indices.texture])
    np.testing.assert_array_equal(batch.prompt, arrays.features["a"][indices.prompt])
    np.testing.assert_array_equal(batch.class_ids, CLASS_IDS[indices.image])
    assert batch.features["b"] is None
    assert batch.images.sharding.is_equivalent_to(batch_sharding(mesh), 4)
    assert isinstance(batch.features["a"], jax.Array) and batch.features["a"].dtype == jnp.float32


def test_arrays_that_no_device_has_room_for_stay_on_the_host(arrays, monkeypatch, capsys):
    mesh, size = make_mesh(MeshConfig()), sum(x.nbytes for x in jax.tree.leaves(arrays))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    for free, made in ((size, "partial"), (size - 1, "function")):
        monkeypatch.setattr(pipeline, "_free_bytes", lambda _, free=free: free)
        assert type(make_source(arrays, mesh, "auto")).__name__ == made
    assert "stay in host memory" in capsys.readouterr().out
    with pytest.raises(UserError, match="set it to 'no'"):
        make_source(arrays, mesh, "yes")
