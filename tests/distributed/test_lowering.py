"""The training step for devices that are not there: lowered at full size, partitioned when small.

Which arrays are sent is decided when XLA partitions the program, and shows in it alone. A small
model's program has the structure of a large one's, and compiles in seconds.
"""

import re

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh

from configs import onenip_mvtec, promptmad_mvtec, quickstart
from promptmad_jax.abstract_run import abstract_run
from promptmad_jax.config import parse
from promptmad_jax.data.pipeline import BatchIndices, ResidentSource, TrainArrays
from promptmad_jax.runtime.collectives import find_collectives
from promptmad_jax.runtime.mesh import (
    AXES,
    make_mesh,
)

IMAGES = 2  # a device
PLATFORMS = ("tpu", "cuda")
TEXT_WIDTH = 64


def full_size(name, devices):
    """The full-size run on devices that are not there."""
    raw = {"promptmad": promptmad_mvtec, "onenip": onenip_mvtec}[name].get_config()
    raw.train.batch_size = devices * IMAGES
    # What "auto" is on an accelerator; the CPU's lowering would be traced as well.
    raw.backbone.depthwise = "conv"
    return abstract_run(parse(raw), AbstractMesh((devices, 1), AXES), PLATFORMS[0], TEXT_WIDTH)


@pytest.mark.parametrize(
    ("name", "devices"),
    [("promptmad", 8), ("promptmad", 64), ("promptmad", 256), ("onenip", 256)],
)
def test_the_full_size_step_lowers_for_tpu_and_cuda(name, devices):
    text = full_size(name, devices).trace().lower(lowering_platforms=PLATFORMS).as_text()
    assert f'sdy.mesh @mesh = <["data"={devices}, "fsdp"=1]>' in text
    split = '{sdy.sharding = #sdy.sharding<@mesh, [{"data", "fsdp"}, {}, {}, {}]>}'
    images = f"tensor<{devices * IMAGES}x224x224x3xui8>"
    arguments = re.search(r"func\.func public @main\((.*)", text)[1]
    assert arguments.count(images) == arguments.count(f"{images} {split}") == 2


def small_config(devices):
    raw = quickstart.get_config("smoke")
    raw.train.batch_size = devices * IMAGES
    raw.train.resident = "yes"
    raw.backbone.depthwise = "conv"
    raw.pseudo_anomaly.textures = "noise"
    return parse(raw)


@pytest.fixture(scope="module")
def small():
    """A small PromptMAD's configuration, run and compiled step on eight devices."""
    config = small_config(8)
    run = abstract_run(config, make_mesh(config.mesh), "cpu", TEXT_WIDTH)
    # The partitioned program is wanted, not fast code.
    options = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    return config, run, run.trace().lower().compile(compiler_options=options)


def test_a_batch_of_resident_images_is_cut_without_sending(small):
    config, run, _ = small
    mesh = make_mesh(config.mesh)
    rows = lambda tree: jax.tree.map(lambda x: np.zeros((24, *x.shape[1:]), x.dtype), tree)
    batch = run.batch
    arrays = TrainArrays(*rows((batch.images, batch.textures, batch.class_ids, batch.features)))
    source = ResidentSource(arrays, mesh)
    ids = np.arange(16, dtype=np.int32)
    compiled = source._take.lower(source.arrays, BatchIndices(ids, ids, ids)).compile()
    assert not find_collectives(compiled.as_text())
