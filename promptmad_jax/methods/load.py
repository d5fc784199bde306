"""Loads a run's detector for use from Python."""

import os

from promptmad_jax.methods.method import open_method
from promptmad_jax.runs.workdir import Workdir
from promptmad_jax.serving.detector import LoadedDetector


def load_detector(path: str | os.PathLike, defects: str) -> LoadedDetector:
    """See `promptmad_jax.load`."""
    files = Workdir(os.path.expanduser(path))
    return LoadedDetector(open_method(files.config()).predictor(files, defects), files.levels())
