"""Evaluates a trained run, or a file of weights.

    promptmad evaluate --workdir=runs/mine
    promptmad evaluate --workdir=runs/zero_shot --dataset=visa --output=runs/on_visa
    promptmad evaluate --config=onenip_mvtec.py --weights=onenip.safetensors --output=runs/onenip

Writes metrics.json and report/index.html.
"""

from absl import flags

from promptmad_jax.runtime import cli, distributed
from promptmad_jax.runtime.config_file import define_config_flag
from promptmad_jax.runtime.console import say
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.paths import define_path

_WORKDIR = define_path("workdir", "the working directory of a trained run")
_OUTPUT = define_path("output", "folder for the results; the workdir if empty")
_DATA_DIR = define_path("data_dir", "folder of the prepared data set, if it has moved")
_BACKBONE_WEIGHTS = define_path(
    "backbone_weights", "the backbone's or CLIP's weights (file, folder or hub id), if they moved"
)
_DATASET = flags.DEFINE_string(
    "dataset",
    "",
    "another prepared data set, of whose test images those of the run's classes are taken",
)
_TAXONOMY = define_path(
    "taxonomy", "zero-shot runs: replaces data.taxonomy, or says where it has moved"
)
_CONFIG = define_config_flag("configuration of the model that --weights are for")
_WEIGHTS = define_path("weights", "a file of weights in place of a trained run")
_PROMPTS = flags.DEFINE_integer(
    "prompts", 1, "with --workdir: prompt images per class, to measure their spread", lower_bound=1
)
_PROMPT_IMAGE = flags.DEFINE_multi_string(
    "prompt_image", [], "with --weights: CLASS=PATH, a normal image in place of a training image"
)


def main(argv: list[str]) -> None:
    """Reads the flags, joins the other processes, then evaluates."""
    del argv
    distributed.initialize()
    say(f"evaluating {_WORKDIR.value or _WEIGHTS.value or ''}")
    from promptmad_jax.commands.evaluate import evaluate_run, evaluate_weights
    from promptmad_jax.config import parse, relocated
    from promptmad_jax.methods.method import EvaluationRequest
    from promptmad_jax.runs.workdir import Workdir

    config = None if _CONFIG.value is None else parse(_CONFIG.value)
    if _WEIGHTS.value and not _WORKDIR.value:
        config = config and relocated(config, _DATA_DIR.value, _BACKBONE_WEIGHTS.value)
        evaluate_weights(config, _WEIGHTS.value, _PROMPT_IMAGE.value, _OUTPUT.value)
        return
    if _WEIGHTS.value or not _WORKDIR.value or config is not None or _PROMPT_IMAGE.value:
        raise UserError("give --workdir alone, or --weights with --config and --output")
    output = Workdir(_OUTPUT.value or _WORKDIR.value)
    request = EvaluationRequest(
        output,
        _DATA_DIR.value,
        _BACKBONE_WEIGHTS.value,
        _DATASET.value,
        _TAXONOMY.value,
        _PROMPTS.value,
    )
    evaluate_run(_WORKDIR.value, request)


if __name__ == "__main__":
    cli.run(main)
