"""Warnings that a reader needs before the figures of a run."""

import math
from collections.abc import Iterator, Mapping, Sequence

from promptmad_jax.evaluation.thresholds import unsupported
from promptmad_jax.reporting.decisions import Decisions, calibration, class_decisions, rounded

# A random backbone trained for fewer steps only shows that the program runs.
MEANINGFUL_STEPS = 100
# A measured rate this many times the one asked for is worth a warning.
FAR = 2
_LISTED = 5


def setting_warnings(config: Mapping, steps: int | None) -> Iterator[str]:
    """Yields what makes the figures of a run with random weights worthless.

    Args:
      config: the whole configuration, as in the manifest.
      steps: of the training; None or -1 if unknown.
    """
    group = "clip" if config["model"] == "zero_shot" else "backbone"
    if config[group]["weights"] != "random":
        return
    if steps and 0 < steps < MEANINGFUL_STEPS:
        yield (
            f"these figures mean nothing: {steps} training steps on random weights, as in a smoke "
            "test, show that the program runs, and no more"
        )
    else:
        yield (
            f"{group}.weights is random, so that little is found: name a file or a model of the "
            f"hub, --config.{group}.weights=..."
        )


def run_warnings(result: Mapping, manifest: Mapping) -> list[str]:
    """Warnings for the reader of a run: its weights, its training, its thresholds."""
    return [
        *_untested(result),
        *_training(result, manifest),
        *_calibration(result),
        *_rates(result),
    ]


def _untested(result: Mapping) -> Iterator[str]:
    """Yields what cannot be known of classes without test images."""
    counts = result["protocol"]["images"].items()
    names = {name: "" for name, count in counts if not any(count.values())}
    if names:
        yield (
            f"no test images of {_listed(names)}: which defects are found is not known, only the "
            "rate of false alarms that the thresholds were set for"
        )


def training_warnings(result: Mapping, manifest: Mapping) -> list[str]:
    """Those of `run_warnings` that concern weights and training."""
    return list(_training(result, manifest))


def _training(result: Mapping, manifest: Mapping) -> Iterator[str]:
    # A weight file does not say its step.
    step = result["protocol"].get("step")
    if "trained_on_test_split" in manifest:
        yield manifest["trained_on_test_split"]["warning"]
    if "config" in manifest:
        config = manifest["config"]
        settings = list(setting_warnings(config, step))
        yield from settings
        images = manifest.get("train_images", 0)
        if not settings and step and step * config["train"]["batch_size"] < images:
            yield f"{step} training steps see only some of the {images} training images"
    if not step and "memory" in result["protocol"]:
        yield "nothing is trained: the figures are those of the memory of normal patches alone"
    memory = memory_alone(result)
    if memory and all(_below(result["mean"], memory, m) for m in ("image_auroc", "pixel_ap")):
        yield "training made it worse than its memory alone, in image AUROC and in pixel AP"


def memory_alone(result: Mapping) -> Mapping | None:
    """The means of the memory's map, which takes no training; None where they add nothing."""
    if "memory" not in result["maps"] or not result["protocol"].get("step"):
        return None
    return result["maps"]["memory"]["mean"]


def _below(mean: Mapping, other: Mapping, metric: str) -> bool:
    return None not in (mean[metric], other[metric]) and mean[metric] < other[metric]


def _calibration(result: Mapping) -> Iterator[str]:
    known = calibration(result)
    if not known:
        return
    classes = known["classes"]
    few = {
        name: str(own["images"])
        for name, own in classes.items()
        if unsupported(own["images"], known["image_fpr"])
    }
    if few:
        needed = math.ceil(1 / known["image_fpr"]) if known["image_fpr"] else "infinitely many"
        yield (
            f"too few normal images set the thresholds: {rounded(known['image_fpr'])} % false "
            f"alarms take about {needed} per class ({_listed(few)})"
        )
    if not all(own["comparable"] for own in classes.values()):
        yield (
            "the thresholds come from images that the model was trained on, which score lower than "
            "new ones: expect more false alarms; data.holdout keeps images back for them"
        )


def _rates(result: Mapping) -> Iterator[str]:
    known, classes = calibration(result), class_decisions(result)
    if not known:
        return
    images = {
        name: f"{rounded(own.alarms.share)} %"
        for name, own in classes.items()
        if _is_far(own, known["image_fpr"])
    }
    pixels = {
        name: f"{rounded(own.pixel_alarms)} %"
        for name, own in classes.items()
        if own.pixel_alarms is not None and own.pixel_alarms > FAR * known["pixel_fpr"]
    }
    for what, far, asked in (
        ("good images raise an alarm", images, known["image_fpr"]),
        ("pixels of good images lie above the threshold", pixels, known["pixel_fpr"]),
    ):
        if far:
            yield f"more {what} than the {rounded(asked)} % asked for: {_listed(far)}"


def _is_far(own: Decisions, asked: float) -> bool:
    """Returns True if the images' rate is far above the one asked for, and not by chance."""
    if own.alarms is None:
        return False
    return own.alarms.share > FAR * asked and own.alarms.interval[0] > asked


def _listed(values: Mapping[str, str]) -> str:
    words: Sequence[str] = [f"{name} {value}".strip() for name, value in values.items()]
    if len(words) > _LISTED:
        words = [*words[:_LISTED], f"and {len(words) - _LISTED} more"]
    return ", ".join(words)
