"""Listing of folders in MVTec layout.

    CLASS/train/good/IMAGE  CLASS/test/DEFECT/IMAGE  CLASS/ground_truth/DEFECT/{STEM_mask|STEM}.EXT

An image may have several masks in place of one, in a folder of its name (the layout of MVTec LOCO):
`CLASS/ground_truth/DEFECT/STEM/*.EXT`.

The folder names `train`, `test`, `ground_truth`, `good` and all extensions are matched without
regard to case; `ok` counts as `good` (the layout of BTAD).
"""

import pathlib
from collections.abc import Iterator

from promptmad_jax.data.builders.records import GOOD, SPLITS, Entry, Found, is_image_name
from promptmad_jax.data.paths import printable
from promptmad_jax.runtime.errors import UserError

_GOOD_FOLDERS = (GOOD, "ok")
_PARTS = ("train", "test", "ground_truth")
_MASK_SUFFIX = "_mask"
_USE = {"train": "training", "validation": "validation"}
LAYOUT = "CLASS/train/good, CLASS/test/DEFECT, CLASS/ground_truth/DEFECT"


def find_in_folder(
    folder: pathlib.Path, image_dir: str = "", lister: type["ClassLister"] | None = None
) -> Found:
    """Lists a folder of classes, a single class folder, or a folder that holds only one of these.

    Args:
      image_dir: for lists; not used here.
      lister: lists one class folder; `ClassLister` by default.

    Raises:
      UserError: nothing below the folder has the layout.
    """
    del image_dir
    root = _layout_root(folder.resolve())
    single = _is_class(root)
    found = Found(source=root.parent if single else root)
    for child in [root] if single else children(root):
        if child.is_dir():
            (lister or ClassLister)(found, child).run()
        else:
            found.stray(child, "not part of a class folder")
    return found


def _layout_root(folder: pathlib.Path) -> pathlib.Path:
    root = folder
    while not _is_class(root) and not any(_is_class(child) for child in folders(root)):
        inner = list(folders(root))
        if len(inner) != 1:
            state = "is empty" if not any(folder.iterdir()) else "holds no class folder"
            raise UserError(f"{printable(folder)} {state}: expected {LAYOUT}")
        root = inner[0]
    return root


def _is_class(folder: pathlib.Path) -> bool:
    return any(child.name.lower() in ("train", "test") for child in folders(folder))


def children(folder: pathlib.Path) -> list[pathlib.Path]:
    """The files and folders in a folder, sorted."""
    return sorted(folder.iterdir())


def folders(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """The folders in a folder, sorted."""
    return (child for child in children(folder) if child.is_dir())


class ClassLister:
    """Lists one class folder into a `Found`.

    A subclass names other folders with `parts`, and with `PASSED_OVER` the folders inside a split
    that hold none of its images.
    """

    PASSED_OVER: frozenset[str] = frozenset()

    def __init__(self, found: Found, folder: pathlib.Path):
        self.found = found
        self.folder = folder
        self._name = printable(folder.name)
        self._masks: dict[tuple[str, str], list[pathlib.Path]] = {}

    def parts(self) -> dict[str, pathlib.Path]:
        """Hook: returns the folders of the splits and of the masks, "ground_truth"."""
        parts: dict[str, pathlib.Path] = {}
        for child in children(self.folder):
            part = child.name.lower()
            if child.is_dir() and part in _PARTS and part not in parts:
                parts[part] = child
            else:
                self.found.stray(child, "not train, test or ground_truth")
        return parts

    def run(self) -> None:
        """Adds the class's entries and problems to the listing."""
        self.found.class_names.add(self._name)
        parts = self.parts()
        self._list_masks(parts)
        unused = {mask for masks in self._masks.values() for mask in masks}
        for split in SPLITS:
            for entry in self._list_split(split, parts):
                self.found.entries.append(entry)
                unused.difference_update(entry.masks)
        for mask in sorted(unused):
            self.found.stray(mask, "a mask without an image")

    def _list_masks(self, parts: dict[str, pathlib.Path]) -> None:
        if "ground_truth" not in parts:
            return
        for defect, path, folder in self._images(parts["ground_truth"], nested=True):
            key = (defect, folder.name.lower() if folder else path.stem.lower())
            if key in self._masks and folder is None:
                self.found.stray(path, f"a second mask beside {self._masks[key][0].name}")
            else:
                self._masks.setdefault(key, []).append(path)

    def _list_split(self, split: str, parts: dict[str, pathlib.Path]) -> Iterator[Entry]:
        if split not in parts:
            return
        for defect, path, _ in self._images(parts[split]):
            if split != "test" and defect != GOOD:
                self.found.stray(path, f"{_USE[split]} images must be in {split}/good")
                continue
            yield Entry(
                split=split,
                class_name=self._name,
                defect_type=defect,
                filename=printable(path.relative_to(self.found.source)),
                image=path,
                masks=self._masks_of(path, defect) if split == "test" else (),
                without_mask="zero" if defect == GOOD else "error",
            )

    def _masks_of(self, image: pathlib.Path, defect: str) -> tuple[pathlib.Path, ...]:
        stem = image.stem.lower()
        named_mask = self._masks.get((defect, stem + _MASK_SUFFIX))
        return tuple(named_mask or self._masks.get((defect, stem), ()))

    def _images(
        self, part: pathlib.Path, nested: bool = False
    ) -> Iterator[tuple[str, pathlib.Path, pathlib.Path | None]]:
        """Yields (defect type, image file, None) of `part/DEFECT/*` and, if `nested`, (defect type,
        image file, its folder) of `part/DEFECT/FOLDER/*`; everything else is a stray."""
        for folder in children(part):
            if not folder.is_dir():
                self.found.stray(folder, f"lies beside the folders of {part.name}")
                continue
            if folder.name.lower() in self.PASSED_OVER:
                continue
            name = printable(folder.name)
            defect = GOOD if name.lower() in _GOOD_FOLDERS else name
            for path in children(folder):
                if path.is_dir() and nested:
                    yield from ((defect, inner, path) for inner in self._image_files(path))
                elif self._is_image(path):
                    yield defect, path, None

    def _image_files(self, folder: pathlib.Path) -> Iterator[pathlib.Path]:
        return (path for path in children(folder) if self._is_image(path))

    def _is_image(self, path: pathlib.Path) -> bool:
        """Returns True for an image file; everything else becomes a stray."""
        if path.is_dir():
            self.found.stray(path, "a folder among images")
        elif not is_image_name(path):
            self.found.stray(path, "not the name of an image")
        else:
            return True
        return False
