"""An assembled detector with the weights of one state: calibrated, evaluated, reported, served."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from etils import epath

from promptmad_jax.data.image_set import ImageSet
from promptmad_jax.evaluation.calibration import (
    CHOICE,
    NormalImages,
    Probe,
    add_classes,
    add_thresholds,
    calibrate,
    make_probe,
    pseudo_anomaly_ap,
    spread_over,
)
from promptmad_jax.evaluation.class_maps import ClassMaps
from promptmad_jax.evaluation.compat.modes import needs_original_masks
from promptmad_jax.evaluation.compat.original_size import OriginalMasks
from promptmad_jax.evaluation.config import EvalConfig
from promptmad_jax.evaluation.constants import Calibration
from promptmad_jax.evaluation.evaluate import class_maps, evaluate_maps
from promptmad_jax.evaluation.inference import MapMaker
from promptmad_jax.methods.reconstruction.assembly import Assembly
from promptmad_jax.methods.reconstruction.splits import Splits
from promptmad_jax.reporting.diffusion_strip import step_source
from promptmad_jax.reporting.report import Report
from promptmad_jax.runs.restore import restore_step
from promptmad_jax.runs.workdir import Workdir
from promptmad_jax.runtime.processes import ALONE, this_run
from promptmad_jax.serving.predictor import ClassPredictor
from promptmad_jax.training.state import Weights


class TrainedDetector:
    """An assembly with the weights of one state."""

    def __init__(self, assembly: Assembly, weights: Weights):
        self.assembly, self.weights = assembly, weights
        self.config = assembly.config
        self.maker = MapMaker(assembly.programs, weights.params, weights.stats)

    def with_prompts(self, prompts) -> "TrainedDetector":
        """The same weights with other prompt images uint8 [k, S, S, 3] of the first classes."""
        others = np.concatenate([prompts, self.assembly.prompts[len(prompts) :]])
        return TrainedDetector(self.assembly.with_prompts(others), self.weights)

    def probe(self, normal: NormalImages) -> Probe:
        """Maps of normal images; every state of a run sees the same pseudo-anomalies."""
        config = self.config
        return make_probe(self.maker, normal, config.pseudo_anomaly, config.train.seed)

    def calibrate(self, splits: Splits) -> Calibration:
        """The constants of this state, from held-out images or, without any, training images."""
        settings = self.config.eval
        if len(splits.held):
            normal = NormalImages(splits.held, "held-out", None)
        else:
            normal = self._training_images(splits, settings.calibration_images)
        calibration = calibrate(self.probe(normal), normal.source, settings, int(self.weights.step))
        return self.add_thresholds(calibration, splits)

    def add_thresholds(self, calibration: Calibration, splits: Splits) -> Calibration:
        """Thresholds from all normal images that are comparable with new ones, and the pixels that
        do not count."""
        calibration = replace(calibration, ignored=calibration.ignored | splits.train.ignored)
        settings = self.config.eval
        sets = [NormalImages(splits.held, "held-out", None)] if len(splits.held) else []
        if len(splits.train) and (self.config.memory.patches or not sets):
            count = settings.threshold_images * len(splits.train.class_names)
            sets.append(self._training_images(splits, count))
        if splits.enrolled is not None:
            calibration = self.add_enrolled_classes(calibration, splits.enrolled)
            sets.append(self._spread(splits.enrolled, settings.threshold_images))
        names = self.assembly.class_names
        return add_thresholds(calibration, self.maker, names, sets, settings)

    def add_enrolled_classes(self, calibration: Calibration, normal: NormalImages) -> Calibration:
        """Constants, without thresholds, of the classes that were not trained."""
        names = normal.images.class_names
        unknown = [k for k, name in enumerate(names) if name not in calibration.normal]
        rows = np.flatnonzero(np.isin(normal.images.class_ids, unknown))
        if not len(rows):
            return calibration
        settings = self.config.eval
        few = self._spread(normal.select(rows), settings.calibration_images)
        return add_classes(calibration, self.probe(few), settings)

    def _spread(self, normal: NormalImages, per_class: int) -> NormalImages:
        count = per_class * len(normal.images.class_names)
        return normal.select(spread_over(normal.images, count))

    def _training_images(self, splits: Splits, count: int) -> NormalImages:
        rows = spread_over(splits.train, count)
        comparable = bool(self.config.memory.patches)
        source = "training images beside the others" if comparable else "training"
        return NormalImages(splits.train.select(rows), source, rows, comparable)

    def choose(self, splits: Splits, files: Workdir) -> tuple["TrainedDetector", Calibration]:
        """The state that `eval.checkpoint` selects, with its constants: this newest one, or the
        kept checkpoint that is best on held-out images; of equals, the later."""
        if self.config.eval.checkpoint == "last":
            return self, self.calibrate(splits)
        best, scores = None, {}
        checkpoints = files.checkpoints(self.config.train.keep)
        try:
            for step in checkpoints.steps():
                weights = restore_step(self.assembly, checkpoints, step)
                candidate = TrainedDetector(self.assembly, weights)
                probe = candidate.probe(NormalImages(splits.held, "held-out", None))
                calibration = calibrate(probe, "held-out", self.config.eval, step)
                scores[step] = pseudo_anomaly_ap(probe, calibration, self.config.eval.fusion)
                if scores[step] == max(scores.values()):
                    best = candidate, calibration
        finally:
            checkpoints.close()
        detector, calibration = best
        calibration = detector.add_thresholds(calibration, splits)
        return detector, replace(calibration, checkpoint_scores=scores)

    def class_maps(self, test: ImageSet, calibration: Calibration) -> Iterator[ClassMaps]:
        """Yields the maps of each class, whole on every process."""
        return class_maps(self.maker, test, self.config.eval.fusion, calibration)

    def evaluate(
        self, splits: Splits, calibration: Calibration, report: Report | None = None
    ) -> dict:
        """Returns the metrics.json object of this state."""
        config, settings = self.config, self.config.eval
        masks = None
        if needs_original_masks(settings.compat):
            masks = OriginalMasks(config.data.dataset, config.data.data_dir, "test")
        # A report needs whole classes; without one, each process keeps what it makes.
        shared = this_run() if report is None else ALONE
        test = splits.test
        maps = class_maps(self.maker, test, settings.fusion, calibration, masks, shared)
        result = evaluate_maps(
            maps,
            settings,
            calibration.thresholds,
            _origin(calibration, settings),
            report.add if report is not None else None,
            [name for k, name in enumerate(test.class_names) if k not in test.class_ids],
        )
        result["protocol"] |= self._choices(calibration)
        return result

    def _choices(self, calibration: Calibration) -> dict:
        """The entries of the protocol that concern the model."""
        config = self.config
        choices = {
            "fusion": config.eval.fusion,
            "fusion_scale": calibration.fusion_scale,
            "calibration": f"{calibration.source} images",
            "prompt": "none"
            if config.model == "uniad"
            else f"training image {config.eval.prompt_index} of the class, in file order",
            "step": calibration.step,
            "checkpoint": "the newest",
        }
        if calibration.thresholds:
            choices["calibrated"] = _promises(calibration)
        if calibration.weights:
            choices["weights"] = calibration.weights
        if config.memory.patches:
            choices["memory"] = f"{config.memory.patches} patches per class"
        scores = calibration.checkpoint_scores
        if scores:
            choices["checkpoint"] = f"of those kept, that with the highest {CHOICE}"
            choices["checkpoint_scores"] = {str(step): score for step, score in scores.items()}
        return choices

    def report(self, directory: epath.Path) -> Report:
        """An empty report; it shows the diffusion steps of this state where it has any."""
        settings = self.config.eval
        return Report(
            directory,
            image_pool=settings.image_pool,
            aupro_limit=settings.aupro_limit,
            steps=step_source(self.maker, self.assembly.class_names),
        )

    def predictor(self, calibration: Calibration) -> ClassPredictor:
        """Scores new images of the run's classes."""
        settings, names = self.config.eval, self.assembly.class_names
        return ClassPredictor(self.maker, names, calibration, settings.fusion, settings.image_pool)


def _promises(calibration: Calibration) -> dict:
    """The rates asked for and, for each class, what its thresholds stand for."""
    fields = ("images", "rate", "interval")
    classes = {
        name: {field: getattr(own, field) for field in fields}
        | {"comparable": calibration.scores[name].comparable}
        for name, own in calibration.thresholds.items()
    }
    rates = calibration.rates
    return {"image_fpr": rates.image, "pixel_fpr": rates.pixel, "classes": classes}


def _origin(calibration: Calibration, settings: EvalConfig) -> str:
    """The images that the thresholds come from and the rates that they were set for, in words."""
    return (
        f"from normal images ({_listed(calibration)}), set so that about "
        f"{100 * settings.image_fpr:g} % of new normal images and {100 * settings.pixel_fpr:g} % "
        "of normal pixels lie above them"
    )


def _listed(calibration: Calibration) -> str:
    origins = {name: scores.origin for name, scores in calibration.scores.items()}
    if len(set(origins.values())) == 1:
        return f"{next(iter(origins.values()))} per class"
    return "; ".join(f"{name}: {origin}" for name, origin in origins.items())
