import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from promptmad_jax.data.defect_types.mosaic import mosaic

COUNT, SIZE = 6, 8
HALF = SIZE // 2


@pytest.fixture(scope="module")
def batch():
    """Images of one colour each, whose number is the colour and the type of all of them."""
    numbers = jnp.arange(COUNT)
    images = jnp.broadcast_to(numbers[:, None, None, None], (COUNT, SIZE, SIZE, 3))
    masks = jnp.broadcast_to(numbers[:, None, None], (COUNT, SIZE, SIZE))
    return images.astype(jnp.uint8), masks.astype(jnp.uint8), numbers == 5


@pytest.fixture(scope="module")
def half():
    """Every second image, on average, becomes a mosaic; compiled once."""
    return jax.jit(functools.partial(mosaic, probability=0.5))


def tiles(masks):
    """The number in each tile, [B, 4]; every tile has one."""
    blocks = np.asarray(masks).reshape(len(masks), 2, HALF, 2, HALF).swapaxes(2, 3)
    blocks = blocks.reshape(len(masks), 4, -1)
    assert (blocks == blocks[:, :, :1]).all()
    return blocks[:, :, 0]


def test_off_by_default(batch):
    out = mosaic(jax.random.key(0), *batch)
    assert all(a is b for a, b in zip(out[:2], batch[:2], strict=True))
    np.testing.assert_array_equal(out.labels, batch[2])


def test_four_different_images_with_their_types(batch, half):
    arrangements, alone = [], 0
    for seed in range(40):
        out = half(jax.random.key(seed), *batch)
        np.testing.assert_array_equal(out.images, np.repeat(out.type_masks[..., None], 3, -1))
        for own, row in enumerate(tiles(out.type_masks)):
            assert out.labels[own] == (5 in row)
            if set(row) == {own}:
                alone += 1
                continue
            assert own in row
            assert len(set(row)) == 4
            arrangements.append(tuple((row - own) % COUNT))
    assert 0.4 < alone / (40 * COUNT) < 0.6
    assert len(set(arrangements)) > 40
    assert {row.index(0) for row in arrangements} == {0, 1, 2, 3}
    assert (out.images.dtype, out.type_masks.dtype) == (jnp.uint8, jnp.uint8)


def test_halving(batch, half):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (COUNT, SIZE, SIZE, 3), np.uint8)
    masks = rng.integers(0, 3, (COUNT, SIZE, SIZE), np.uint8)
    out = half(jax.random.key(1), images, masks, batch[2])
    changed = np.flatnonzero((np.asarray(out.images) != images).any(axis=(1, 2, 3)))
    assert len(changed)
    small = images.reshape(COUNT, HALF, 2, HALF, 2, 3).astype(np.float32).mean((2, 4)).round()
    for own in changed:
        found = np.asarray(out.images[own]).reshape(2, HALF, 2, HALF, 3).swapaxes(1, 2)
        order = [
            next(k for k in range(COUNT) if (small[k] == tile).all())
            for tile in found.reshape(4, HALF, HALF, 3)
        ]
        assert len({own, *order}) == len(order) == 4
        found = np.asarray(out.type_masks[own]).reshape(2, HALF, 2, HALF).swapaxes(1, 2)
        np.testing.assert_array_equal(found.reshape(4, HALF, HALF), masks[order][:, 1::2, 1::2])


def test_halved_masks_are_those_of_pillow():
    from promptmad_jax.data.preprocess import resize_ids

    mask = np.random.default_rng(3).integers(0, 5, (SIZE, SIZE), np.uint8)
    np.testing.assert_array_equal(resize_ids(mask, HALF), mask[1::2, 1::2])


@pytest.mark.parametrize(("count", "size"), [(3, 8), (4, 7)])
def test_what_cannot_be_done(count, size):
    images, masks = jnp.zeros((count, size, size, 3)), jnp.zeros((count, size, size), jnp.int8)
    with pytest.raises(ValueError, match="need 4 images and an even size"):
        mosaic(jax.random.key(0), images, masks, jnp.zeros(count, bool), 0.5)
