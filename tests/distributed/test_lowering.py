"""The training step for devices that are not there: lowered at full size, partitioned when small.

Which arrays are sent is decided when XLA partitions the program, and shows in it alone. A small
model's program has the structure of a large one's, and compiles in seconds.
"""

import re

import jax
import numpy as np
import pytest

from promptmad_jax.config import parse
from promptmad_jax.data.pipeline import BatchIndices, TrainArrays, resident_source
from promptmad_jax.dry_run.collectives import find_collectives
from promptmad_jax.methods.reconstruction.abstract import abstract_training
from promptmad_jax.runtime.config_file import load_config
from promptmad_jax.runtime.mesh import abstract_mesh, make_mesh
from tests.trees import count_params
from tools.scaling import summed_elements

IMAGES = 2  # a device
DEVICES = 8
PLATFORMS = ("tpu", "cuda")
ON_DEMAND = pytest.mark.full


def full_size(name, devices):
    """The full-size run on devices that are not there."""
    raw = load_config(f"{name}_mvtec.py")
    raw.train.batch_size = devices * IMAGES
    # What "auto" is on an accelerator; the CPU's lowering would be traced as well.
    raw.backbone.depthwise = "conv"
    return abstract_training(parse(raw), abstract_mesh(devices), PLATFORMS[0])


@pytest.mark.parametrize(
    ("name", "devices"),
    [
        pytest.param("promptmad", 8, marks=pytest.mark.smoke),
        ("onenip", 64),
        pytest.param("promptmad", 256, marks=ON_DEMAND),
        pytest.param("promptmad", 64, marks=ON_DEMAND),
        pytest.param("onenip", 8, marks=ON_DEMAND),
        pytest.param("onenip", 256, marks=ON_DEMAND),
    ],
)
def test_the_full_size_step_lowers_for_tpu_and_cuda(name, devices):
    text = full_size(name, devices).trace().lower(lowering_platforms=PLATFORMS).as_text()
    assert f'sdy.mesh @mesh = <["data"={devices}, "fsdp"=1]>' in text
    split = '{sdy.sharding = #sdy.sharding<@mesh, [{"data", "fsdp"}, {}, {}, {}]>}'
    images = f"tensor<{devices * IMAGES}x224x224x3xui8>"
    arguments = re.search(r"func\.func public @main\((.*)", text)[1]
    assert arguments.count(images) == arguments.count(f"{images} {split}") == 2


@pytest.fixture(scope="module")
def small():
    """A small PromptMAD's configuration, run and compiled step on eight devices."""
    raw = load_config("study/parts.py:row=no_memory,base=quickstart,smoke")
    raw.segmentor.laterals = True
    raw.train.batch_size = DEVICES * IMAGES
    raw.train.resident = "yes"
    raw.backbone.depthwise = "conv"
    raw.pseudo_anomaly.textures = "noise"
    config = parse(raw)
    run = abstract_training(config, make_mesh(config.mesh), "cpu")
    # The partitioned program is wanted, not fast code.
    options = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    return config, run, run.trace().lower().compile(compiler_options=options)


def test_a_step_sums_gradients_and_moments_and_sends_nothing_else(small):
    config, run, compiled = small
    sent = find_collectives(compiled.as_text())
    assert {(one.kind, one.devices, one.in_loop) for one in sent} == {
        ("all-reduce", DEVICES, False)
    }
    sums = summed_elements(config, run)
    sizes = [one.nbytes // 4 for one in sent]
    elements = sum(sizes)
    assert sums.elements - sums.idle <= elements <= sums.elements
    assert sums.elements < 1.06 * count_params(run.state.params)
    # A ring sends all but an eighth twice, in float32.
    assert sum(one.sent() for one in sent) == 2 * 7 / 8 * 4 * elements
    # All at once but for what the next layer waits for.
    assert max(sizes) > 0.8 * count_params(run.state.params)
    assert len(sent) <= 4 * len(jax.tree.leaves(run.state.stats)) / 2


def test_a_batch_of_resident_images_is_cut_without_sending(small):
    config, run, _ = small
    mesh = make_mesh(config.mesh)
    rows = lambda tree: jax.tree.map(lambda x: np.zeros((24, *x.shape[1:]), x.dtype), tree)
    batch = run.batch
    arrays = TrainArrays(*rows((batch.images, batch.textures, batch.class_ids, batch.features)))
    source = resident_source(arrays, mesh)
    ids = np.arange(16, dtype=np.int32)
    compiled = source.func.lower(*source.args, BatchIndices(ids, ids, ids)).compile()
    assert not find_collectives(compiled.as_text())
