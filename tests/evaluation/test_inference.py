"""Maps and diffusion steps of many images come back in order, whatever the batch size."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
import pytest

from promptmad_jax.evaluation.inference import InferencePrograms, MapMaker
from promptmad_jax.runtime.mesh import MeshConfig, make_mesh


@dataclass(frozen=True)
class Brightness:
    """A detector whose maps tell which image, class and prompt they are of."""

    steps: int = 3

    def bank(self, params, stats, frozen, prompts):
        return prompts[:, 0, 0, 0].astype(jnp.float32)

    def maps(self, params, stats, frozen, bank, images, class_ids, image_ids):
        return {"reconstruction": images[..., 0] + params * bank[class_ids][:, None, None]}

    def described_maps(self, *inputs):
        return self.maps(*inputs), self.describe(None, inputs[4])

    def describe(self, frozen, images):
        return images[:, 0, 0].astype(jnp.float32)

    def diffusion_steps(self, params, stats, frozen, bank, images, class_ids, image_ids):
        one = self.maps(params, stats, frozen, bank, images, class_ids, image_ids)["reconstruction"]
        return jnp.stack([one[:, ::4, ::4] * step for step in range(self.steps)])


@pytest.mark.parametrize("count", [1, 8, 11, 24])
def test_order_and_padding(count):
    prompts = np.zeros((2, 8, 8, 3), np.uint8)
    prompts[1] = 100
    programs = InferencePrograms(Brightness(), None, make_mesh(MeshConfig()), 9, prompts)
    maker = MapMaker(programs, 2.0, None)
    assert maker.batch_size == 16
    assert programs.placement.sized(count).batch_size == (8 if count <= 8 else 16)
    images = np.zeros((count, 8, 8, 3), np.uint8)
    images += np.arange(count, dtype=np.uint8)[:, None, None, None]
    ids = np.arange(count) % 2
    expected = np.arange(count) + 200.0 * ids
    maps = maker.maps(images, ids)["reconstruction"]
    np.testing.assert_array_equal(maps, np.broadcast_to(expected[:, None, None], (count, 8, 8)))
    described = maker.described_maps(images, ids)[1]
    np.testing.assert_array_equal(described, images[:, 0, 0])
    np.testing.assert_array_equal(maker.descriptions(images), described)
    steps = maker.diffusion_steps(images, ids)
    assert steps.shape == (3, count, 2, 2)
    np.testing.assert_array_equal(steps[:, :, 0, 0], np.arange(3)[:, None] * expected[None])


@pytest.mark.parametrize("count", [0, 1, 8, 11])
def test_own_images_of_an_uneven_share(count):
    """This process has `count` images where another has 11, so all make two batches."""
    prompts = np.zeros((2, 8, 8, 3))
    programs = InferencePrograms(Brightness(), None, make_mesh(MeshConfig()), 8, prompts)
    rounds, own_maps = [], programs.own_maps
    programs.own_maps = lambda *arguments: rounds.append(1) or own_maps(*arguments)
    images = np.zeros((count, 8, 8, 3), np.uint8)
    images += np.arange(count, dtype=np.uint8)[:, None, None, None]
    maker = MapMaker(programs, 2.0, None)
    maps = maker.own_maps(images, np.zeros(count, np.int64), 11)
    assert len(rounds) == 2
    np.testing.assert_array_equal(
        maps["reconstruction"],
        np.broadcast_to(np.arange(count, dtype=np.float32)[:, None, None], (count, 8, 8)),
    )
