"""The beginning of a run whose classes are enrolled."""

import dataclasses

from promptmad_jax.config import parse, relocated
from promptmad_jax.data.levels import Levels
from promptmad_jax.evaluation.constants import Calibration
from promptmad_jax.methods.method import open_method
from promptmad_jax.runs.base import Base, read_base, shipped_bases, without_data
from promptmad_jax.runs.workdir import Workdir
from promptmad_jax.runtime import outputs
from promptmad_jax.runtime.config_file import load_config
from promptmad_jax.runtime.console import warn
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.paths import absolute

_OWN = "efficientnetv2_nano"  # The one backbone whose weights ship.


def begin(workdir: str, name: str, weights: str = "", bit_depth: int | None = None) -> None:
    """Begins a run in a new folder; does nothing where it was begun in the same way already.

    Args:
        name: of a base that is shipped, of another backbone, or the folder of a run.
        weights: the backbone's; "" takes those that the base names.
        bit_depth: of images of more than 8 bits.

    Raises:
        UserError: there is no such base, the folder holds another run, or the weights are missing.
    """
    base = _find(name)
    config = relocated(base.config, "", weights)
    if not base.arrays:
        warn(
            f"nothing learned is shipped for {name}, only for {', '.join(shipped_bases())}: the "
            "memory of normal patches works alone"
        )
    if name == _OWN:
        warn(
            f"{_OWN} has only seen drawn pictures and finds little in those of a camera: for them "
            "take --base=efficientnetv2_b0, with its weights from the hub or by --backbone_weights"
        )
    if config.backbone.weights == "random":
        warn("the backbone is random and finds little: name its weights by --backbone_weights")
    levels = Levels.of_bits(bit_depth) if bit_depth else None
    with outputs.claim(workdir, outputs.TRAIN, "--workdir") as folder:
        open_method(config).begin(Workdir(folder), base, levels)


def _find(name: str) -> Base:
    if name in shipped_bases():
        return read_base(name)
    files = Workdir(absolute(name))
    if (files.path / "checkpoints").exists():
        return open_method(files.config()).base(files)
    source = "quickstart.py" if name == _OWN else f"promptmad_folder.py:backbone={name}"
    try:
        config = parse(load_config(source))
    except UserError as error:
        raise UserError(f"--base={name} is neither a run nor a known backbone: {error}") from error
    # Moments standardise what a reconstruction is fed, which is left out beside a memory.
    parts = {"reconstructor": {"standardize": False}, "train": {"steps": 0}}
    changed = {
        group: dataclasses.replace(getattr(config, group), **values)
        for group, values in parts.items()
    }
    config = without_data(dataclasses.replace(config, name="base", **changed))
    return Base(name, config, Calibration("enrolled", 0.0, {}, {}, {}, weights={"memory": 1.0}), {})
