"""Exports a trained run as a folder that any machine runs without the training code.

    promptmad export --workdir=runs/mine --output=mine_detector
    promptmad export --workdir=runs/mine --output=mine_detector --platforms=cpu,cuda,tpu
    promptmad export --workdir=runs/mine --output=mine_detector --compiled
    promptmad predict --export=mine_detector --class_name=screw --output=out photos/

Writes programs in StableHLO for each platform and batch size, the weights, memory and thresholds,
and a manifest with checksums. It needs no accelerator, also for the programs of one.
"""

from collections.abc import Sequence

from absl import flags

from promptmad_jax.runtime import cli
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.paths import define_path

_WORKDIR = define_path("workdir", "the working directory of a trained run", required=True)
_OUTPUT = define_path("output", "folder to write; a name that ends in .zip packs it", required=True)
_BACKBONE_WEIGHTS = define_path(
    "backbone_weights", "the backbone's or CLIP's weights (file, folder or hub id), if they moved"
)
_PLATFORMS = flags.DEFINE_list("platforms", ["cpu"], "of cpu, cuda and tpu, separated by commas")
_BATCH_SIZES = flags.DEFINE_list("batch_sizes", ["1", "8"], "images that a program takes at once")
_DTYPE = flags.DEFINE_enum(
    "dtype", "float32", ["float32", "bfloat16"], "of the networks' computation"
)
_COMPILED = flags.DEFINE_bool(
    "compiled",
    False,
    "keep the programs compiled for machines like this one too: a service starts in 3 s",
)
_ONNX = flags.DEFINE_bool(
    "onnx", False, "add a program in ONNX and its use in NumPy, for machines without JAX"
)


def main(argv: Sequence[str]) -> None:
    """Reads the flags, then exports."""
    from promptmad_jax.commands.export import Programs, batch_sizes, export

    if len(argv) > 1:
        raise UserError(f"unknown argument {argv[1]}: use the flags that --help shows")
    sizes = batch_sizes(_BATCH_SIZES.value)
    programs = Programs(_PLATFORMS.value, sizes, _DTYPE.value, _COMPILED.value, _ONNX.value)
    export(_WORKDIR.value, _OUTPUT.value, programs, _BACKBONE_WEIGHTS.value)


if __name__ == "__main__":
    cli.run(main)
