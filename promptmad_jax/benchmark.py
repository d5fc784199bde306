"""Measures speed and memory, without a data set or downloaded weights.

    promptmad benchmark --what=inference --config=promptmad_mvtec.py [--batch_size=1,8]
    promptmad benchmark --what=training,synthesis --config=promptmad_mvtec.py
    promptmad benchmark --what=inference --config=promptmad_mvtec.py --sweep=resolution
    promptmad benchmark --what=metrics
    promptmad benchmark --what=startup --config=promptmad_mvtec.py

Prints one JSON line per case on standard output and a table on standard error. Each case runs in
its own process, on images drawn from a seed. docs/performance.md explains the fields.
"""

from absl import flags

from promptmad_jax.runtime import cli
from promptmad_jax.runtime.config_file import define_config_flag
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.interrupts import tidied_up
from promptmad_jax.runtime.paths import define_path

_WHAT = flags.DEFINE_list("what", ["inference"], "inference, training, synthesis, metrics, startup")
_CONFIG = define_config_flag("configuration to measure; --what=metrics needs none")
_BATCH_SIZE = flags.DEFINE_list(
    "batch_size",
    [],
    "one or several; by default 1,8,32,256 for inference, the configuration's for training",
)
_CASES = flags.DEFINE_list("cases", [], "the cases to run; by default all of --what")
_CLASSES = flags.DEFINE_integer("classes", 15, "classes in the bank", lower_bound=1)
_SWEEP = flags.DEFINE_enum(
    "sweep",
    None,
    ["resolution", "classes", "dtype", "devices"],
    "repeats the cases at each value: 224, 256, 320, 448 pixels; 15, 150, 1500 classes; float32, "
    "bfloat16; 1, 2, 4, 8 devices (on a CPU, JAX divides its cores)",
)
_WEIGHTS = flags.DEFINE_enum(
    "weights",
    "random",
    ["random", "config"],
    "weights of the backbone or CLIP: random, or as configured",
)
_SAMPLES = flags.DEFINE_integer("samples", 9, "samples per case", lower_bound=1)
_SECONDS = flags.DEFINE_float(
    "seconds", 40.0, "seconds per case after which three samples are enough"
)
_STEPS = flags.DEFINE_integer("steps", 0, "training: number of steps, each of them a sample")
_PEAK_GFLOPS = flags.DEFINE_float(
    "peak_gflops", 0.0, "peak of the machine in 1e9 operations a second; measured if not given"
)
_PEAK_GBYTES = flags.DEFINE_float(
    "peak_gbytes", 0.0, "peak memory bandwidth in 1e9 bytes a second; measured if not given"
)
_PROFILE = define_path("profile", "folder for a trace of each case, for TensorBoard")
_CHILD = flags.DEFINE_string("child", "", "internal: the one case that this process measures")


def main(argv: list[str]) -> None:
    """Reads the flags, then measures."""
    from promptmad_jax.benchmarking.measure import Bench
    from promptmad_jax.benchmarking.plan import PLAIN_CASES, Selection
    from promptmad_jax.benchmarking.rows import Roof
    from promptmad_jax.benchmarking.timing import Budget
    from promptmad_jax.commands.benchmark import Request, run_benchmark, run_case
    from promptmad_jax.config import parse
    from promptmad_jax.methods.method import open_method
    from promptmad_jax.runtime.outputs import check_folder

    own = {"available": PLAIN_CASES}
    config = None if _CONFIG.value is None else parse(_CONFIG.value)
    if config is not None:
        method = open_method(config)
        own = {
            "available": PLAIN_CASES | dict(method.benchmark_cases),
            "training_batch": config.train.batch_size,
            "dtype_setting": method.dtype_setting,
            "image_multiple": method.image_multiple,
        }
    selection = Selection(
        tuple(_WHAT.value),
        tuple(_CASES.value),
        tuple(map(_batch_size, _BATCH_SIZE.value)),
        _SWEEP.value,
        **own,
    )
    budget = Budget(samples=_SAMPLES.value, limit_s=_SECONDS.value)
    roof = Roof(_PEAK_GFLOPS.value, _PEAK_GBYTES.value)
    request = Request(
        selection,
        config,
        classes=_CLASSES.value,
        weights=_WEIGHTS.value,
        steps=_STEPS.value,
        bench=Bench(budget, roof, _PROFILE.value),
    )
    if len(argv) > 1:
        raise UserError(f"unknown argument {argv[1]}: everything is given as --flag=value")
    if _PROFILE.value:
        check_folder(_PROFILE.value, "--profile")
    with tidied_up():
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
