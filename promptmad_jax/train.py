"""Trains a model, evaluates it and writes its report; continues an interrupted run.

    promptmad train --config=promptmad_folder.py --workdir=runs/mine
    promptmad train --config=promptmad_folder.py --workdir=runs/mine --config.train.steps=5000
    promptmad train --config=promptmad_mvtec.py --dry_run --compile_for=v5e:2x4

--config is the name of a shipped configuration, from any folder, or the path of your own file; an
unknown name lists those shipped. --config.KEY=VALUE changes one setting. The same command continues
from the last checkpoint in WORKDIR. Several processes train together, each started with its place
among them. --dry_run trains nothing: it compiles the programs of the run and prints what they take
of a device; --compile_for does so for accelerators that are not at hand, with their own compilers.
"""

from absl import flags

from promptmad_jax.runtime import cli, distributed
from promptmad_jax.runtime.config_file import define_config_flag
from promptmad_jax.runtime.console import say
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.paths import define_path

_CONFIG = define_config_flag(
    "name or path of a configuration, and its arguments", required=True, announce=True
)
_WORKDIR = define_path("workdir", "folder of the run, for everything it writes")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "compile, print what a run takes; train nothing")
_COMPILE_FOR = flags.DEFINE_string(
    "compile_for", "", "like --dry_run, for other devices: cpu:8, v5e:2x4, h200:1x8, ..."
)
_PROGRAMS = flags.DEFINE_list(
    "programs", "batch,inference,step", "what --dry_run compiles: some of these"
)
_PROFILE = flags.DEFINE_string("profile", "", "FIRST:LAST, the steps to trace to WORKDIR/profile")


def main(argv: list[str]) -> None:
    """Reads the flags, joins the other processes, then trains."""
    del argv
    dry = _DRY_RUN.value or _COMPILE_FOR.value
    if not (dry or _WORKDIR.value):
        raise UserError("give --workdir, the folder of the run, or --dry_run")
    if not _COMPILE_FOR.value:
        distributed.initialize()
    from promptmad_jax.config import parse

    config = parse(_CONFIG.value)
    if dry:
        from promptmad_jax.dry_run.report import dry_run

        dry_run(config, _COMPILE_FOR.value, _PROGRAMS.value)
        return
    say(f"{config.name} in {_WORKDIR.value}: starting")
    from promptmad_jax.commands.train import run_training
    from promptmad_jax.runtime.profiler import parse_steps

    run_training(config, _WORKDIR.value, parse_steps(_PROFILE.value))


if __name__ == "__main__":
    cli.run(main)
