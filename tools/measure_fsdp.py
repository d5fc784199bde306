"""Prints what a device holds of the training state, replicated and under fsdp, as JSON lines.

    PYTHONPATH=. python tools/measure_fsdp.py [--config=configs/promptmad_mvtec.py] [--devices=8]

Draws the state of the full-size configuration on a mesh of pretended CPU devices, once with
`mesh.data` and once with `mesh.fsdp` over all of them, and adds up the bytes of the pieces that lie
on the fullest device. Needs no weights and no data.
"""

import dataclasses
import json
from collections import Counter

import jax
from absl import app, flags

from promptmad_jax.config import parse
from promptmad_jax.dry_run.targets import find_target
from promptmad_jax.methods.reconstruction.abstract import abstract_training
from promptmad_jax.runtime.config_file import define_config_flag
from promptmad_jax.runtime.mesh import MeshConfig, make_mesh
from promptmad_jax.training.optimizer import make_optimizer
from promptmad_jax.training.state import create_state

_CONFIG = define_config_flag("configuration to measure", default="promptmad_mvtec.py")
_DEVICES = flags.DEFINE_integer("devices", 8, "pretended devices", lower_bound=1)


def fullest(tree) -> int:
    """Bytes on the device that holds most of the arrays."""
    held = Counter()
    for leaf in jax.tree.leaves(tree):
        for shard in leaf.addressable_shards:
            held[shard.device] += shard.data.nbytes
    return max(held.values())


def main(argv) -> None:
    del argv
    config = parse(_CONFIG.value)
    devices = find_target(f"cpu:{_DEVICES.value}").devices
    for axes in (MeshConfig(data=-1, fsdp=1), MeshConfig(data=1, fsdp=-1)):
        mesh = make_mesh(axes, devices)
        on_mesh = dataclasses.replace(config, mesh=axes)
        network = abstract_training(on_mesh, mesh, "cpu").detector.network
        tx = make_optimizer(config.optimizer).tx
        state, _ = create_state(network, tx, 0, mesh)
        row = {"mesh": f"data={mesh.shape['data']} fsdp={mesh.shape['fsdp']}"}
        for name in ("params", "stats", "opt_state"):
            row[f"{name}_mib"] = round(fullest(getattr(state, name)) / 2**20, 2)
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    app.run(main)
