"""Trains as `promptmad_jax.train` does, but keeps nothing, and evaluates with given constants.

Writes the losses of all steps and the metrics as JSON; every process computes, one writes.
"""

import json
import pathlib

from absl import flags
from ml_collections import config_flags

from promptmad_jax.runtime import cli, distributed

_CONFIG = config_flags.DEFINE_config_file("config", None, lock_config=True)
_CONSTANTS = flags.DEFINE_string("constants", None, "the workdir of a run, for its calibration")
_OUTPUT = flags.DEFINE_string("output", None, "the JSON file")


def main(argv):
    distributed.initialize()
    from promptmad_jax import run
    from promptmad_jax.config import parse
    from promptmad_jax.evaluation_run import evaluate_state
    from promptmad_jax.experiment import build_experiment, class_prompts, class_text, load_splits
    from promptmad_jax.runtime.processes import is_writer
    from promptmad_jax.workdir import Workdir

    config = parse(_CONFIG.value)
    splits = load_splits(config)
    names = splits.train.class_names
    experiment = build_experiment(config, names, class_text(config, names))
    state, losses = train(run, experiment, splits.train)
    maker = experiment.map_maker(class_prompts(splits.train, config.eval.prompt_index))
    calibration = Workdir(_CONSTANTS.value).read_calibration()
    result = evaluate_state(experiment, maker, state, splits, calibration)
    if is_writer():
        found = {"losses": losses, "mean": result["mean"]}
        pathlib.Path(_OUTPUT.value).write_text(json.dumps(found))


def train(run, experiment, images):
    import jax

    from promptmad_jax.data.pipeline import BatchOrder
    from promptmad_jax.runtime.mesh import partition_rules
    from promptmad_jax.training.state import create_state
    from promptmad_jax.training.step import make_train_step

    config = experiment.config
    steps, schedule, tx = run._optimizer(config, len(images))
    state, _ = create_state(
        experiment.detector.network,
        tx,
        config.train.seed,
        experiment.mesh,
        partition_rules(config.mesh),
    )
    shardings = jax.tree.map(lambda x: x.sharding, state)
    source = run._source(experiment, images, images.images)
    order = BatchOrder(config.train.seed, images.class_ids, config.train.batch_size, len(images))
    step_function = make_train_step(
        experiment.detector,
        tx,
        schedule,
        config.pseudo_anomaly,
        config.loss,
        experiment.mesh,
        shardings,
    )
    losses = []
    for step in range(steps):
        state, metrics = step_function(state, experiment.frozen, source(order(step)))
        losses.append({name: float(value) for name, value in metrics.items()})
    return state, losses


if __name__ == "__main__":
    cli.run(main)
