"""The training step for devices that are not there: lowered at full size, partitioned when small.

Which arrays are sent is decided when XLA partitions the program, and shows in it alone. A small
model's program has the structure of a large one's, and compiles in seconds.
"""

import pytest
from jax.sharding import AbstractMesh

from configs import onenip_mvtec, promptmad_mvtec
from promptmad_jax.abstract_run import abstract_run
from promptmad_jax.config import parse
from promptmad_jax.runtime.mesh import AXES

IMAGES = 4  # a device
PLATFORMS = ("tpu", "cuda")
# Operations of a step an image, forward and back, of full-size PromptMAD: counted once by hand from
# XLA's analysis, so that a step that does its work twice, or not at all, is noticed.
GFLOP_AN_IMAGE = 32.5
TEXT_WIDTH = 512


def lower(name, devices):
    """The full-size step for an accelerator, as a Lowered."""
    raw = {"promptmad": promptmad_mvtec, "onenip": onenip_mvtec}[name].get_config()
    raw.train.batch_size = devices * IMAGES
    # What "auto" is on an accelerator; the CPU's lowering would be traced as well.
    raw.backbone.depthwise = "conv"
    mesh = AbstractMesh((devices, 1), AXES)
    run = abstract_run(parse(raw), mesh, PLATFORMS[0], TEXT_WIDTH)
    return run.trace().lower(lowering_platforms=PLATFORMS)


@pytest.mark.parametrize(
    ("name", "devices"),
    [("promptmad", 8), ("promptmad", 64), ("promptmad", 256), ("onenip", 256)],
)
def test_the_full_size_step_lowers_for_tpu_and_cuda(name, devices):
    text = lower(name, devices).as_text()
    assert f'sdy.mesh @mesh = <["data"={devices}, "fsdp"=1]>' in text
    images = f"tensor<{devices * IMAGES}x224x224x3xui8>"
    assert (
        f'{images} {{sdy.sharding = #sdy.sharding<@mesh, [{{"data", "fsdp"}}, {{}}, {{}}, {{}}]>}}'
        in text
    )
