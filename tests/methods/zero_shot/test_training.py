"""Batches and steps of zero-shot detectors, inside one process."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from promptmad_jax.config import parse
from promptmad_jax.methods.zero_shot.images import read_source
from promptmad_jax.methods.zero_shot.training import ZeroShotTraining
from promptmad_jax.runtime.config_file import load_config
from promptmad_jax.runtime.mesh import MeshConfig
from promptmad_jax.training.optimizer import make_optimizer
from promptmad_jax.training.state import create_state


@pytest.fixture(scope="module")
def config(data):
    config = parse(load_config("multiads_mvtec_to_visa.py:smoke"))
    return replace(
        config,
        data=replace(config.data, data_dir=str(data)),
        clip=replace(config.clip, layers=2, width=16, projection=16),
        dapo=replace(config.dapo, taps=(1, 2)),
        train=replace(config.train, fine_dtype="float32"),
        mesh=MeshConfig(data=1),
    )


def losses(config, mosaic=0.0, **train):
    """Of two steps."""
    train, source = replace(config.train, **train), replace(config.source, mosaic=mosaic)
    method = ZeroShotTraining(replace(config, train=train, source=source))
    optimizer = make_optimizer(config.optimizer)
    state, shardings = create_state(method.network, optimizer.tx, 0, method.mesh)
    step = method.step_function(optimizer, shardings)
    order, batches = method.batches()
    found = []
    for number in range(2):
        batch = batches(order(number))
        state, metrics = step(state, method.frozen, batch)
        found.append(float(metrics["loss"]))
    return found, batch


def test_images_pass_the_tower_once_or_in_every_step(config, data):
    (cached, batch), (plain, other) = losses(config), losses(config, cache_images=False)
    assert batch.images is None and other.states is None
    assert abs(cached[1] - cached[0]) > 1e-3
    np.testing.assert_allclose(cached, plain, rtol=1e-4)
    mosaics, _ = losses(config, cache_images=False, mosaic=1.0)
    assert abs(mosaics[0] - plain[0]) > 1e-3
    assert jax.tree.leaves(batch.states)[0].shape == (8, 16, 16)


def test_a_users_types(config, tmp_path):
    """Two folders become one type with words of its own, one has no type and is left out."""
    file = tmp_path / "own.yaml"
    file.write_text(
        "types:\n"
        "  deformed: {words: [out of shape], folders: [bent_shank, broken_head]}\n"
        "without_type: [rust]\n"
    )
    source = read_source(replace(config, source=replace(config.source, taxonomy=str(file))))
    assert set(source.words) == {"out of shape", "stripped thread"}
    assert len(source.data) == 3 + 6
    assert source.fact["trained_on_test_split"]["left_out"]["a defect of unknown type"] == 2
    shown = source.data.images.defect_types.index("bent_shank")
    ids = np.unique(source.type_masks[shown])
    assert ids.tolist() == [0, 1 + source.words.index("out of shape")]
    assert source.fingerprint != read_source(config).fingerprint
