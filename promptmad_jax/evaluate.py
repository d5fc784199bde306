"""Evaluates a trained run, or a file of weights.

    promptmad evaluate --workdir=runs/mine
    promptmad evaluate --workdir=runs/zero_shot --dataset=visa --output=runs/on_visa
    promptmad evaluate --config=onenip_mvtec.py --weights=onenip.safetensors --output=runs/onenip

Writes metrics.json and report/index.html.
"""

import dataclasses

from absl import flags

from promptmad_jax.runtime import cli, distributed
from promptmad_jax.runtime.config_file import define_config_flag
from promptmad_jax.runtime.errors import UserError

_WORKDIR = flags.DEFINE_string("workdir", "", "the working directory of a trained run")
_OUTPUT = flags.DEFINE_string("output", "", "folder for the results; the workdir if empty")
_DATA_DIR = flags.DEFINE_string("data_dir", "", "folder of the prepared data set, if it has moved")
_DATASET = flags.DEFINE_string(
    "dataset", "", "zero-shot runs: a prepared data set other than that of the configuration"
)
_TAXONOMY = flags.DEFINE_string("taxonomy", "", "zero-shot runs: replaces data.taxonomy")
_CONFIG = define_config_flag("configuration of the model that --weights are for")
_WEIGHTS = flags.DEFINE_string("weights", "", "a file of weights in place of a trained run")
_PROMPTS = flags.DEFINE_integer(
    "prompts", 1, "with --workdir: prompt images per class, to measure their spread", lower_bound=1
)
_PROMPT_IMAGE = flags.DEFINE_multi_string(
    "prompt_image", [], "with --weights: CLASS=PATH, a normal image in place of a training image"
)


def main(argv: list[str]) -> None:
    """Reads the flags, joins the other processes, then evaluates."""
    distributed.initialize()
    from promptmad_jax.config import ZERO_SHOT, parse
    from promptmad_jax.methods.reconstruction.evaluation import run_evaluation
    from promptmad_jax.methods.reconstruction.weight_file import evaluate_weights
    from promptmad_jax.runs.workdir import Workdir

    del argv
    if _WEIGHTS.value:
        if _WORKDIR.value or _CONFIG.value is None or not _OUTPUT.value:
            raise UserError("--weights goes with --config and --output, without --workdir")
        config, output = parse(_CONFIG.value), Workdir(_OUTPUT.value)
        evaluate_weights(_at(config), _WEIGHTS.value, _PROMPT_IMAGE.value, output)
        return
    if not _WORKDIR.value or _CONFIG.value is not None or _PROMPT_IMAGE.value:
        raise UserError("give --workdir alone, or --weights with --config and --output")
    files = Workdir(_WORKDIR.value)
    config, output = files.config(), Workdir(_OUTPUT.value or _WORKDIR.value)
    if config.model == ZERO_SHOT:
        _evaluate_zero_shot(config, files, output)
        return
    if _DATASET.value or _TAXONOMY.value:
        raise UserError("--dataset and --taxonomy are for zero-shot runs; others know one data set")
    run_evaluation(_at(config), files, output, _PROMPTS.value)


def _evaluate_zero_shot(config, files, output) -> None:
    from promptmad_jax.methods.zero_shot.assembly import on_other_data
    from promptmad_jax.methods.zero_shot.evaluation import run_zero_shot_evaluation

    if _PROMPTS.value > 1:
        raise UserError("--prompts: a zero-shot detector takes no prompt image; leave it out")
    if (_DATASET.value or _TAXONOMY.value) and not _OUTPUT.value:
        raise UserError(
            "--dataset and --taxonomy go with --output, so that the run keeps its own figures"
        )
    run_zero_shot_evaluation(
        on_other_data(config, _DATASET.value, _DATA_DIR.value, _TAXONOMY.value), files, output
    )


def _at(config):
    """The configuration with its data where --data_dir says."""
    if not _DATA_DIR.value:
        return config
    return dataclasses.replace(
        config, data=dataclasses.replace(config.data, data_dir=_DATA_DIR.value)
    )


if __name__ == "__main__":
    cli.run(main)
