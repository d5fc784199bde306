"""Making the memory: k-centre by hand, what it holds, and what is kept out of a comparison."""

import numpy as np
import pytest

from promptmad_jax.models.reconstruction.memory import MemoryConfig
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.training.memory import k_centre, make_memory

CONFIG = MemoryConfig(patches=12, pool=200, dtype="float32")
CLASSES = ("bolt", "tile")


def patches(rng, images=5):
    """Features float32 [2 * images, 4, 4, 6] of two classes of different means and scales."""
    found = rng.normal(size=(2 * images, 4, 4, 6)).astype(np.float32)
    found[images:] = 10 + 3 * found[images:]
    return found, np.repeat([0, 1], images)


def test_k_centre_takes_the_farthest_point_each_time():
    points = np.array([[0.0, 0], [1, 0], [5, 0], [0, 9], [5, 1.5]], np.float32)
    assert k_centre(points, 5).tolist() == [0, 3, 4, 2, 1]
    assert k_centre(points[:1], 3).tolist() == [0, 0, 0]


def test_k_centre_of_many_points_takes_the_farthest_of_all():
    """More points than one group; whole numbers, so that the distances are exact."""
    points = np.random.default_rng(0).integers(0, 1000, (3000, 3)).astype(np.float32)
    distance = np.full(len(points), np.inf)
    for place in k_centre(points, 400):
        assert distance[place] == distance.max()
        distance = np.minimum(distance, np.square(points - points[place]).sum(1))


def test_k_centre_ends_with_nan():
    points = np.array([[0.0, 0], [np.nan, 1], [2, 2]], np.float32)
    assert set(k_centre(points, 200).tolist()) <= {0, 1, 2}


def test_memory_holds_standardised_patches_of_the_classes_images():
    features, ids = patches(np.random.default_rng(0))
    memory, nearest = make_memory(features, ids, CLASSES, CONFIG)
    for k in range(2):
        own = features[ids == k].reshape(-1, 6)
        np.testing.assert_allclose(memory.mean[k], own.mean(0), rtol=1e-4)
        np.testing.assert_allclose(memory.deviation[k], own.std(0), rtol=1e-4)
        assert set(memory.images[k]) <= set(np.flatnonzero(ids == k))
        for stored, image in zip(memory.patches[k], memory.images[k], strict=True):
            given = (features[image].reshape(-1, 6) - memory.mean[k]) / memory.deviation[k]
            assert np.abs(given - stored).max(1).min() < 1e-5
        assert len(np.unique(memory.patches[k], axis=0)) == CONFIG.patches
    images = np.take_along_axis(memory.images[ids], nearest.reshape(len(ids), -1), 1)
    assert (images != np.arange(len(ids))[:, None]).all(), "an image was compared with itself"
    again, _ = make_memory(features, ids, CLASSES, CONFIG)
    for ours, theirs in zip(memory, again, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_rare_patches_are_kept():
    """One odd patch among 400: random choice would miss it."""
    features, ids = patches(np.random.default_rng(1), images=25)
    features[3, 2, 1] += 40
    config = MemoryConfig(patches=4, pool=400, dtype="float32")
    memory, _ = make_memory(features, ids, CLASSES, config)
    assert 3 in memory.images[0]


def test_a_class_with_one_image_is_refused():
    features, ids = patches(np.random.default_rng(0), images=1)
    with pytest.raises(UserError, match="'bolt' has 1 training images"):
        make_memory(features, ids, CLASSES, CONFIG)
