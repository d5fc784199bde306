"""An exported detector: a folder that runs without the model code, and its predictor.

    manifest.json        format, versions, classes, settings, SHA-256 of the other files
    arrays.safetensors   weights, memory and class bank, under the names of the programs' arguments
    programs/PLATFORM-bN-DTYPE.bin   StableHLO of a batch of N images, serialized by `jax.export`
    compiled/MACHINE/bN-DTYPE.bin   the same, compiled for machines of that name, if asked for
    calibration.json, normal_images.npz   as in a run
    onnx/detector.onnx, onnx/detect.py   the same for a machine without JAX, if asked for
    README.md            how to use it

A program takes (arrays, images uint8 [N, S, S, 3], class ids int32 [N]) and returns the maps,
float32 [N, S, S] each, and the images' descriptions, float32 [N, D].
"""

import dataclasses
import functools
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from promptmad_jax.runtime.files import write_bytes_atomic
from promptmad_jax.serving import compiled
from promptmad_jax.serving.detector import LoadedDetector
from promptmad_jax.serving.predictor import ClassPredictor

MANIFEST, ARRAYS, CALIBRATION = "manifest.json", "arrays.safetensors", "calibration.json"
FORMAT = "promptmad_jax artifact 1"
ONNX, _COMPILED = "onnx/", "compiled/"


@dataclass(frozen=True)
class ArtifactManifest:
    """The content of manifest.json.

    Attributes:
        versions: package to version, of what made it.
        image_size: S; images are resized to S x S, antialiased and bilinear (Pillow).
        batch_sizes: of the programs, rising.
        dtype: of the backbone's computation.
        fusion, image_pool: rule of the final map, and width of the window that makes the score.
        pixel_range: black and white of images of more than 8 bits; None if there were none.
        files: name to SHA-256.
    """

    format: str
    versions: dict[str, str]
    platforms: tuple[str, ...]
    batch_sizes: tuple[int, ...]
    dtype: str
    class_names: tuple[str, ...]
    image_size: int
    fusion: str
    image_pool: int
    pixel_range: Any
    files: dict[str, str]


def program_name(platform: str, batch_size: int, dtype: str) -> str:
    """The file of a program."""
    return f"programs/{platform}-b{batch_size}-{dtype}.bin"


def compiled_name(batch_size: int, dtype: str) -> str:
    """The file of a program that is compiled for this machine."""
    return f"{_COMPILED}{compiled.machine()}/b{batch_size}-{dtype}.bin"


def is_artifact(path: str | os.PathLike) -> bool:
    """Returns True for a folder or .zip whose manifest.json is that of an exported detector."""
    try:
        values = json.loads(_read(Path(path).expanduser(), MANIFEST))
        return str(values.get("format", "")).startswith(FORMAT.rpartition(" ")[0])
    except (OSError, ValueError, AttributeError, KeyError, zipfile.BadZipFile):
        return False


def files_of(folder: os.PathLike) -> list[str]:
    """The files that an artifact's manifest lists; none if there is no artifact."""
    if not is_artifact(folder):
        return []
    return list(json.loads(_read(Path(folder), MANIFEST)).get("files", {}))


def _read(path: Path, name: str) -> bytes:
    if path.is_dir():
        return (path / name).read_bytes()
    with zipfile.ZipFile(path) as archive:
        return archive.read(name)


class Artifact:
    """A folder that `promptmad export` wrote, its files compared with their checksums.

    The form in ONNX stays unread: it is for machines without this code.

    Raises:
        UserError: it is none, it is damaged, or of another version.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder).expanduser()
        self.manifest = self._read_manifest()
        names = (name for name in self.manifest.files if not name.startswith(ONNX))
        self._content = {name: self._checked(name) for name in names}

    def calibration(self) -> Calibration:
        """Constants, thresholds and gallery."""
        gallery = gallery_of(self._content[GALLERY_FILE])
        return from_json(json.loads(self._content[CALIBRATION]), gallery)

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
        name = compiled_name(batch_size, self.manifest.dtype)
        if name in self._content:
            return compiled.load(self._content[name])
        machines = {other.split("/")[1] for other in self._content if other.startswith(_COMPILED)}
        if machines:
            warn(
                f"{self.folder} is compiled for {', '.join(sorted(machines))}, and this machine is "
                f"{compiled.machine()}: its program for batches of {batch_size} is compiled now"
            )
        return compiled.compile_program(self.program(batch_size))

    def program(self, batch_size: int) -> export.Exported:
        """The program of a batch size for this machine's platform."""
        platform = export.default_export_platform()
        name = program_name(platform, batch_size, self.manifest.dtype)
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
        return jax.device_put(safetensors.numpy.load(self._content[ARRAYS]))

    def _read_manifest(self) -> ArtifactManifest:
        path = self.folder / MANIFEST
        if not is_artifact(self.folder):
            raise UserError(
                f"{self.folder} is no exported detector, or its {MANIFEST} is damaged: make one by "
                "`promptmad export`"
            )
        values = json.loads(_read(self.folder, MANIFEST))
        if values["format"] != FORMAT:
            raise UserError(
                f"{path} has the format {values['format']!r}, and this version reads {FORMAT!r}"
            )
        try:
            tuples = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
            return ArtifactManifest(**tuples)
        except TypeError as error:
            raise UserError(f"{path} is damaged ({error}): export the run again") from error

    def _checked(self, name: str) -> bytes:
        path = self.folder / name
        try:
            content = _read(self.folder, name)
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


def checksums(contents: Mapping[str, bytes]) -> dict[str, str]:
    """SHA-256 by name."""
    return {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}


def write_folder(folder: Path, manifest: ArtifactManifest, contents: Mapping[str, bytes]) -> None:
    """Writes all files into an empty folder."""
    for name, content in (contents | {MANIFEST: _json(manifest)}).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def write_zip(path: Path, manifest: ArtifactManifest, contents: Mapping[str, bytes]) -> None:
    """Writes all files into one, as a whole."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (contents | {MANIFEST: _json(manifest)}).items():
            archive.writestr(name, content)
    write_bytes_atomic(path, packed.getvalue())


def _json(manifest: ArtifactManifest) -> bytes:
    text = json.dumps(dataclasses.asdict(manifest), indent=1, ensure_ascii=False)
    return (text + "\n").encode()


def _pad(rows: np.ndarray, size: int) -> np.ndarray:
    return np.concatenate([rows, np.repeat(rows[-1:], size - len(rows), 0)])
