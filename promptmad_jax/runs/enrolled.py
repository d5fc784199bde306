"""The images that a run was given without training, `enrolled/CLASS.npz`, and those that joined its
training images, `added/CLASS.npz`, when `retrain` began it.

images            uint8 [n, S, S, 3], resized
filenames         [n], as they were given
levels            of added images with more than 8 bits, their black and white
trained           of a class that was trained: its constants before, as in calibration.json
trained_patches, trained_images, trained_descriptions: its memory and its gallery before
"""

import io
import json
import zipfile
from dataclasses import dataclass, replace

import numpy as np

from promptmad_jax.data.levels import Levels
from promptmad_jax.evaluation.constants import Calibration, from_json, to_json
from promptmad_jax.evaluation.novelty import ClassGallery
from promptmad_jax.runs.workdir import Workdir
from promptmad_jax.runtime.errors import UserError

ENROLLED, ADDED = "enrolled", "added"
# Rows of enrolled images in a memory, far beyond those of the training set.
FIRST_ROW = 1 << 24


@dataclass(frozen=True, eq=False)
class TrainedClass:
    """A trained class as it was before images were enrolled.

    Attributes:
        patches, images: [M, C] and [M], of its memory; see `Memory`.
        calibration: its constants alone.
    """

    patches: np.ndarray
    images: np.ndarray
    calibration: Calibration


@dataclass(frozen=True, eq=False)
class EnrolledClass:
    """The enrolled images uint8 [n, S, S, 3] of a class with their file names.

    Attributes:
        trained: None for a class that was not trained.
        levels: of added images, those that they were read with if they had more than 8 bits.
    """

    images: np.ndarray
    filenames: tuple[str, ...]
    trained: TrainedClass | None = None
    levels: Levels | None = None

    @property
    def rows(self) -> np.ndarray:
        """Their rows in the memory, int [n]."""
        return FIRST_ROW + np.arange(len(self.images))

    def with_images(self, images: np.ndarray, filenames: tuple[str, ...]) -> "EnrolledClass":
        """Adds images; those that are there already, to the pixel, count once."""
        pictures = np.concatenate([self.images, images])
        names = (*self.filenames, *filenames)
        first: dict[bytes, int] = {}
        for i, picture in enumerate(pictures):
            first.setdefault(picture.tobytes(), i)
        kept = list(first.values())
        return replace(self, images=pictures[kept], filenames=tuple(names[i] for i in kept))


def file_of(class_name: str, folder: str = ENROLLED) -> str:
    """The file of a class, relative to the run's folder."""
    return f"{folder}/{class_name}.npz"


def enrolled_names(files: Workdir, folder: str = ENROLLED) -> tuple[str, ...]:
    """The classes with enrolled, or added, images, in the order of the file names."""
    folder = files.path / folder
    if not folder.exists():
        return ()
    return tuple(sorted(p.name[:-4] for p in folder.iterdir() if p.name.endswith(".npz")))


def images_by_class(files: Workdir, *folders: str) -> dict[str, EnrolledClass]:
    """The images in these folders of a run, those of the first before the others.

    Raises:
        UserError: a file is damaged.
    """
    classes: dict[str, EnrolledClass] = {}
    for folder in folders:
        for name in enrolled_names(files, folder):
            new = read_enrolled(files, name, folder)
            before = classes.get(name, replace(new, images=new.images[:0], filenames=()))
            joined = before.with_images(new.images, new.filenames)
            classes[name] = replace(joined, trained=None, levels=files.levels() or new.levels)
    return dict(sorted(classes.items()))


def read_enrolled(files: Workdir, class_name: str, folder: str = ENROLLED) -> EnrolledClass | None:
    """The enrolled, or added, images of a class; None without any.

    Raises:
        UserError: the file is damaged.
    """
    path = files.path / file_of(class_name, folder)
    if not path.exists():
        return None
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            filenames = tuple(map(str, arrays["filenames"]))
            levels = Levels(*map(float, arrays["levels"])) if "levels" in arrays else None
            return EnrolledClass(arrays["images"], filenames, _trained(arrays, class_name), levels)
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} is damaged ({error}): restore it from a copy of the run"
        ) from error


def enrolled_bytes(enrolled: EnrolledClass) -> bytes:
    """The content of the file."""
    arrays = {"images": enrolled.images, "filenames": np.array(enrolled.filenames, str)}
    if enrolled.levels is not None:
        arrays["levels"] = np.array(enrolled.levels.to_json())
    if (trained := enrolled.trained) is not None:
        [gallery] = trained.calibration.gallery.values()
        arrays |= {
            "trained": np.array(json.dumps(to_json(trained.calibration))),
            "trained_patches": trained.patches,
            "trained_images": trained.images,
            "trained_descriptions": gallery.descriptions,
        }
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    return content.getvalue()


def _trained(arrays, class_name: str) -> TrainedClass | None:
    if "trained" not in arrays:
        return None
    gallery = {class_name: ClassGallery(arrays["trained_descriptions"])}
    calibration = from_json(json.loads(str(arrays["trained"])), gallery)
    return TrainedClass(arrays["trained_patches"], arrays["trained_images"], calibration)
