"""Runs on devices that are not there."""

import functools

from promptmad_jax.config import parse
from promptmad_jax.dry_run.targets import find_target
from promptmad_jax.methods.method import open_method
from promptmad_jax.runtime.config_file import load_config
from promptmad_jax.runtime.mesh import make_mesh


@functools.cache
def run_of(name, devices, **settings):
    """Configuration, abstract run and chip; settings with "__" for "."."""
    raw = load_config(name)
    for key, value in settings.items():
        raw.update_from_flattened_dict({key.replace("__", "."): value})
    config, target = parse(raw), find_target(devices)
    mesh = make_mesh(config.mesh, target.devices)
    run = open_method(config).abstract_training(mesh, target.chip.platform)
    return config, run, target.chip
