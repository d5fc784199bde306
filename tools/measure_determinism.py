"""Prints what changes a full-size model's maps: compilation, precision, the number of devices.

    PYTHONPATH=. python tools/measure_determinism.py [efficientnet_b4]

Weights are random, images noise on a gradient; every figure is the largest difference divided by
the largest value of the reference, which is the compiled float32 model.
"""

import dataclasses
import sys

import jax
import jax.numpy as jnp
import numpy as np

from promptmad_jax.config import parse
from promptmad_jax.methods.reconstruction.assembly import make_detector
from promptmad_jax.models.backbone.backbone import load_backbone
from promptmad_jax.models.reconstruction.detector import Frozen
from promptmad_jax.runtime.config_file import load_config
from promptmad_jax.runtime.mesh import MeshConfig, batch_sharding, make_mesh, replicated

BATCH = 8


def images(size: int) -> np.ndarray:
    """uint8 [BATCH, size, size, 3]."""
    ramp = np.linspace(0, 200, size)[None, :, None, None]
    noise = np.random.default_rng(0).uniform(0, 55, (BATCH, size, size, 3))
    return (ramp + noise).astype(np.uint8)


class Case:
    """The model's maps under one setting."""

    def __init__(self, backbone: str, dtype: str = "float32", precision: str = "highest"):
        raw = load_config("onenip_mvtec.py")
        config = parse(raw)
        settings = dataclasses.replace(
            config.backbone, name=backbone, weights="random", dtype=dtype
        )
        net, params = load_backbone(settings)
        self.detector, self.frozen = make_detector(config, net, None), Frozen(params, None)
        self.weights = jax.jit(self.detector.network.init)(jax.random.key(0))
        self.size, self.precision = config.data.image_size, precision

    def maps(self, devices: int = 1, compiled: bool = True) -> dict[str, np.ndarray]:
        """Maps of the batch, split over the devices."""
        mesh = make_mesh(MeshConfig(devices, 1))
        pictures = jax.device_put(images(self.size), batch_sharding(mesh))
        whole = jax.device_put((*self.weights, self.frozen), replicated(mesh))
        ids = jax.device_put(np.zeros(BATCH, np.int32), batch_sharding(mesh))

        def run(params, stats, frozen, pictures, ids):
            bank = self.detector.bank(params, stats, frozen, pictures[:1])
            others = jnp.full_like(ids, -1)
            return self.detector.maps(params, stats, frozen, bank, pictures, ids, others)

        with jax.default_matmul_precision(self.precision):
            maps = (jax.jit(run) if compiled else run)(*whole, pictures, ids)
        return {name: np.asarray(one, np.float64) for name, one in maps.items()}


def main(backbone: str = "efficientnet_b4") -> None:
    full = Case(backbone)
    reference = full.maps()
    cases = {
        "the same again": full.maps(),
        "not compiled": full.maps(compiled=False),
        "default matrix precision": Case(backbone, precision="default").maps(),
        "backbone in bfloat16": Case(backbone, dtype="bfloat16").maps(),
    }
    if len(jax.devices()) > 1:
        cases[f"{len(jax.devices())} devices"] = full.maps(devices=len(jax.devices()))
    print(f"{backbone}, {full.size} px, {jax.devices()[0].device_kind}, jax {jax.__version__}")
    for name, maps in cases.items():
        errors = [
            f"{key} {np.abs(maps[key] - one).max() / np.abs(one).max():.1e}"
            for key, one in reference.items()
        ]
        print(f"{name}: {', '.join(errors)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
