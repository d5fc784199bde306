"""Which images are held out."""

import numpy as np
import pytest

from promptmad_jax.data.holdout import hold_out
from promptmad_jax.data.image_set import ImageSet


def images(counts):
    ids = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    n = len(ids)
    return ImageSet(
        images=np.arange(n, dtype=np.uint8)[:, None, None, None].repeat(3, 3),
        masks=np.zeros((n, 1, 1), bool),
        labels=np.zeros(n, np.int32),
        class_ids=ids,
        class_names=tuple("abc"[: len(counts)]),
        defect_types=("good",) * n,
        filenames=tuple(f"{i}.png" for i in range(n)),
        original_sizes=np.ones((n, 2), np.int32),
        fingerprint="x",
    )


def test_every_class_gives_its_share_and_keeps_its_prompt():
    train = images([10, 21])
    kept, held = hold_out(train, 0.2)
    assert np.bincount(held.class_ids).tolist() == [2, 5]
    assert {"0.png", "10.png"} <= set(kept.filenames)
    assert sorted(kept.filenames + held.filenames) == sorted(train.filenames)
    assert held.filenames[:2] == ("1.png", "9.png")


@pytest.mark.parametrize("count, fraction, expected", [(2, 0.1, 1), (3, 0.5, 2), (100, 0.01, 1)])
def test_small_classes_and_shares(count, fraction, expected):
    kept, held = hold_out(images([count]), fraction)
    assert len(held) == expected and len(kept) == count - expected


def test_a_single_image_is_on_both_sides():
    kept, held = hold_out(images([1, 4]), 0.25)
    assert "0.png" in kept.filenames and "0.png" in held.filenames


def test_nothing_held_out_leaves_the_set_as_it_is():
    train = images([4])
    kept, held = hold_out(train, 0.0)
    assert kept is train and len(held) == 0
