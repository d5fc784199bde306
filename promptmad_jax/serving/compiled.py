"""Compiled programs, kept for machines like the one that compiled them.

They are machine code in a pickle (`jax.experimental.serialize_executable`): who loads an artifact
with compiled programs trusts its maker.
"""

import pickle

import jax
import jaxlib
from jax import export
from jax.experimental import serialize_executable
from jax.experimental.compilation_cache import compilation_cache

from promptmad_jax.runtime.cpu import processor

FOLDER = "compiled/"


def file_name(batch_size: int, dtype: str) -> str:
    """The file of a program that is compiled for this machine."""
    return f"{FOLDER}{machine()}/b{batch_size}-{dtype}.bin"


def machine() -> str:
    """Names what machine code depends on: the device and its kind, and the versions of JAX."""
    device = jax.devices()[0]
    kind = processor.kind() if device.platform == "cpu" else device.device_kind
    versions = f"jax{jax.__version__}-jaxlib{jaxlib.__version__}"
    return f"{export.default_export_platform()}-{kind}-{versions}".replace(" ", "_")


def compile_program(program: export.Exported) -> jax.stages.Compiled:
    """Compiles a program for this machine."""
    args, _ = jax.tree.unflatten(program.in_tree, program.in_avals)
    return jax.jit(program.call).lower(*args).compile()


def save(program: export.Exported) -> bytes:
    """The content of a file that `load` reads on a machine of the same name.

    The compilation cache is turned off: what XLA's CPU client took from it lacks functions when it
    is serialized again.
    """
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # Only now the setting counts.
    return pickle.dumps(serialize_executable.serialize(compile_program(program)))


def load(content: bytes) -> jax.stages.Compiled:
    """A compiled program on the first device."""
    devices = jax.devices()[:1]
    return serialize_executable.deserialize_and_load(
        *pickle.loads(content), execution_devices=devices
    )
