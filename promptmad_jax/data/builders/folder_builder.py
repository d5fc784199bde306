"""The TFDS builder of every data set that consists of image and mask files."""

import dataclasses
import functools
import hashlib
import json
import pathlib
import re
import tempfile
from collections.abc import Iterator

import numpy as np
import tensorflow_datasets as tfds

from promptmad_jax.data import preprocess
from promptmad_jax.data.builders import features
from promptmad_jax.data.builders.check import Checked, Inventory, check, counts
from promptmad_jax.data.builders.features import encode_png
from promptmad_jax.data.builders.layout import find_in_folder
from promptmad_jax.data.builders.records import SPLITS, Entry, Found, Problem
from promptmad_jax.data.builders.source import existing, find, fingerprint, in_users_names
from promptmad_jax.data.ignored import write_ignored
from promptmad_jax.data.image_files import MAX_MEGAPIXELS, opened
from promptmad_jax.data.levels import PIXEL_RANGE
from promptmad_jax.data.paths import printable
from promptmad_jax.data.prepared import REPORT
from promptmad_jax.runtime.errors import UserError


class FolderBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Validates a source, and writes its usable images as ArrayRecord and a `report.json`.

    Preparing raises `UserError` if the source is missing or has no usable training image.

    Args:
      source: folder, archive or list file; needed to prepare, not to read. If empty, TFDS' manual
        folder (`<data_dir>/downloads/manual`) is the source.
      image_dir: for a list file, the folder that its names are relative to.
      bit_depth: of images with more than 8 bits; 0 finds it from the training images.
      max_megapixels: larger images are left out.
      kwargs: of the TFDS builder: `data_dir`, `version`.
    """

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "Give the folder, archive or list file: tfds.builder(NAME, source=PATH), or"
        " promptmad prepare --dataset=NAME --source=PATH --data_dir=DIR"
    )
    DESCRIPTION = ""
    HOMEPAGE: str | None = None
    CITATION: str | None = None
    DEFECT_IDS = False  # True if an image may have several defect types; see `features`.

    def __init__(
        self,
        *,
        source: str = "",
        image_dir: str = "",
        bit_depth: int = 0,
        max_megapixels: float = MAX_MEGAPIXELS,
        **kwargs,
    ):
        self._source = source
        self._image_dir = image_dir
        self._bit_depth = bit_depth
        self._max_megapixels = max_megapixels
        self._inventory: Inventory | None = None
        self._ignored: dict[str, np.ndarray] = {}
        super().__init__(file_format="array_record", **kwargs)

    @classmethod
    def list_folder(cls, folder: pathlib.Path, image_dir: str) -> Found:
        """Hook: lists an extracted source; `image_dir` is for layouts with lists."""
        return find_in_folder(folder, image_dir)

    @classmethod
    def fingerprint(
        cls,
        source: str,
        image_dir: str,
        bit_depth: int = 0,
        max_megapixels: float = MAX_MEGAPIXELS,
    ) -> str:
        """A digest of the source's files, see `source.fingerprint`, and of how they are read."""
        files = fingerprint(source, image_dir, cls.list_folder)
        return hashlib.sha256(f"{files} {bit_depth} {max_megapixels:g}".encode()).hexdigest()

    def default_source(self, manual_dir: pathlib.Path) -> str:
        """Hook: returns the source in TFDS' manual folder, for a builder that was given none."""
        return str(manual_dir)

    def select(self, found: Found) -> Found:
        """Hook: restricts a listing to the data set's own classes."""
        return found

    def review(self, inventory: Inventory) -> list[Problem]:
        """Hook: compares the usable images with what is known of the data set."""
        del inventory
        return []

    def _info(self) -> tfds.core.DatasetInfo:
        return features.dataset_info(
            self, self.DESCRIPTION, self.HOMEPAGE, self.CITATION, self.DEFECT_IDS
        )

    def _download_and_prepare(self, dl_manager, download_config=None) -> None:
        source = self._source or self.default_source(pathlib.Path(dl_manager.manual_dir))
        # Taken first, so that a file that changes while it is read makes the next run rebuild.
        stamp = self.fingerprint(source, self._image_dir, self._bit_depth, self._max_megapixels)
        with tempfile.TemporaryDirectory(prefix=".unpacked-", dir=self.data_dir) as scratch:
            place = pathlib.Path(scratch)
            with in_users_names(source, place):
                found = self.select(find(source, self._image_dir, place, self.list_folder))
                self._inventory = check(found, _progress_bar, self._bit_depth, self._max_megapixels)
                self._ignored = {name: self._read_mask(p) for name, p in found.ignored.items()}
                if not self._inventory.images:
                    raise UserError(_nothing_usable(source, self._inventory))
            try:
                super()._download_and_prepare(dl_manager, download_config)
            except RuntimeError as error:  # Of ArrayRecord's writer; its text names a staging file.
                if (refused := re.search(r"write\(\) failed: ([^;]+)", str(error))) is None:
                    raise
                raise OSError(refused[1]) from error
        self._write_report(source, stamp, self._inventory)
        write_ignored(pathlib.Path(self.data_dir), self._ignored)

    def _read_mask(self, path: pathlib.Path) -> np.ndarray:
        """The pixels of a class that do not count, bool [H, W]."""
        mask = preprocess.decode_mask(path, self._max_megapixels)
        if mask.all() or not mask.any():
            state = "everything" if mask.all() else "nothing"
            raise UserError(f"{printable(path)}: {state} is painted: paint what does not count")
        return mask

    def _split_generators(self, dl_manager):
        del dl_manager
        images = {split: self._inventory.of_split(split) for split in SPLITS}
        return {split: self._generate_examples(images[split]) for split in SPLITS if images[split]}

    def _generate_examples(self, images: tuple[Checked, ...]) -> Iterator[tuple[str, dict]]:
        for image in images:
            entry = image.entry
            record = {
                "image": self._stored_image(image),
                "mask": self._stored_mask(image),
                "label": entry.label,
                "class_name": entry.class_name,
                "defect_type": entry.defect_type,
                "filename": entry.filename,
            }
            if self.DEFECT_IDS:
                record["defect_ids"] = self._stored_ids(image)
            yield entry.filename, record

    def _stored_image(self, image: Checked) -> bytes:
        if image.verbatim:
            return image.entry.image.read_bytes()
        with opened(image.entry.image, self._max_megapixels) as file:
            return encode_png(file.grey_levels(self._inventory.levels))

    def _stored_mask(self, image: Checked) -> bytes:
        entry = image.entry
        if not entry.masks:
            value = 255 if entry.without_mask == "one" else 0
            return _uniform_png(image.height, image.width, value)
        return encode_png(self._foreground(entry).astype(np.uint8) * 255)

    def _foreground(self, entry: Entry) -> np.ndarray:
        """The union of an image's masks, bool [H, W]."""
        foreground = preprocess.decode_mask(entry.masks[0], self._max_megapixels)
        for path in entry.masks[1:]:
            foreground |= preprocess.decode_mask(path, self._max_megapixels)
        return foreground

    def _stored_ids(self, image: Checked) -> bytes:
        """The PNG of `defect_ids`; see `features`."""
        entry = image.entry
        if not entry.masks:
            value = features.UNKNOWN_ID if entry.label else 0
            return _uniform_png(image.height, image.width, value)
        ids = np.where(self._foreground(entry), self._ids_of(entry), 0)
        return encode_png(ids.astype(np.uint8))

    def _ids_of(self, entry: Entry) -> np.ndarray:
        """The place of each pixel's label in the entry's labels, from 1."""
        if "," not in entry.defect_type:
            return np.ones((1, 1), np.uint8)
        places = np.full(256, features.UNKNOWN_ID, np.uint8)
        for place, label_id in enumerate(entry.label_ids, start=1):
            places[label_id] = place
        return places[preprocess.decode_ids(entry.masks[0], self._max_megapixels)]

    def _write_report(self, source: str, stamp: str, inventory: Inventory) -> None:
        problems, levels = [*inventory.problems, *self.review(inventory)], inventory.levels
        report = {
            "dataset": self.name,
            "version": str(self.version),
            "source": printable(existing(source)),
            "source_fingerprint": stamp,
            "class_names": inventory.class_names,
            "images": _split_sizes(inventory),
            "bit_depth": 8 if levels is None else levels.bits,
            PIXEL_RANGE: levels and levels.to_json(),
            "counts": counts(inventory),
            "problems": [dataclasses.asdict(problem) for problem in problems],
        }
        text = json.dumps(report, indent=1, ensure_ascii=False)
        (pathlib.Path(self.data_dir) / REPORT).write_text(text, encoding="utf-8")


def _split_sizes(inventory: Inventory) -> dict[str, int]:
    sizes = {split: len(inventory.of_split(split)) for split in SPLITS}
    return {split: size for split, size in sizes.items() if size or split != "validation"}


def _progress_bar(results, total: int):
    return tfds.core.utils.tqdm(results, total=total, desc="Checking", unit=" images", leave=False)


def _nothing_usable(source: str, inventory: Inventory) -> str:
    faults = [problem for problem in inventory.problems if problem.kind != "empty_class"]
    first = ""
    if faults:
        first = f"; {len(faults)} faults, the first: {faults[0].file}: {faults[0].reason}"
    return f"{source}: no usable training image (CLASS/train/good){first}"


@functools.lru_cache(maxsize=16)
def _uniform_png(height: int, width: int, value: int) -> bytes:
    return encode_png(np.full((height, width), value, np.uint8))
