"""Trains a model: `python -m promptmad_jax.train --config=configs/X.py --workdir=DIR`.

The same command resumes an interrupted run from its last checkpoint. Given to several processes,
each with its place (`runtime/distributed.py`), they train together. With `--dry_run` it prints
where the state lies, the memory of a device and what a step sends, and neither trains nor writes.
"""

from absl import flags
from ml_collections import config_flags

from promptmad_jax.runtime import cli, distributed

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "configs/X.py[:arguments]", lock_config=True
)
_WORKDIR = flags.DEFINE_string("workdir", None, "where the run keeps everything it writes")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "count memory and communication; train nothing")
_DRY_RUN_ON = flags.DEFINE_string(
    "dry_run_on", "", "devices to count for, if not those at hand: cpu:8, or tpu:v5e:2x4"
)
_PROFILE = flags.DEFINE_string("profile", "", "FIRST:LAST, steps to trace into WORKDIR/profile")


def main(argv: list[str]) -> None:
    """Reads the flags, joins the other processes, then trains."""
    del argv
    if not _DRY_RUN_ON.value:
        distributed.initialize()
    from promptmad_jax.config import parse

    config = parse(_CONFIG.value)
    if _DRY_RUN.value or _DRY_RUN_ON.value:
        from promptmad_jax.dry_run.report import dry_run

        dry_run(config, _DRY_RUN_ON.value)
        return
    from promptmad_jax.commands.train import run_training
    from promptmad_jax.runtime.profiler import parse_steps

    run_training(config, _WORKDIR.value, parse_steps(_PROFILE.value))


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    flags.register_multi_flags_validator(
        ["workdir", "dry_run", "dry_run_on"],
        lambda given: bool(given["workdir"] or given["dry_run"] or given["dry_run_on"]),
        "Flag --workdir must have a value other than None.",
    )
    cli.run(main)
