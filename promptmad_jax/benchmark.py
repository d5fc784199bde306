"""Measures speed and memory; needs no data set and, unless told otherwise, no weights.

    python -m promptmad_jax.benchmark --what=inference --config=configs/X.py [--batch_size=1,8]
    python -m promptmad_jax.benchmark --what=training,synthesis --config=configs/X.py
    python -m promptmad_jax.benchmark --what=inference --config=configs/X.py --sweep=resolution
    python -m promptmad_jax.benchmark --what=metrics
    python -m promptmad_jax.benchmark --what=startup --config=configs/X.py

One JSON line a case on standard output, a table on standard error. Each case runs in a process of
its own, with images drawn from a seed. docs/performance.md says what the fields mean.
"""

from absl import flags
from ml_collections import config_flags

from promptmad_jax.runtime import cli
from promptmad_jax.runtime.errors import UserError

_WHAT = flags.DEFINE_list("what", ["inference"], "inference, training, synthesis, metrics, startup")
_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "configs/X.py[:arguments]; --what=metrics needs none", lock_config=True
)
_BATCH_SIZE = flags.DEFINE_list(
    "batch_size", [], "one or several; inference: 1,8,32,256; training: that of the configuration"
)
_CASES = flags.DEFINE_list("cases", [], "the cases to run, if not all of --what")
_CLASSES = flags.DEFINE_integer("classes", 15, "classes in the bank", lower_bound=1)
_SWEEP = flags.DEFINE_enum(
    "sweep",
    None,
    ["resolution", "classes", "dtype", "devices"],
    "runs everything again at each value: 224, 256, 320, 448 pixels; 15, 150, 1500 classes; "
    "float32, bfloat16; 1, 2, 4, 8 devices (on a CPU: of its cores' making)",
)
_WEIGHTS = flags.DEFINE_enum(
    "weights", "random", ["random", "config"], "of the backbone or CLIP: random, or as configured"
)
_SAMPLES = flags.DEFINE_integer("samples", 9, "how many samples a case", lower_bound=1)
_SECONDS = flags.DEFINE_float("seconds", 40.0, "when three samples of a case become enough")
_STEPS = flags.DEFINE_integer("steps", 0, "training: so many steps, each one a sample")
_PEAK_GFLOPS = flags.DEFINE_float(
    "peak_gflops", 0.0, "1e9 operations a second that the machine can do; measured if not given"
)
_PEAK_GBYTES = flags.DEFINE_float("peak_gbytes", 0.0, "1e9 bytes a second, likewise")
_PROFILE = flags.DEFINE_string("profile", "", "folder for a trace of each case, for TensorBoard")
_CHILD = flags.DEFINE_string("child", "", "what the command starts itself with, for one case")


def main(argv: list[str]) -> None:
    """Reads the flags, then measures."""
    from promptmad_jax.benchmarking.cost import Roof
    from promptmad_jax.benchmarking.plan import Selection
    from promptmad_jax.benchmarking.timing import Budget
    from promptmad_jax.commands.benchmark import Request, run_benchmark, run_case
    from promptmad_jax.config import ZERO_SHOT, parse

    config = None if _CONFIG.value is None else parse(_CONFIG.value)
    selection = Selection(
        what=tuple(_WHAT.value),
        cases=tuple(_CASES.value),
        batch_sizes=tuple(map(_batch_size, _BATCH_SIZE.value)),
        training_batch=None if config is None else config.train.batch_size,
        sweep=_SWEEP.value,
        zero_shot=config is not None and config.model == ZERO_SHOT,
    )
    request = Request(
        selection=selection,
        config=config,
        classes=_CLASSES.value,
        weights=_WEIGHTS.value,
        budget=Budget(samples=_SAMPLES.value, most_s=_SECONDS.value),
        steps=_STEPS.value,
        roof=Roof(_PEAK_GFLOPS.value, _PEAK_GBYTES.value),
        profile=_PROFILE.value,
    )
    if len(argv) > 1:
        raise UserError(f"unknown argument {argv[1]}: everything is given as --flag=value")
    if _CHILD.value:
        run_case(_CHILD.value, request)
    else:
        run_benchmark(request)


def _batch_size(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"--batch_size={text}: it must be a positive number, or a list of them")
    return int(text)


if __name__ == "__main__":
    cli.run(main)
