"""A batch in passes of a few images gives what it gives in one."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from flax import nnx

from configs import quickstart
from promptmad_jax.benchmark_run import made_up_experiment, subject_of
from promptmad_jax.config import parse
from promptmad_jax.experiment import (
    CPU_ATTENTION_WEIGHTS,
    CPU_BACKBONE_PIXELS,
    CPU_MAPS_PIXELS,
)
from promptmad_jax.models.passes import images_a_pass
from promptmad_jax.runtime.key_streams import KeyStreams

BATCH = 4


@pytest.fixture(scope="module")
def config():
    return quickstart.get_config("smoke,onenip")


def experiment(config, devices):
    config.mesh.data = devices
    return made_up_experiment(parse(config), 3, "config")


def test_maps(config):
    subject = subject_of(experiment(config, 1))
    images, ids = subject.images(BATCH)

    def maps(**passes):
        detector = replace(subject.detector, **passes)
        return jax.jit(detector.maps)(*subject.state, subject.frozen, subject.bank, images, ids)

    whole, parts = maps(backbone_pass=0, maps_pass=0), maps(backbone_pass=1, maps_pass=2)
    for name, values in whole.items():
        tolerance = 1e-5 * np.abs(values).max()
        np.testing.assert_allclose(parts[name], values, rtol=0, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("devices", [1, 2])
def test_a_single_cpu_device_takes_passes(config, devices):
    detector = experiment(config, devices).detector
    model = nnx.eval_shape(lambda: detector.network.build(KeyStreams(0)))
    attention = model.reconstructor.encoder["layer_0"].attention
    passes = (detector.backbone_pass, detector.maps_pass, attention.most)
    images = [pixels // 64**2 for pixels in (CPU_BACKBONE_PIXELS, CPU_MAPS_PIXELS)]
    assert passes == ((*images, CPU_ATTENTION_WEIGHTS) if devices == 1 else (0, 0, 0))


@pytest.mark.parametrize(
    ("batch", "most", "images"), [(8, 8, 8), (8, 3, 2), (24, 5, 4), (7, 3, 1), (8, 0, 1), (4, 9, 4)]
)
def test_a_pass_divides_the_batch(batch, most, images):
    assert images_a_pass(batch, most) == images
