"""The user's files: one rule for every command that reads a folder.

Passed over are hidden files and folders, those that operating systems and tools leave behind, and
the data sets and caches that this project writes. Links are followed and keep the user's names.
What the user names is taken, whatever it is called.
"""

import os
import pathlib
from collections.abc import Iterator

from promptmad_jax.data.paths import printable
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.names import matching

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
_SYSTEM = frozenset(
    "__macosx thumbs.db ehthumbs.db desktop.ini @eadir #recycle #snapshot lost+found"
    " $recycle.bin __pycache__".split()
) | {"system volume information"}
STAGING = ".preparing-"  # Begins the name of a folder in which a data set is being built.
_PREPARED = ("dataset_info.json", "features.json")
_CACHES = ("resized", "feature_cache")


def is_users_name(name: str) -> bool:
    """Returns False for the name of a hidden or system file or folder."""
    return not name.startswith(".") and name != "Icon\r" and matching(name) not in _SYSTEM


def children(folder: pathlib.Path) -> list[pathlib.Path]:
    """The user's files and folders in a folder, sorted.

    Raises:
      UserError: the folder cannot be listed.
    """
    try:
        paths = sorted(path for path in folder.iterdir() if is_users_name(path.name))
        return [path for path in paths if not (path.is_dir() and _is_own(path))]
    except OSError as error:
        raise UserError(f"{printable(folder)}: cannot be listed ({error.strerror})") from error


def folders(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """The user's folders in a folder, sorted."""
    return (child for child in children(folder) if child.is_dir())


def files_below(folder: pathlib.Path) -> list[pathlib.Path]:
    """The user's files below a folder, sorted; a link to a folder above itself is not entered."""
    found, waiting = [], [(folder, frozenset())]
    while waiting:
        place, above = waiting.pop()
        real = place.resolve()
        if real in above:
            continue
        for child in children(place):
            if child.is_dir():
                waiting.append((child, above | {real}))
            else:
                found.append(child)
    return sorted(found)


def images_below(folder: pathlib.Path) -> tuple[list[pathlib.Path], list[pathlib.Path]]:
    """The user's images below a folder, and the user's other files; both sorted."""
    files = files_below(folder)
    images = [file for file in files if is_image(file)]
    return images, sorted(set(files) - set(images))


def is_image(path: pathlib.Path) -> bool:
    """Returns True for a file, or a broken link, that is named as an image."""
    # Reading a pipe would never end.
    special = os.path.exists(path) and not os.path.isfile(path)
    return path.suffix.lower() in IMAGE_SUFFIXES and not special


def no_images(files: list[pathlib.Path]) -> str:
    """Says how many files are no images and names the first."""
    verb = "file is no image" if len(files) == 1 else "files are no images"
    return f"{len(files)} {verb}, the first: {printable(files[0])}"


def _is_own(folder: pathlib.Path) -> bool:
    """Returns True for a data set or cache of this project, or a folder of nothing else."""
    if all((folder / name).is_file() for name in _PREPARED):
        return True
    if folder.name in _CACHES:
        return not images_below(folder)[0]
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return False
    inner = [entry for entry in entries if is_users_name(entry.name)]
    if not inner:
        return any(entry.name.startswith(STAGING) for entry in entries)
    folders_only = all(entry.is_dir(follow_symlinks=False) for entry in inner)
    return folders_only and all(_is_own(pathlib.Path(entry)) for entry in inner)


class ListedFiles:
    """Finds the files that a list names relative to a folder, in any spelling of their names."""

    def __init__(self, base: pathlib.Path):
        self.base = base
        self._spellings: dict[pathlib.Path, dict[str, list[str]]] = {}

    def __call__(self, name: str) -> pathlib.Path:
        """The file of this name; else the one that matches it across case and Unicode; else the
        path as it is written. Backslashes separate folders."""
        relative = pathlib.PurePosixPath(name.replace("\\", "/"))
        path = self.base / relative
        if os.path.exists(path):  # Unlike the method, False for an impossible name.
            return path
        place = self.base
        for part in relative.parts:
            place = place / self._spelled(place, part)
        return place if os.path.exists(place) else path

    def name_of(self, path: pathlib.Path) -> str:
        """The name relative to the folder, if it is below it."""
        below = path.is_relative_to(self.base)
        return printable(path.relative_to(self.base) if below else path)

    def _spelled(self, folder: pathlib.Path, part: str) -> str:
        if os.path.exists(folder / part):
            return part
        if folder not in self._spellings:
            self._spellings[folder] = _spellings_in(folder)
        names = self._spellings[folder].get(matching(part), [])
        return names[0] if len(names) == 1 else part


def _spellings_in(folder: pathlib.Path) -> dict[str, list[str]]:
    spellings: dict[str, list[str]] = {}
    for name in sorted(os.listdir(folder)) if folder.is_dir() else []:
        spellings.setdefault(matching(name), []).append(name)
    return spellings
