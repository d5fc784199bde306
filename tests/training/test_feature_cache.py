"""Features of clean images: computed on all devices, kept once, whole or not at all."""

import os
import time
from dataclasses import dataclass

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from promptmad_jax.models.backbone.neck import Features
from promptmad_jax.models.reconstruction.detector import Frozen
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.mesh import MeshConfig, make_mesh
from promptmad_jax.training.feature_cache import load_clean_features
from tests.evaluation.threads import run_processes

COUNT = 21
FROZEN = Frozen({"scale": jnp.float32(0.5)}, None)


@dataclass(frozen=True)
class Brightness:
    """A detector whose features tell which image they are of."""

    backbone: str = "brightness"
    uses_fine_levels: bool = True
    memory: None = None

    def features(self, frozen, images):
        values = images[..., :1] * frozen.backbone["scale"]
        return Features(values[:, ::2, ::2], None, values * 3)


@dataclass(frozen=True)
class Images:
    images: np.ndarray
    fingerprint: str = "of the test"

    def __len__(self):
        return len(self.images)


@pytest.fixture(scope="module")
def images():
    return Images(np.random.default_rng(0).integers(0, 256, (COUNT, 4, 4, 3), np.uint8))


def load(directory, images, devices=8, batch_size=2, dtype="bfloat16"):
    mesh = make_mesh(MeshConfig(data=devices))
    return load_clean_features(
        str(directory), Brightness(), FROZEN, images, dtype, mesh, batch_size
    )


@pytest.mark.parametrize(("devices", "batch_size"), [(1, 4), (8, 2), (8, 16)])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_every_row_on_any_number_of_devices(tmp_path, images, devices, batch_size, dtype):
    features = load(tmp_path, images, devices, batch_size, dtype)
    values = images.images[..., :1] * np.float32(0.5)
    np.testing.assert_array_equal(features.neck, values[:, ::2, ::2])
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.float32
    np.testing.assert_array_equal(features.stride4, (values * 3).astype(kind))
    assert features.stride8 is None and isinstance(features.neck, np.memmap)


def test_computed_once(tmp_path, images):
    load(tmp_path, images)
    (folder,) = tmp_path.iterdir()
    stamp = (folder / "neck.npy").stat().st_mtime_ns
    load(tmp_path, images, devices=1)
    assert (folder / "neck.npy").stat().st_mtime_ns == stamp
    load(tmp_path, images, dtype="float32")
    assert len(list(tmp_path.iterdir())) == 2


def test_another_process_may_be_faster(tmp_path, images):
    """Two that do not know of each other, as runs that share a data folder."""
    results = run_processes(2, lambda _: load(tmp_path, images, devices=1))
    np.testing.assert_array_equal(results[0].neck, results[1].neck)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path, images, file_size_limit):
    with file_size_limit(200), pytest.raises(UserError, match=r"feature cache .* make room"):
        load(tmp_path, images)
    assert list(tmp_path.iterdir()) == []
    assert len(load(tmp_path, images).neck) == COUNT


def test_what_killed_processes_left_is_removed_after_a_day(tmp_path, images):
    old, new = (tmp_path / f"0123.partial-{name}" for name in ("old", "new"))
    for folder in (old, new):
        folder.mkdir()
    os.utime(old, (time.time() - 2 * 24 * 3600,) * 2)
    load(tmp_path, images)
    assert not old.exists() and new.exists()
