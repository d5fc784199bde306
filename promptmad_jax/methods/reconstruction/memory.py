"""The memory of a training run: made once, kept in its folder."""

import hashlib
import json

import numpy as np

from promptmad_jax.config import Config
from promptmad_jax.data.image_set import ImageSet
from promptmad_jax.runs.memory_file import StoredMemory, read_memory, write_memory
from promptmad_jax.runs.workdir import Workdir
from promptmad_jax.runtime.dataclass_parser import to_dict
from promptmad_jax.runtime.processes import is_writer, jointly, this_run
from promptmad_jax.training.memory import make_memory


def run_memory(
    config: Config, files: Workdir, train: ImageSet, patches: np.ndarray, weights: str | None
) -> StoredMemory:
    """The memory in the run's folder, made first where it is missing or of another run.

    The first process makes it, on one device, and all read it, so that they and later runs on
    other devices have the same.

    Args:
        patches: features [N, h, w, C] of the training images.
        weights: digest of the backbone's weights.
    """
    settings = to_dict(config)
    # Neither the place of the weights nor the lowering decides what is in it.
    backbone = {k: v for k, v in settings["backbone"].items() if k not in ("weights", "depthwise")}
    known = [train.fingerprint, weights, backbone, settings["memory"], str(patches.dtype)]
    made_from = hashlib.sha256(json.dumps(known).encode()).hexdigest()

    def ready() -> StoredMemory:
        stored = read_memory(files)
        if stored is not None and stored.made_from == made_from:
            return stored
        trained = make_memory(patches, train.class_ids, train.class_names, config.memory)
        return write_memory(files, trained, made_from)

    run = this_run()
    first = jointly(run, lambda: ready() if is_writer() else None)
    return jointly(run, lambda: read_memory(files) if first is None else first)
