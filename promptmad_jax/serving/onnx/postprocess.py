"""From the outputs of `detector.onnx` to a verdict: arithmetic, to be copied or translated."""

import base64
import zlib

import numpy as np


def final_map(maps: dict[str, np.ndarray], normal: dict, weights: dict[str, float]) -> np.ndarray:
    """Adds maps [S, S], each in standard deviations of the class's normal pixels."""
    parts = dict(maps)
    if "corrected" in maps:
        parts["segmentation"] = maps["corrected"]
    elif "refined" in maps or "coarse" in maps:
        p = np.clip(maps.get("refined", maps.get("coarse")), 1e-7, 1 - 1e-7)
        parts["segmentation"] = np.log(p) - np.log1p(-p)
    return sum(w * (parts[name] - normal[name][0]) / normal[name][1] for name, w in weights.items())


def image_score(values: np.ndarray, pool: int) -> float:
    """The highest mean of pool x pool pixels."""
    windows = np.lib.stride_tricks.sliding_window_view(values.astype(np.float64), (pool, pool))
    return float(windows.mean((2, 3)).max())


def novelty(description: np.ndarray, gallery: np.ndarray) -> float:
    """Distance of a description [D] from the nearest of [n, D], in the class's deviations."""
    deviation = gallery.std(0)
    scale = deviation + 0.05 * np.median(deviation) + 1e-6
    return float(np.sqrt((((gallery - description) / scale) ** 2).mean(1).min()))


def verdict(
    outputs: dict[str, np.ndarray], gallery: np.ndarray, name: str, constants: dict, pool: int
) -> tuple[str, float, np.ndarray]:
    """Verdict, score and anomaly map [S, S] of one image of the class `name`.

    Regions of defects are where the map is above `thresholds[name]["region"]`.

    Args:
        outputs: the program's maps [S, S] by name, and `description` [D].
        gallery: descriptions [n, D] of the class's normal images.
        constants, pool: calibration.json; `image_pool` of manifest.json.
    """
    maps, limits = dict(outputs), constants["thresholds"][name]
    unlike = novelty(maps.pop("description"), gallery)
    parts = ("reconstruction", "segmentation", "memory")
    normal = dict(zip(parts, constants["normal"][name], strict=True))
    values = final_map(maps, normal, constants["weights"])
    if name in constants.get("ignored", {}):  # pixels that do not count, one bit each
        size, text = constants["ignored"][name]
        bits = np.frombuffer(zlib.decompress(base64.b85decode(text)), np.uint8)
        mask = np.unpackbits(bits, count=size * size).reshape(size, size) > 0
        values = np.where(mask, constants["score_range"][name][0], values)
    score = image_score(values, pool)
    if unlike > (limits["novelty"] or np.inf):
        return "unknown", score, values
    return "defective" if score > limits["image"] else "normal", score, values
