"""PromptMAD, OneNIP and DAPO in JAX: multi-class visual anomaly localization."""

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from promptmad_jax.serving.detector import LoadedDetector

if sys.argv[:1] == ["-m"]:  # So it is called while Python imports the package of a `-m` command.
    from promptmad_jax.runtime.interrupts import listen

    listen()

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def load(path: str | os.PathLike, defects: str = "") -> "LoadedDetector":
    """Loads the detector of a trained run, or an exported one.

    Args:
        path: the run's folder, the `--workdir` of `promptmad train`; or what `promptmad export`
            wrote.
        defects: for a zero-shot run, the defects to look for: words with commas between.

    Raises:
        UserError: the folder holds no trained run, or one that is damaged or not yet evaluated.
    """
    from promptmad_jax.serving.artifact_files import is_artifact

    if is_artifact(path):
        from promptmad_jax.serving.artifact import load_artifact

        return load_artifact(path)
    from promptmad_jax.methods.load import load_detector

    return load_detector(path, defects)
