"""Which state of a run is evaluated and used, and the constants that belong to it."""

from dataclasses import replace

from promptmad_jax.data.image_set import ImageSet
from promptmad_jax.evaluation.calibration import (
    Calibration,
    Probe,
    calibrate,
    make_probe,
    pseudo_anomaly_ap,
    spread_over,
)
from promptmad_jax.evaluation.inference import MapMaker
from promptmad_jax.methods.reconstruction.assembly import Experiment, Splits
from promptmad_jax.runs.workdir import Workdir
from promptmad_jax.training.state import TrainState, abstract_state


def choose_state(
    experiment: Experiment, maker: MapMaker, state: TrainState, splits: Splits, files: Workdir
) -> tuple[TrainState, Calibration]:
    """The state that `eval.checkpoint` stands for, with its constants: this newest one, or that of
    the kept checkpoints which is the best on held-out images; of equals, the later."""
    config = experiment.config
    if config.eval.checkpoint == "last":
        return state, calibrate_state(experiment, maker, state, splits)
    best, scores = None, {}
    checkpoints = files.checkpoints(config.train.keep)
    try:
        for step in checkpoints.steps():
            candidate = checkpoints.restore(step, abstract_state(state))
            probe = probe_state(experiment, maker, candidate, splits.held)
            calibration = calibrate(probe, "held-out", config.eval, step)
            scores[step] = pseudo_anomaly_ap(probe, calibration, config.eval.fusion)
            if scores[step] == max(scores.values()):
                best = candidate, calibration
    finally:
        checkpoints.close()
    return best[0], replace(best[1], checkpoint_scores=scores)


def calibrate_state(
    experiment: Experiment, maker: MapMaker, state: TrainState, splits: Splits
) -> Calibration:
    """The constants of this state, from held-out images or, without any, from training images."""
    settings = experiment.config.eval
    if len(splits.held):
        images, source = splits.held, "held-out"
    else:
        images, source = spread_over(splits.train, settings.calibration_images), "training"
    probe = probe_state(experiment, maker, state, images)
    return calibrate(probe, source, settings, int(state.step))


def probe_state(
    experiment: Experiment, maker: MapMaker, state: TrainState, images: ImageSet
) -> Probe:
    """The state's maps of normal images; every state of a run sees the same pseudo-anomalies."""
    config = experiment.config
    return make_probe(
        maker, state.params, state.stats, images, config.pseudo_anomaly, config.train.seed
    )
