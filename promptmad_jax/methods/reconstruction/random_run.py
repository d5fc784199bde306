"""A run's folder as training leaves it, with random arrays: for measuring `predict`."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from promptmad_jax.evaluation.constants import Calibration
from promptmad_jax.evaluation.fusion import Moments, NormalMaps
from promptmad_jax.evaluation.thresholds import Thresholds
from promptmad_jax.methods.reconstruction.assembly import Assembly
from promptmad_jax.runs.memory_file import write_memory
from promptmad_jax.runs.workdir import Workdir
from promptmad_jax.runtime.dataclass_parser import to_dict
from promptmad_jax.training.memory import TrainMemory
from promptmad_jax.training.state import TrainState
from promptmad_jax.weights.files import write_tensors

_IMAGE_SHAPE = (480, 640, 3)


def write_run(assembly: Assembly, state: TrainState, directory: Path) -> Path:
    """Writes checkpoint, bank, calibration and the backbone's weights; returns an image file."""
    weights = directory / "backbone.safetensors"
    leaves = jax.tree_util.tree_leaves_with_path(assembly.frozen.backbone)
    name = lambda path: jax.tree_util.keystr(path, simple=True, separator="/")
    write_tensors(weights, {name(path): np.asarray(leaf) for path, leaf in leaves})
    backbone = dataclasses.replace(assembly.config.backbone, weights=str(weights))
    config = dataclasses.replace(assembly.config, backbone=backbone)
    files = Workdir(str(directory))
    checkpoints = files.checkpoints(config.train.keep)
    checkpoints.save(0, state)
    checkpoints.write_config(to_dict(config))
    checkpoints.close()
    files.write_bank(assembly.class_names, assembly.prompts, assembly.text)
    if assembly.frozen.memory is not None:
        memory = jax.tree.map(np.asarray, assembly.frozen.memory)
        write_memory(files, TrainMemory(memory, np.zeros((0, 1, 1), np.int32)), "random")
    files.write_calibration(_calibration(assembly.class_names))
    pixels = np.random.default_rng(0).integers(0, 256, _IMAGE_SHAPE, np.uint8)
    Image.fromarray(pixels).save(directory / "image.png")
    return directory / "image.png"


def _calibration(class_names: tuple[str, ...]) -> Calibration:
    same = lambda value: dict.fromkeys(class_names, value)
    moments = NormalMaps(*[Moments(0.0, 1.0)] * len(NormalMaps._fields))
    constants = same(moments), same((0.0, 1.0)), same(Thresholds(0.5, 0.5, 1))
    return Calibration("training", 1.0, *constants, weights={"segmentation": 1.0})
