"""Verdicts of an exported detector by ONNX Runtime: needs numpy, onnxruntime and pillow alone.

    python detect.py CLASS_NAME IMAGE...

It lies in the folder `onnx` of an artifact and reads the files around it. What follows the program
is plain arithmetic, to be copied or translated: `final_map`, `image_score`, `novelty`, `Detector`.
Images have 8 bits. Regions of defects are where the map is above `thresholds[...]["region"]`.
"""

import base64
import hashlib
import io
import json
import sys
import zlib
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


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
    """Distance [D] from the nearest normal image [n, D], in the class's standard deviations."""
    deviation = gallery.std(0)
    scale = deviation + 0.05 * np.median(deviation) + 1e-6
    return float(np.sqrt((((gallery - description) / scale) ** 2).mean(1).min()))


def unpacked(size: int, text: str) -> np.ndarray:
    """Pixels that do not count, bool [S, S], as the calibration keeps them."""
    bits = np.frombuffer(zlib.decompress(base64.b85decode(text)), np.uint8)
    return np.unpackbits(bits, count=size * size).reshape(size, size) > 0


class Detector:
    """The detector of an artifact's folder."""

    def __init__(self, folder: Path):
        self.manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        self.constants = json.loads(self._checked(folder, "calibration.json"))
        self.gallery = np.load(io.BytesIO(self._checked(folder, "normal_images.npz")))
        onnxruntime.set_default_logger_severity(3)  # Not of constants that nothing uses.
        self.session = onnxruntime.InferenceSession(self._checked(folder, "onnx/detector.onnx"))

    def _checked(self, folder: Path, name: str) -> bytes:
        content = (folder / name).read_bytes()
        if hashlib.sha256(content).hexdigest() != self.manifest["files"][name]:
            raise ValueError(f"{folder / name} is damaged: its checksum differs")
        return content

    def __call__(self, image: Image.Image, class_name: str) -> tuple[str, float, np.ndarray]:
        """Verdict, score and anomaly map [S, S] of an image."""
        if image.mode[0] in "IF":
            raise ValueError("this way takes images of 8 bits")
        size, k = self.manifest["image_size"], self.manifest["class_names"].index(class_name)
        upright = ImageOps.exif_transpose(image).convert("RGB")
        images = np.asarray(upright.resize((size, size), Image.Resampling.BILINEAR))[None]
        outputs = self.session.run(None, {"images": images, "class_ids": np.int32([k])})
        maps = {o.name: v[0] for o, v in zip(self.session.get_outputs(), outputs, strict=True)}
        description, constants = maps.pop("description"), self.constants
        parts = ("reconstruction", "segmentation", "memory")
        normal = dict(zip(parts, constants["normal"][class_name], strict=True))
        values = final_map(maps, normal, constants["weights"])
        if class_name in constants.get("ignored", {}):
            mask = unpacked(*constants["ignored"][class_name])
            values = np.where(mask, constants["score_range"][class_name][0], values)
        score = image_score(values, self.manifest["image_pool"])
        limits = constants["thresholds"][class_name]
        place = list(self.gallery["class_names"]).index(class_name)
        if novelty(description, self.gallery[str(place)]) > (limits["novelty"] or np.inf):
            return "unknown", score, values
        return "defective" if score > limits["image"] else "normal", score, values


if __name__ == "__main__":
    detector = Detector(Path(__file__).resolve().parent.parent)
    for file in sys.argv[2:]:
        verdict, score, _ = detector(Image.open(file), sys.argv[1])
        print(f"{file}: {verdict} {score:.4g}")
