"""Compares an artifact's ONNX form with its own programs on images of a class.

python -m tools.measure_onnx ARTIFACT CLASS_NAME IMAGE...
"""

import sys
import time
from importlib import import_module
from pathlib import Path

import numpy as np
from PIL import Image

from promptmad_jax.serving.artifact import Artifact
from promptmad_jax.serving.result import make_result


def main(folder: str, class_name: str, *files: str) -> None:
    """Prints the errors relative to the maps' highest values, the verdicts and the times."""
    artifact = Artifact(folder).predictor()
    sys.path.insert(0, str(Path(folder, "onnx")))
    detector = import_module("detect").Detector(Path(folder))
    rows = []
    for file in files:
        image = Image.open(file).convert("RGB")
        began = time.perf_counter()
        ours = artifact([np.asarray(image)], class_name)[0]
        middle = time.perf_counter()
        verdict, score, values = detector(image, class_name)
        seconds = middle - began, time.perf_counter() - middle
        error = np.abs(values - ours.anomaly_map).max() / np.abs(ours.anomaly_map).max()
        same = make_result(ours, *image.size[::-1]).verdict == verdict
        rows.append((same, error <= 1e-4, error, abs(score - ours.score), *seconds))
    same, close, errors, scores, jax, onnx = map(np.array, zip(*rows, strict=True))
    print(f"{len(files)} images: {same.sum()} verdicts equal, {close.sum()} maps within 1e-4, all")
    print(f"within {errors.max():.1e}, scores within {scores.max():.1e}; median times: JAX")
    print(f"{1000 * np.median(jax):.0f} ms, ONNX {1000 * np.median(onnx):.0f} ms")


if __name__ == "__main__":
    main(*sys.argv[1:])
