"""Listing of folders in MVTec layout.

    CLASS/train/good/IMAGE  CLASS/test/DEFECT/IMAGE  CLASS/ground_truth/DEFECT/{STEM_mask|STEM}.EXT

An image may have several masks in place of one, in a folder of its name (the layout of MVTec LOCO):
`CLASS/ground_truth/DEFECT/STEM/*.EXT`. `CLASS/validation/good` is read as well.

Names are matched across case and Unicode; `ok` counts as `good` (the layout of BTAD).
`CLASS/ignore.png` is painted where pixels do not count. Which files are the user's is decided by
`data.user_files`.
"""

import pathlib
from collections.abc import Callable, Iterable, Iterator
from typing import ClassVar

from promptmad_jax.data.builders.records import GOOD, SPLITS, Entry, Found
from promptmad_jax.data.paths import name_fault, printable
from promptmad_jax.data.user_files import children, folders, images_below, is_image
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.names import matching

_GOOD_FOLDERS = (GOOD, "ok")
_MASKS = "ground_truth"
_MASK_SUFFIX = "_mask"
_USE = {"train": "training", "validation": "validation"}
LAYOUT = "CLASS/train/good, CLASS/test/DEFECT, CLASS/ground_truth/DEFECT"

# The masks of a folder by that folder and the stem that they are named by.
_Masks = dict[tuple[pathlib.Path, str], list[pathlib.Path]]


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
    root, beside = _layout_root(folder)
    single = is_class(root)
    found = Found(source=root.parent if single else root)
    for path in beside:
        found.stray(path, "lies beside the folder of the classes")
    classes = [root] if single else [child for child in folders(root) if is_class(child)]
    for path in [] if single else children(root):
        if path not in classes:
            _note_no_class(found, path)
    for path in classes:
        (lister or ClassLister)(found, path).run()
    return found


def _layout_root(folder: pathlib.Path) -> tuple[pathlib.Path, list[pathlib.Path]]:
    """The class folder, or the folder of classes, and what lies beside the way to it."""
    root, beside = folder, []
    while not is_class(root) and not any(map(is_class, folders(root))):
        inner = list(folders(root))
        if len(inner) != 1:
            state = "holds no class folder" if children(folder) else "is empty"
            raise UserError(f"{printable(folder)} {state}: expected {LAYOUT}")
        beside += [child for child in children(root) if child != inner[0]]
        root = inner[0]
    return root, beside


def is_class(folder: pathlib.Path) -> bool:
    """Returns True for the folder of a class; classes may be called `test` and `train` too."""
    if _has_normal(folder):
        return True
    return any(_named(folder, "train", "test")) and not any(map(_has_normal, folders(folder)))


def _has_normal(folder: pathlib.Path) -> bool:
    return any(True for train in _named(folder, "train") for _ in _named(train, *_GOOD_FOLDERS))


def _named(folder: pathlib.Path, *names: str) -> Iterator[pathlib.Path]:
    return (child for child in folders(folder) if matching(child.name) in names)


def _note_no_class(found: Found, path: pathlib.Path) -> None:
    images = images_below(path)[0] if path.is_dir() else []
    if images:
        action = f"ignored, with {len(images)} images"
        found.note(f"{found.name_of(path)}/", "empty_class", "neither train nor test in it", action)
    else:
        found.stray(path, "not part of a class folder")


class ClassLister:
    """Lists one class folder into a `Found`.

    A subclass names other folders with `PARTS` and `IGNORED`, and with `PASSED_OVER` the folders
    inside a split that hold none of its images.
    """

    PARTS: ClassVar[dict[str, str]] = {name: name for name in (*SPLITS, _MASKS)}
    PASSED_OVER: frozenset[str] = frozenset()

    def __init__(self, found: Found, folder: pathlib.Path):
        self.found = found
        self.folder = folder
        self._name = printable(folder.name)

    def parts(self) -> dict[str, list[pathlib.Path]]:
        """Hook: returns the folders of the splits and of the masks, "ground_truth"."""
        parts: dict[str, list[pathlib.Path]] = {}
        for child in children(self.folder):
            part = self.PARTS.get(matching(child.name))
            if child.is_dir() and part:
                parts.setdefault(part, []).append(child)
            elif not self.found.take_mask(self._name, child):
                self.stray_part(child)
        return parts

    def stray_part(self, path: pathlib.Path) -> None:
        """Hook: notes what is none of the parts of a class."""
        self.found.stray(path, f"not one of {', '.join(self.PARTS)}")

    def run(self) -> None:
        """Adds the class's entries and problems to the listing."""
        if fault := name_fault(self._name):
            images, _ = images_below(self.folder)
            action = f"class left out, with {len(images)} images"
            self.found.note(repr(self._name), "empty_class", fault, action)
            return
        self.found.add_class(self._name)
        parts = self.parts()
        masks = self._list_masks(parts.get(_MASKS, []))
        images = {split: self._list_split(split, parts.get(split, [])) for split in SPLITS}
        masks_of = _match(images["test"], masks)
        for split in SPLITS:
            for path in images[split]:
                self.found.entries.append(self._entry(split, path, masks_of.get(path, ())))
        used = {mask for paths in masks_of.values() for mask in paths}
        for mask in sorted(mask for paths in masks.values() for mask in paths if mask not in used):
            self.found.stray(mask, "a mask without an image")

    def _list_masks(self, parts: list[pathlib.Path]) -> _Masks:
        masks: _Masks = {}
        for folder in self._type_folders(parts):
            for path in children(folder):
                if path.is_dir():
                    inner = [image for image in children(path) if self._is_image(image)]
                    masks.setdefault((folder, path.name), []).extend(inner)
                elif self._is_image(path):
                    same = masks.setdefault((folder, path.stem), [])
                    if same:
                        self.found.stray(path, f"a second mask beside {same[0].name}")
                    else:
                        same.append(path)
        return {key: paths for key, paths in masks.items() if paths}

    def _list_split(self, split: str, parts: list[pathlib.Path]) -> list[pathlib.Path]:
        images = []
        for folder in self._type_folders(parts):
            paths = [path for path in children(folder) if self._is_image(path)]
            if split == "test":
                self.found.add_type(self._name, _type(folder))
                images += paths
            elif _key(folder) == GOOD:
                images += paths
            else:
                for path in paths:
                    self.found.stray(path, f"{_USE[split]} images must be in {split}/good")
        return images

    def _entry(self, split: str, path: pathlib.Path, masks: Iterable[pathlib.Path]) -> Entry:
        defect = self.found.add_type(self._name, _type(path.parent)) if split == "test" else GOOD
        return Entry(
            split=split,
            class_name=self._name,
            defect_type=defect,
            filename=self.found.name_of(path),
            image=path,
            masks=tuple(masks),
            without_mask="zero" if defect == GOOD else "error",
        )

    def _type_folders(self, parts: list[pathlib.Path]) -> Iterator[pathlib.Path]:
        """Yields the folders `part/DEFECT`; files beside them are strays."""
        for part in parts:
            for folder in children(part):
                if not folder.is_dir():
                    self.found.stray(folder, f"lies beside the folders of {part.name}")
                elif matching(folder.name) not in self.PASSED_OVER:
                    yield folder

    def _is_image(self, path: pathlib.Path) -> bool:
        """Returns True for an image file; everything else becomes a stray."""
        if path.is_dir():
            self.found.stray(path, "a folder among images")
        elif not is_image(path):
            self.found.stray(path, "not the name of an image")
        else:
            return True
        return False


def _type(folder: pathlib.Path) -> str:
    """The defect type of a folder, in the user's spelling."""
    name = printable(folder.name)
    return GOOD if matching(name) in _GOOD_FOLDERS else name


def _key(folder: pathlib.Path) -> str:
    return matching(_type(folder))


def _match(images: list[pathlib.Path], masks: _Masks) -> dict[pathlib.Path, list[pathlib.Path]]:
    """The masks of each image: those spelled as it is, else the unused ones that match it."""
    matched: dict[pathlib.Path, list[pathlib.Path]] = {}
    spellings: list[Callable[[pathlib.Path, str], tuple[str, str]]] = [
        lambda folder, stem: (folder.name, stem),
        lambda folder, stem: (_key(folder), matching(stem)),
    ]
    for spelled in spellings:
        used = set(map(id, matched.values()))
        free = {spelled(*key): paths for key, paths in masks.items() if id(paths) not in used}
        for image in images:
            keys = (spelled(image.parent, image.stem + end) for end in (_MASK_SUFFIX, ""))
            paths = next((free[key] for key in keys if key in free), None)
            if paths and image not in matched:
                matched[image] = paths
    return matched
