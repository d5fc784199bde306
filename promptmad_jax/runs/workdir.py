"""The files of a run's working directory, by name.

checkpoints/       training states and the configuration that made them
bank.npz           class names, prompt images, text tokens and moments of features, for inference
memory.safetensors the memory of normal patches; see memory_file.py
calibration.json   constants and thresholds read off normal images, with their step
normal_images.npz  descriptions of these images
metrics.jsonl, tensorboard/, manifest.json, metrics.json, report/index.html
"""

import dataclasses
import hashlib
import io
import json
import zipfile
import zlib
from typing import Any

import numpy as np
from etils import epath

from promptmad_jax.config import Config, parse
from promptmad_jax.data.levels import PIXEL_RANGE, Levels
from promptmad_jax.evaluation.calibration import Calibration, Change
from promptmad_jax.evaluation.fusion import SEGMENTATION_WEIGHT, Moments, NormalMaps
from promptmad_jax.evaluation.novelty import ClassGallery, Gallery
from promptmad_jax.evaluation.thresholds import NormalScores, Rates, Thresholds
from promptmad_jax.prompts.embeddings import TextTokens
from promptmad_jax.runs.stored import MANIFEST_FILE, read_manifest
from promptmad_jax.runtime.checkpoint import CONFIG_FILE, Checkpoints
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.files import write_bytes_atomic, write_text_atomic

# With another one, ranges and thresholds of "standardized" maps do not fit.
_GALLERY = "normal_images.npz"
_WEIGHT = {"segmentation_weight": float(SEGMENTATION_WEIGHT)}

# Settings of older runs that changed speed alone, and that the platform now decides.
_RETIRED = (("reconstructor", "attention_pass"), ("segmentor", "fine_pass"))


class Workdir:
    """Paths of a working directory, local or `gs://`, and typed access to its small files."""

    def __init__(self, path: epath.PathLike):
        self.path = epath.Path(path)

    @property
    def manifest(self) -> epath.Path:
        return self.path / MANIFEST_FILE

    @property
    def log(self) -> epath.Path:
        return self.path / "metrics.jsonl"

    def checkpoints(self, keep: int, keep_every: int = 0) -> Checkpoints:
        return Checkpoints(self.path / "checkpoints", keep, keep_every)

    def config(self) -> Config:
        """The configuration that the run was trained with.

        Raises:
            UserError: there is no run here.
        """
        path = self.path / "checkpoints" / CONFIG_FILE
        if not path.exists():
            raise UserError(
                f"{self.path} holds no trained model; train one there with "
                f"promptmad train --config=... --workdir={self.path}"
            )
        try:
            values = json.loads(path.read_text())
            for group, key in _RETIRED:
                values.get(group, {}).pop(key, None)
        except (ValueError, AttributeError) as error:
            raise UserError(f"{path} is damaged ({error}); restore it or train again") from error
        return parse(values)

    def read_manifest(self) -> dict[str, Any] | None:
        """The run's manifest; None where the file is missing.

        Raises:
            UserError: it is damaged.
        """
        return read_manifest(self.path) if self.manifest.exists() else None

    def levels(self) -> Levels | None:
        """The black and the white of images with more than 8 bits; None if none were trained on."""
        manifest = self.read_manifest() or {}
        return Levels.from_json(manifest.get(PIXEL_RANGE))

    def write_bank(
        self,
        class_names: tuple[str, ...],
        prompts: np.ndarray,
        text: TextTokens | None,
        moments: np.ndarray | None = None,
    ) -> None:
        """Writes bank.npz; prompts uint8 [K, S, S, 3], moments of features as in `Frozen`."""
        arrays: dict[str, Any] = {"class_names": np.array(class_names), "prompts": prompts}
        if text is not None:
            arrays |= {
                "text_tokens": text.tokens,
                "text_mask": text.mask,
                "text_words": np.array(json.dumps([text.names, text.sources])),
            }
        if moments is not None:
            arrays["feature_moments"] = np.asarray(moments)
        file = io.BytesIO()
        np.savez_compressed(file, **arrays)
        write_bytes_atomic(self.path / "bank.npz", file.getvalue())

    def read_bank(
        self,
    ) -> tuple[tuple[str, ...], np.ndarray, TextTokens | None, np.ndarray | None]:
        """Class names, prompt images, text tokens and moments of features of the run.

        Raises:
            UserError: the file is missing or damaged.
        """
        path = self.path / "bank.npz"
        way_out = f"run `promptmad train` again on {self.path}, which writes it"
        if not path.exists():
            raise UserError(f"{path} is missing: {way_out}")
        try:
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
                names, prompts = tuple(map(str, arrays["class_names"])), arrays["prompts"]
                moments = arrays.get("feature_moments", None)
                if "text_tokens" not in arrays:
                    return names, prompts, None, moments
                words, sources = json.loads(str(arrays["text_words"]))
                tokens, mask = arrays["text_tokens"], arrays["text_mask"]
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise UserError(f"{path} is damaged ({error}): {way_out}") from error
        text = TextTokens(tokens, mask, tuple(map(tuple, words)), tuple(sources))
        return names, prompts, text, moments

    def write_calibration(self, calibration: Calibration) -> None:
        """Writes calibration.json and normal_images.npz."""
        values = dataclasses.asdict(dataclasses.replace(calibration, gallery={})) | _WEIGHT
        del values["gallery"]
        for name in ("thresholds", "scores"):
            rows = getattr(calibration, name)
            values[name] = {class_name: row._asdict() for class_name, row in rows.items()}
        values["rates"] = calibration.rates._asdict()
        gallery = calibration.gallery
        content = io.BytesIO()
        arrays = {str(i): g.descriptions.astype(np.float32) for i, g in enumerate(gallery.values())}
        np.savez_compressed(content, class_names=np.array(list(gallery), str), **arrays)
        # The gallery first: constants without theirs would be noticed, others' would not.
        write_bytes_atomic(self.path / _GALLERY, content.getvalue())
        values["normal_images"] = hashlib.sha256(content.getvalue()).hexdigest()
        write_text_atomic(self.path / "calibration.json", json.dumps(values, indent=2) + "\n")

    def _read_gallery(self, digest: str) -> Gallery:
        path = self.path / _GALLERY
        content = path.read_bytes() if path.exists() else b""
        if hashlib.sha256(content).hexdigest() != digest:
            raise UserError(
                f"{path} is missing or does not belong to calibration.json beside it; write both "
                f"with `promptmad evaluate --workdir={self.path}`"
            )
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            names = map(str, arrays["class_names"])
            return {name: ClassGallery(arrays[str(i)]) for i, name in enumerate(names)}

    def read_calibration(self) -> Calibration:
        """The constants of the newest evaluation.

        Raises:
            UserError: the file is missing, damaged, or of an older version.
        """
        path = self.path / "calibration.json"
        way_out = f"write it with `promptmad evaluate --workdir={self.path}`"
        if not path.exists():
            raise UserError(
                f"{path} is missing: no evaluation has finished. Let training end, or {way_out}"
            )
        try:
            values = json.loads(path.read_text())
            if "normal_images" not in values or self._has_other_weight(values):
                raise UserError(f"{path} is of an older version; {way_out}")
            return _calibration(values, self._read_gallery(values["normal_images"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path} is damaged ({error!r}); {way_out}") from error

    def _has_other_weight(self, values: dict[str, Any]) -> bool:
        """Returns True if the constants fit only maps that were added up with another weight."""
        if _WEIGHT.items() <= values.items():
            return False
        return self.config().eval.fusion == "standardized"


def _calibration(values: dict[str, Any], gallery: Gallery) -> Calibration:
    """The content of calibration.json."""
    normal = {
        name: NormalMaps(*(None if pair is None else Moments(*pair) for pair in pairs))
        for name, pairs in values["normal"].items()
    }
    return Calibration(
        values["source"],
        values["fusion_scale"],
        normal,
        {name: tuple(pair) for name, pair in values["score_range"].items()},
        {name: Thresholds(**_tuples(row)) for name, row in values["thresholds"].items()},
        values["step"],
        {int(step): score for step, score in values["checkpoint_scores"].items()},
        values["weights"],
        {name: NormalScores(**_tuples(row)) for name, row in values["scores"].items()},
        Rates(**values["rates"]),
        tuple(Change(*row) for row in values["history"]),
        gallery,
    )


def _tuples(row: dict[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
