"""Runs that begin with learned parts and without classes, which are enrolled then."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np

from promptmad_jax.config import Config
from promptmad_jax.data.levels import PIXEL_RANGE, Levels
from promptmad_jax.methods.reconstruction.assembly import backbone_weights, make_detector
from promptmad_jax.methods.reconstruction.classes import without_classes
from promptmad_jax.methods.reconstruction.trained import TrainedDetector
from promptmad_jax.models.backbone.backbone import build_backbone, load_backbone
from promptmad_jax.models.reconstruction.memory import Memory
from promptmad_jax.models.reconstruction.weights.onenip import join_params_stats, split_params_stats
from promptmad_jax.runs.base import Base, without_data
from promptmad_jax.runs.manifest import write_manifest
from promptmad_jax.runs.memory_file import ENTRY as MEMORY
from promptmad_jax.runs.memory_file import MEMORY_FILE, memory_bytes
from promptmad_jax.runs.resume import newest_step
from promptmad_jax.runs.workdir import Workdir
from promptmad_jax.runtime.console import say
from promptmad_jax.runtime.dataclass_parser import to_dict
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.files import write_bytes_atomic
from promptmad_jax.runtime.mesh import make_mesh, replicate
from promptmad_jax.training.loop import save_untrained
from promptmad_jax.training.memory import TrainMemory
from promptmad_jax.training.state import Weights

_ENTRY = "base"  # of the manifest


def base_of(detector: TrainedDetector, files: Workdir) -> Base:
    """The learned parts of a run with a memory."""
    config, weights = detector.config, detector.weights
    if not config.memory.patches:
        raise UserError(
            f"{files.path} has no memory of normal patches, the part that takes new classes: give "
            "--base another run"
        )
    arrays = join_params_stats(weights.params, weights.stats)
    return Base(
        str(files.path),
        without_data(config),
        without_classes(files.read_calibration()),
        {name: np.asarray(value) for name, value in arrays.items()},
        files.read_bank()[3],
    )


def begin(config: Config, files: Workdir, base: Base, levels: Levels | None) -> None:
    """Writes a run without classes; does nothing where it was begun with the same base already.

    Args:
        config: of the base, with the backbone's weights in their place.
        levels: of the images that will be enrolled, if they have more than 8 bits.

    Raises:
        UserError: the folder holds another run, or the backbone's weights are missing.
    """
    if newest_step(files) is not None:
        begun = (files.read_manifest() or {}).get(_ENTRY)
        if begun != base.name:
            raise UserError(
                f"--base={base.name}: {files.path} holds a run that began with "
                + (f"--base={begun}" if begun else "a training")
                + "; leave --base out to enrol in that run, or give another --workdir"
            )
        return
    say(f"beginning {files.path} with {base.name}")
    load_backbone(config.backbone)  # Refuses weights of another network before anything is written.
    frozen, size = backbone_weights(config).facts(), config.data.image_size
    none = Memory(*(np.zeros(shape, np.float32) for shape in ((0, 0, 0), *[(0, 0)] * 4)))
    memory = memory_bytes(TrainMemory(none, np.zeros((0, 0, 0), np.int32)), "")
    write_bytes_atomic(files.path / MEMORY_FILE, memory)
    files.write_bank((), np.zeros((0, size, size, 3), np.uint8), None, base.moments)
    files.write_calibration(base.calibration)
    mesh = make_mesh(config.mesh)
    facts = {
        _ENTRY: base.name,
        "classes": [],
        "train_images": 0,
        PIXEL_RANGE: levels and levels.to_json(),
        MEMORY: hashlib.sha256(memory).hexdigest(),
    }
    settings = to_dict(config)
    write_manifest(files.manifest, settings, config.train.seed, "", mesh, facts | frozen)
    checkpoints = files.checkpoints(config.train.keep)
    try:
        checkpoints.write_config(settings)
        save_untrained(replicate(_weights(config, base), mesh), checkpoints)
    finally:
        checkpoints.close()


def _weights(config: Config, base: Base) -> Weights:
    """The base's, or those of a network that has learned nothing."""
    step = jnp.int32(base.calibration.step)
    if base.arrays:
        return Weights(step, *split_params_stats(base.arrays))
    network = make_detector(config, build_backbone(config.backbone), None).network
    return Weights(step, *network.init(jax.random.key(config.train.seed)))
