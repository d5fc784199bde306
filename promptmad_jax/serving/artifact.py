"""The predictor of an exported detector."""

import functools
import hashlib
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from jax import export

from promptmad_jax.data.levels import Levels
from promptmad_jax.evaluation.constants import Calibration, from_json
from promptmad_jax.evaluation.novelty import GALLERY_FILE, gallery_of
from promptmad_jax.runtime.console import warn
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.serving import artifact_files as files
from promptmad_jax.serving import compiled
from promptmad_jax.serving.detector import LoadedDetector
from promptmad_jax.serving.predictor import ClassPredictor


class Artifact:
    """A folder that `promptmad export` wrote, its files compared with their checksums.

    The form in ONNX stays unread: it is for machines without this code.

    Raises:
        UserError: it is none, it is damaged, or of another version.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder).expanduser()
        self.manifest = self._read_manifest()
        names = (name for name in self.manifest.files if not name.startswith(files.ONNX))
        self._content = {name: self._checked(name) for name in names}

    def calibration(self) -> Calibration:
        """Constants, thresholds and gallery."""
        gallery = gallery_of(self._content[GALLERY_FILE])
        return from_json(json.loads(self._content[files.CALIBRATION]), gallery)

    def levels(self) -> Levels | None:
        """The black and the white of images of more than 8 bits."""
        return Levels.from_json(self.manifest.pixel_range)

    def predictor(self) -> ClassPredictor:
        """Scores images on the first device of this machine."""
        manifest = self.manifest
        return ClassPredictor(
            ExportedMaps(self),
            manifest.class_names,
            self.calibration(),
            manifest.fusion,
            manifest.image_pool,
        )

    def compiled(self, batch_size: int) -> jax.stages.Compiled:
        """The program of a batch size, which is compiled unless the artifact holds it compiled for
        this machine."""
        name = compiled.file_name(batch_size, self.manifest.dtype)
        if name in self._content:
            return compiled.load(self._content[name])
        others = (other for other in self._content if other.startswith(compiled.FOLDER))
        machines = {other.split("/")[1] for other in others}
        if machines:
            warn(
                f"{self.folder} is compiled for {', '.join(sorted(machines))}, and this machine is "
                f"{compiled.machine()}: its program for batches of {batch_size} is compiled now"
            )
        return compiled.compile_program(self.program(batch_size))

    def program(self, batch_size: int) -> export.Exported:
        """The program of a batch size for this machine's platform."""
        platform = export.default_export_platform()
        name = files.program_name(platform, batch_size, self.manifest.dtype)
        if name not in self._content:
            made = ", ".join(self.manifest.platforms)
            raise UserError(
                f"{self.folder} holds programs for {made}, and this machine computes on "
                f"{platform}: export it with --platforms={platform}, or set JAX_PLATFORMS=cpu"
            )
        try:
            return export.deserialize(bytearray(self._content[name]))
        except (ValueError, NotImplementedError) as error:
            raise UserError(
                f"{self.folder / name} was made with jax {self.manifest.versions['jax']}, which "
                f"jax {jax.__version__} cannot read any more ({error}): export the run again"
            ) from error

    @functools.cached_property
    def arrays(self) -> dict[str, jax.Array]:
        """The arguments of the programs, on the first device."""
        return jax.device_put(safetensors.numpy.load(self._content[files.ARRAYS]))

    def _read_manifest(self) -> files.ArtifactManifest:
        path = self.folder / files.MANIFEST
        if not files.is_artifact(self.folder):
            raise UserError(
                f"{self.folder} is no exported detector, or its {files.MANIFEST} is damaged: make "
                "one by `promptmad export`"
            )
        values = json.loads(files.read(self.folder, files.MANIFEST))
        if values["format"] != files.FORMAT:
            raise UserError(
                f"{path} has the format {values['format']!r}, and this version reads "
                f"{files.FORMAT!r}"
            )
        try:
            tuples = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
            return files.ArtifactManifest(**tuples)
        except TypeError as error:
            raise UserError(f"{path} is damaged ({error}): export the run again") from error

    def _checked(self, name: str) -> bytes:
        path = self.folder / name
        try:
            content = files.read(self.folder, name)
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise UserError(f"{path} cannot be read ({error}): copy the artifact again") from error
        if hashlib.sha256(content).hexdigest() != self.manifest.files[name]:
            raise UserError(f"{path} is damaged: its checksum differs; copy the artifact again")
        return content


def load_artifact(path: str | os.PathLike) -> LoadedDetector:
    """See `promptmad_jax.load`."""
    artifact = Artifact(path)
    return LoadedDetector(artifact.predictor(), artifact.levels())


class ExportedMaps:
    """The programs of an artifact as what a `ClassPredictor` asks for maps."""

    def __init__(self, artifact: Artifact):
        self._artifact = artifact
        self.image_size = artifact.manifest.image_size
        self._calls: dict[int, Callable] = {}

    def described_maps(
        self, images: np.ndarray, class_ids: np.ndarray
    ) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Maps [n, S, S] by name and descriptions [n, D] of images uint8 [n, S, S, 3]."""
        parts, start = [], 0
        while start < len(images):
            size = self._batch_size(len(images) - start)
            rows = slice(start, start + size)
            count = len(images[rows])
            maps, described = self._call(size)(
                self._artifact.arrays,
                _pad(images[rows], size),
                jnp.asarray(_pad(np.asarray(class_ids[rows], np.int32), size)),
            )
            cut = jax.tree.map(lambda x, count=count: np.asarray(x)[:count], (maps, described))
            parts.append(cut)
            start += size
        return jax.tree.map(lambda *part: np.concatenate(part), *parts)

    def descriptions(self, images: np.ndarray) -> np.ndarray:
        """Descriptions float32 [n, D] of images uint8 [n, S, S, 3]."""
        return self.described_maps(images, np.zeros(len(images), np.int32))[1]

    def _call(self, size: int):
        if size not in self._calls:
            self._calls[size] = self._artifact.compiled(size)
        return self._calls[size]

    def _batch_size(self, count: int) -> int:
        """The largest batch that the images fill by more than half, else the smallest."""
        sizes = self._artifact.manifest.batch_sizes
        return max((size for size in sizes if 2 * count > size), default=sizes[0])


def _pad(rows: np.ndarray, size: int) -> np.ndarray:
    return np.concatenate([rows, np.repeat(rows[-1:], size - len(rows), 0)])
