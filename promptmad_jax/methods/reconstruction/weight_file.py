"""A detector whose weights come from a file, without a training run of ours."""

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np

from promptmad_jax.config import Config
from promptmad_jax.data.image_set import normal_set
from promptmad_jax.data.levels import Levels
from promptmad_jax.data.preprocess import decode_image, resize_image
from promptmad_jax.methods.reconstruction.assembly import (
    Assembly,
    assemble,
    class_text,
    make_detector,
)
from promptmad_jax.methods.reconstruction.evaluation import finish
from promptmad_jax.methods.reconstruction.splits import Splits, class_prompts, load_splits
from promptmad_jax.methods.reconstruction.trained import TrainedDetector
from promptmad_jax.models.backbone.backbone import build_backbone
from promptmad_jax.models.reconstruction.weights.model_file import BACKBONE, Canonical, read_model
from promptmad_jax.models.reconstruction.weights.onenip import join_params_stats, split_params_stats
from promptmad_jax.runs.manifest import write_manifest
from promptmad_jax.runs.workdir import Workdir
from promptmad_jax.runtime.dataclass_parser import to_dict
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.mesh import replicate
from promptmad_jax.serving.predictor import ClassPredictor
from promptmad_jax.training.state import Weights
from promptmad_jax.weights.files import read_tensors
from promptmad_jax.weights.hub import resolve_file


def load_weights(
    config: Config, path: str, class_names: tuple[str, ...], prompts: np.ndarray
) -> TrainedDetector:
    """The configured model with the weights of a file, of any format that `convert` reads.

    The backbone is the file's, where it holds one, else that of the configuration. The number of
    steps is unknown, and stated as 0.

    Raises:
        UserError: the file cannot be read or is of another model.
    """
    if config.memory.patches:
        raise UserError(
            f"config.memory.patches is {config.memory.patches}, but a weight file has no memory of "
            "normal patches: set memory.patches=0, or evaluate the run that trained it"
        )
    if config.reconstructor.standardize:
        raise UserError(
            "config.reconstructor.standardize is True, but a weight file holds no moments of "
            "features: set it to False, or evaluate the run that trained it"
        )
    backbone, text = build_backbone(config.backbone), class_text(config, class_names)
    network = make_detector(config, backbone, text).network
    model, own = read_model(path, network, backbone)
    frozen = backbone.to_params(own) if own else None
    assembly = assemble(config, class_names, text, prompts, frozen)
    params, stats = replicate(jax.tree.map(np.float32, split_params_stats(model)), assembly.mesh)
    return TrainedDetector(assembly, Weights(0, params, stats))


def evaluate_weights(config: Config, path: str, prompt_images: list[str], output: Workdir) -> dict:
    """The evaluation of a weight file on the configured data set; see `finish` for what it writes.

    Args:
        prompt_images: CLASS=PATH, in place of training images.
    """
    if config.eval.checkpoint != "last":
        raise UserError(
            f"config.eval.checkpoint is {config.eval.checkpoint!r}, but a weight file is a single "
            "state: leave it at 'last'"
        )
    splits = load_splits(config)
    names = splits.train.class_names
    prompts = class_prompts(splits.train, config.eval.prompt_index)
    for spec in prompt_images:
        name, equals, file = spec.partition("=")
        if not equals or name not in names:
            raise UserError(
                f"--prompt_image={spec}: give CLASS=PATH with a class of {', '.join(names)}"
            )
        prompts[names.index(name)] = _prompt(file, config, splits.train.levels)
    detector = load_weights(config, path, names, prompts)
    write_manifest(
        output.manifest,
        to_dict(config),
        config.train.seed,
        splits.train.fingerprint,
        detector.assembly.mesh,
        {
            "weights": str(path),
            "classes": list(names),
            "prompt_images": prompt_images,
            "test_fingerprint": splits.test.fingerprint,
        },
    )
    origin = {"checkpoint": f"none: the weights of {Path(path).name}"}
    if prompt_images:
        given = ", ".join(prompt_images)
        origin["prompt"] = f"given: {given}; else training image {config.eval.prompt_index}"
    return finish(detector, splits, output, output, origin=origin)


def load_weights_predictor(
    config: Config, path: str, class_name: str, prompt_image: str, levels: Levels | None
) -> ClassPredictor:
    """A weight file ready for images of one class.

    The constants of fusion and drawing are read off the prompt image and its pseudo-anomalies. One
    image sets no threshold, so predictions have no verdict.
    """
    if class_name == "auto":
        raise UserError("--class_name=auto needs a trained run; name the class of the prompt image")
    prompts = _prompt(prompt_image, config, levels)[None]
    detector = load_weights(config, path, (class_name,), prompts)
    ids, names = np.zeros(1, np.int32), (Path(prompt_image).name,)
    images = normal_set(prompts, ids, (class_name,), names)
    calibration = detector.calibrate(Splits(images, images.select([]), images))
    return detector.predictor(replace(calibration, thresholds={}, scores={}, gallery={}))


def run_weights(assembly: Assembly, weights: Weights) -> Canonical:
    """A trained model with its backbone under our names, the backbone's BatchNorm not folded."""
    setting = assembly.config.backbone.weights
    if setting in ("random", "shipped"):
        backbone = join_params_stats(assembly.frozen.backbone, {})
    else:
        path = resolve_file(setting, "model.safetensors", setting="backbone.weights")
        backbone = assembly.detector.backbone.read_canonical(read_tensors(path), str(path))
    model = join_params_stats(weights.params, weights.stats)
    model |= {BACKBONE + name: value for name, value in backbone.items()}
    return {name: np.asarray(value) for name, value in model.items()}


def _prompt(path: str, config: Config, levels: Levels | None) -> np.ndarray:
    return resize_image(decode_image(path, levels), config.data.image_size)
