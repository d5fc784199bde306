"""Classes that a run is given without training: memory, prompt, words, constants and thresholds."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping

import jax
import numpy as np

from promptmad_jax.config import Config
from promptmad_jax.data.image_set import ImageSet, normal_set
from promptmad_jax.evaluation.calibration import NormalImages
from promptmad_jax.evaluation.constants import Calibration, Change
from promptmad_jax.evaluation.novelty import ClassGallery
from promptmad_jax.evaluation.thresholds import joined_scores, set_thresholds
from promptmad_jax.methods.reconstruction.assembly import Assembly, assemble, class_text
from promptmad_jax.methods.reconstruction.classes import (
    Classes,
    joined_constants,
    only_class,
    without_class,
)
from promptmad_jax.methods.reconstruction.splits import Splits
from promptmad_jax.methods.reconstruction.trained import TrainedDetector
from promptmad_jax.runs.change import replace_files
from promptmad_jax.runs.enrolled import (
    FIRST_ROW,
    EnrolledClass,
    TrainedClass,
    enrolled_bytes,
    file_of,
    read_enrolled,
)
from promptmad_jax.runs.memory_file import ENTRY, MEMORY_FILE, memory_bytes, read_memory
from promptmad_jax.runs.restore import restore_weights
from promptmad_jax.runs.stored import MANIFEST_FILE
from promptmad_jax.runs.workdir import BANK_FILE, Workdir, bank_bytes, calibration_contents
from promptmad_jax.runtime.console import warn
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.names import nearest
from promptmad_jax.training.memory import grown_memory, make_memory

_BATCH = 16
_ENTRY = "enrolled"  # of the manifest


def enroll(
    config: Config, files: Workdir, class_name: str, images: np.ndarray, filenames: tuple[str, ...]
) -> tuple[str, Calibration]:
    """Gives a run a new class, or an old one more normal images; the caller holds the folder.

    Args:
        images: uint8 [n, S, S, 3], at the run's size.

    Returns:
        The class as the run spells it, and the run's constants with it.

    Raises:
        UserError: the run has no memory, or there are no new images, or fewer than two in all.
    """
    run, calibration = _classes(config, files), files.read_calibration()
    k = run.place(class_name)
    name = class_name if k is None else run.names[k]
    before = read_enrolled(files, name) or _begin(run, k, calibration, config.data.image_size)
    enrolled = before.with_images(images, filenames)
    if len(enrolled.images) == len(before.images):
        raise UserError(f"class {name}: all {len(images)} images are enrolled already")
    if enrolled.trained is None and len(enrolled.images) < 2:
        raise UserError(
            f"class {name}: {len(enrolled.images)} usable image; each is compared with the others: "
            "give at least two different ones"
        )
    new, detector = _with_memory(config, files, run, name, enrolled)
    normal = NormalImages(_image_set(name, enrolled), "enrolled", enrolled.rows)
    constants = _constants(detector, calibration, normal, enrolled.trained)
    what = f"{name}: {len(enrolled.images)} images"
    saved = {file_of(name): enrolled_bytes(enrolled)}
    return name, _write(files, run.with_class(new), constants, Change.now("enroll", what), saved)


def remove(config: Config, files: Workdir, class_name: str) -> tuple[str, Calibration]:
    """Takes enrolled images out: a class of them alone goes, a trained one is as it was before.

    Raises:
        UserError: nothing was enrolled for the class.
    """
    run, calibration = _classes(config, files), files.read_calibration()
    k = run.place(class_name)
    enrolled = None if k is None else read_enrolled(files, run.names[k])
    if enrolled is None:
        near = nearest(class_name, run.names)
        raise UserError(
            f"no image was enrolled for {class_name!r}, so that nothing can be taken out; the run "
            f"has {', '.join(run.names)}" + ("" if k is not None else f" (did you mean {near}?)")
        )
    name = run.names[k]
    if enrolled.trained is None:
        run = run.select([i for i in range(len(run.names)) if i != k])
        calibration = without_class(calibration, name)
    else:
        run = run.with_class(_as_trained(run.select([k]), enrolled.trained))
        calibration = joined_constants(calibration, enrolled.trained.calibration)
    change = Change.now("enroll --remove", name)
    return name, _write(files, run, calibration, change, {file_of(name): None})


def enrolled_images(files: Workdir, class_names: tuple[str, ...]) -> NormalImages | None:
    """All images that were enrolled, of the classes of a run; None without any."""
    found = {k: read_enrolled(files, name) for k, name in enumerate(class_names)}
    found = {k: enrolled for k, enrolled in found.items() if enrolled is not None}
    if not found:
        return None
    images = np.concatenate([enrolled.images for enrolled in found.values()])
    ids = np.concatenate([np.full(len(enrolled.images), k) for k, enrolled in found.items()])
    filenames = tuple(name for enrolled in found.values() for name in enrolled.filenames)
    rows = np.concatenate([enrolled.rows for enrolled in found.values()])
    return NormalImages(normal_set(images, ids, class_names, filenames), "enrolled", rows)


def _classes(config: Config, files: Workdir) -> Classes:
    stored = read_memory(files) if config.memory.patches else None
    if stored is None:
        raise UserError(
            f"{files.path} has no memory of normal patches, the part that takes new classes "
            "without training: train a run with one, for instance --config=promptmad_folder.py"
        )
    names, prompts, text, _ = files.read_bank()
    return Classes(names, prompts, text, stored.trained.memory)


def _begin(run: Classes, k: int | None, calibration: Calibration, size: int) -> EnrolledClass:
    """A class before its first image is enrolled."""
    trained = None
    if k is not None:
        memory = run.select([k]).memory
        own = only_class(calibration, run.names[k])
        trained = TrainedClass(memory.patches[0], memory.images[0], own)
    return EnrolledClass(np.zeros((0, size, size, 3), np.uint8), (), trained)


def _with_memory(
    config: Config, files: Workdir, run: Classes, name: str, enrolled: EnrolledClass
) -> tuple[Classes, TrainedDetector]:
    """The class with its memory, and a detector of it alone."""
    if (k := run.place(name)) is None:
        prompt = enrolled.images[min(config.eval.prompt_index, len(enrolled.images) - 1)]
        text, prompts = class_text(config, (name,)), prompt[None]
    else:
        _, prompts, text, _ = run.select([k])
    assembly = assemble(config, (name,), text, prompts)
    if (moments := files.read_bank()[3]) is not None:
        assembly = assembly.with_frozen(moments=moments)
    patches = _patches(assembly, enrolled.images)
    if enrolled.trained is None:
        ids = np.zeros(len(patches), np.int32)
        memory = make_memory(patches, ids, (name,), config.memory).memory
        memory = memory._replace(images=memory.images + np.int32(FIRST_ROW))
    else:
        old = _as_trained(run.select([k]), enrolled.trained).memory
        memory = grown_memory(old, patches, enrolled.rows, config.memory)
    assembly = assembly.with_frozen(memory=memory)
    weights = restore_weights(assembly, files, files.read_calibration().step)
    return Classes((name,), prompts, text, memory), TrainedDetector(assembly, weights)


def _as_trained(new: Classes, trained: TrainedClass) -> Classes:
    """The class with the patches that it had before."""
    memory = new.memory._replace(patches=trained.patches[None], images=trained.images[None])
    return new._replace(memory=memory)


def _patches(assembly: Assembly, images: np.ndarray) -> np.ndarray:
    """Patch features float32 [n, h, w, C]."""
    compute = jax.jit(lambda frozen, batch: assembly.detector.features(frozen, batch).patches)
    parts = []
    for start in range(0, len(images), _BATCH):
        # The last batch is padded, so that nothing compiles twice.
        rows = np.minimum(np.arange(start, start + _BATCH), len(images) - 1)
        parts.append(np.asarray(compute(assembly.frozen, images[rows])))
    return np.concatenate(parts)[: len(images)]


def _image_set(name: str, enrolled: EnrolledClass) -> ImageSet:
    ids = np.zeros(len(enrolled.images), np.int32)
    return normal_set(enrolled.images, ids, (name,), enrolled.filenames)


def _constants(
    detector: TrainedDetector,
    calibration: Calibration,
    normal: NormalImages,
    trained: TrainedClass | None,
) -> Calibration:
    """The run's constants with those of the class anew; those of the others stay."""
    [name] = normal.images.class_names
    others = calibration if trained is not None else without_class(calibration, name)
    empty = normal.images.select([])
    fresh = detector.add_thresholds(others, Splits(empty, empty, empty, normal))
    own = only_class(fresh, name)
    if trained is not None:
        before = trained.calibration
        _warn_of_unlike(before, own, name)
        both = (before.gallery[name].descriptions, own.gallery[name].descriptions)
        gallery = ClassGallery(np.concatenate(both))
        scores = joined_scores(before.scores[name], own.scores[name], gallery.leave_one_out())
        own = dataclasses.replace(own, gallery={name: gallery}, scores={name: scores})
    thresholds = {name: set_thresholds(own.scores[name], calibration.rates)}
    return joined_constants(calibration, dataclasses.replace(own, thresholds=thresholds))


def _warn_of_unlike(before: Calibration, own: Calibration, name: str) -> None:
    limit = before.thresholds[name].novelty
    if limit is None:
        return
    novelty = before.gallery[name].novelty(own.gallery[name].descriptions)
    unlike = np.count_nonzero(novelty > limit)
    if unlike:
        warn(
            f"{unlike} of the images are unlike the normal images that class {name} was trained "
            "on: if they show something else, take them out with --remove"
        )


def _write(
    files: Workdir,
    run: Classes,
    calibration: Calibration,
    change: Change,
    further: Mapping[str, bytes | None],
) -> Calibration:
    """Replaces the run's files together; returns its constants."""
    stored, (*_, moments) = read_memory(files), files.read_bank()
    memory = memory_bytes(stored.trained._replace(memory=run.memory), stored.made_from)
    manifest = files.read_manifest()
    manifest |= {
        ENTRY: hashlib.sha256(memory).hexdigest(),
        _ENTRY: [*manifest.get(_ENTRY, []), change],
    }
    calibration = dataclasses.replace(calibration, history=(*calibration.history, change))
    contents = {
        **further,
        BANK_FILE: bank_bytes(run.names, run.prompts, run.text, moments),
        MEMORY_FILE: memory,
        **calibration_contents(calibration),
        MANIFEST_FILE: (json.dumps(manifest, indent=2) + "\n").encode(),
    }
    replace_files(files.path, contents)
    return calibration
