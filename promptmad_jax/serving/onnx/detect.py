"""Verdicts of an exported detector by ONNX Runtime: needs numpy, onnxruntime and pillow alone.

    python detect.py CLASS_NAME IMAGE...

It lies in the folder `onnx` of an artifact, beside `postprocess.py`, and reads the files around it.
Images have 8 bits.
"""

import hashlib
import io
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps
from postprocess import verdict


class Detector:
    """The detector of an artifact's folder.

    Raises:
        ValueError: a file's checksum differs.
    """

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
        """Verdict, score and anomaly map [S, S] of an image.

        Raises:
            ValueError: the image has more than 8 bits, or the class is unknown.
        """
        if image.mode[0] in "IF":
            raise ValueError(f"the image's mode is {image.mode}; it must have 8 bits")
        names, size = self.manifest["class_names"], self.manifest["image_size"]
        if class_name not in names:
            raise ValueError(f"there is no class {class_name}; known are {', '.join(names)}")
        upright = ImageOps.exif_transpose(image).convert("RGB")
        images = np.asarray(upright.resize((size, size), Image.Resampling.BILINEAR))[None]
        class_ids = np.int32([names.index(class_name)])
        results = self.session.run(None, {"images": images, "class_ids": class_ids})
        found = zip(self.session.get_outputs(), results, strict=True)
        outputs = {output.name: result[0] for output, result in found}
        place = list(self.gallery["class_names"]).index(class_name)
        gallery, pool = self.gallery[str(place)], self.manifest["image_pool"]
        return verdict(outputs, gallery, class_name, self.constants, pool)


if __name__ == "__main__":
    detector = Detector(Path(__file__).resolve().parent.parent)
    for file in sys.argv[2:]:
        try:
            found, score, _ = detector(Image.open(file), sys.argv[1])
        except (OSError, ValueError) as error:
            sys.exit(f"{file}: {error}")
        print(f"{file}: {found} {score:.4g}")
