"""Trains as `promptmad_jax.train` does, but keeps nothing.

Writes, for each mesh, the figures of all steps and the metrics as JSON, by process 0.
"""

import dataclasses
import json
import pathlib

from absl import flags

from promptmad_jax.runtime import cli, distributed
from promptmad_jax.runtime.config_file import define_config_flag

_CONFIG = define_config_flag("what is trained")
_DEVICES = flags.DEFINE_multi_integer("devices", [-1], "of the whole run, for each mesh")
_EVALUATED = flags.DEFINE_integer("evaluated", 1, "so many meshes' last states are evaluated")
_WORKDIR = flags.DEFINE_string("workdir", "", "where a memory is kept; all meshes share it")
_OUTPUT = flags.DEFINE_string("output", None, "the JSON file")


def main(argv):
    distributed.initialize()
    from promptmad_jax.config import parse
    from promptmad_jax.runtime.processes import is_writer

    config = parse(_CONFIG.value)
    found = []
    for place, count in enumerate(_DEVICES.value):
        mesh = dataclasses.replace(config.mesh, data=count)
        own = dataclasses.replace(config, mesh=mesh)
        found.append(train(own, _WORKDIR.value, place < _EVALUATED.value))
    if is_writer():
        pathlib.Path(_OUTPUT.value).write_text(json.dumps(found))


def train(config, workdir, evaluated):
    import jax

    from promptmad_jax.methods.method import open_method
    from promptmad_jax.runs.workdir import Workdir
    from promptmad_jax.training.config import total_steps
    from promptmad_jax.training.optimizer import make_optimizer
    from promptmad_jax.training.state import create_state

    method = open_method(config).training(Workdir(workdir))
    steps, per_epoch = total_steps(config.train, method.num_images)
    optimizer = make_optimizer(config.optimizer, steps, per_epoch)
    state, shardings = create_state(method.network, optimizer.tx, config.train.seed, method.mesh)
    order, source = method.batches()
    step_function = method.step_function(optimizer, shardings)
    losses = []
    for step in range(steps):
        state, metrics = step_function(state, method.frozen, source(order(step)))
        losses.append(jax.tree.map(float, metrics))
    mean = method.evaluate(state)["mean"] if evaluated else None
    return {"losses": losses, "mean": mean}


if __name__ == "__main__":
    cli.run(main)
