"""Learned parts that a run can begin with, without classes: `bases/BACKBONE.npz`.

config, calibration   JSON; the constants leave out those of classes
moments               of features, where the run has them
others                parameters and statistics of the network by their path
"""

import dataclasses
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from promptmad_jax.config import Config, parse
from promptmad_jax.data.config import DataConfig
from promptmad_jax.evaluation.constants import Calibration, from_json, to_json
from promptmad_jax.runtime.dataclass_parser import to_dict

BASES = Path(__file__).parent / "bases"
_CONFIG, _CALIBRATION, _MOMENTS = "config", "calibration", "moments"


@dataclass(frozen=True, eq=False)
class Base:
    """The learned parts of a run.

    Attributes:
        name: a shipped one's, or the folder of the run.
        config: of a run without a data set.
        calibration: constants without those of classes.
        arrays: parameters and statistics by path; empty where nothing was learned.
        moments: of features, as in `Frozen`, or None.
    """

    name: str
    config: Config
    calibration: Calibration
    arrays: Mapping[str, np.ndarray]
    moments: np.ndarray | None = None


def shipped_bases() -> tuple[str, ...]:
    """The names of the shipped bases, which are those of their backbones."""
    return tuple(sorted(path.stem for path in BASES.glob("*.npz")))


def read_base(name: str) -> Base:
    """One of the shipped bases."""
    with np.load(BASES / f"{name}.npz", allow_pickle=False) as file:
        arrays = dict(file)
    config = parse(json.loads(str(arrays.pop(_CONFIG))))
    calibration = from_json(json.loads(str(arrays.pop(_CALIBRATION))), {})
    moments = arrays.pop(_MOMENTS, None)
    return Base(name, config, calibration, arrays, moments)


def base_bytes(base: Base) -> bytes:
    """The content of a file of `bases`."""
    arrays = dict(base.arrays) | ({} if base.moments is None else {_MOMENTS: base.moments})
    for name, values in (
        (_CONFIG, to_dict(base.config)),
        (_CALIBRATION, to_json(base.calibration)),
    ):
        arrays[name] = np.array(json.dumps(values))
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    return content.getvalue()


def without_data(config: Config) -> Config:
    """The configuration of a run whose classes are enrolled."""
    size, holdout = config.data.image_size, config.data.holdout
    data = DataConfig(dataset="", data_dir="", image_size=size, holdout=holdout)
    return dataclasses.replace(config, data=data)
