"""Sources of data sets: a folder, an archive, or a list file."""

import contextlib
import hashlib
import os
import pathlib
import re
from collections.abc import Callable, Iterator

from promptmad_jax.data.builders import archives
from promptmad_jax.data.builders.layout import find_in_folder
from promptmad_jax.data.builders.lists import find_in_list, list_files
from promptmad_jax.data.builders.records import Found
from promptmad_jax.data.paths import printable
from promptmad_jax.runtime.errors import UserError

LIST_SUFFIXES = (".json", ".jsonl")
_PART = re.compile(r"\.(\d{3}|z\d\d|part\d+)$", re.IGNORECASE)

# Lists an extracted folder; the second argument is the folder of a list's images.
ListFolder = Callable[[pathlib.Path, str], Found]


def find(
    source: str,
    image_dir: str,
    scratch: pathlib.Path,
    list_folder: ListFolder = find_in_folder,
) -> Found:
    """Lists the images of a source; an archive is unpacked into `scratch` first.

    Args:
      list_folder: lists a folder, by default one in MVTec layout.

    Raises:
      UserError: the source is missing, damaged, or neither folder nor archive nor list.
    """
    path = existing(source)
    if path.is_dir():
        return list_folder(path, image_dir)
    if _ends(path, LIST_SUFFIXES):
        return find_in_list(path, image_dir)
    if archives.is_archive(path):
        target = scratch / archives.stem(path)
        repeated = archives.unpack(path, target)
        found = list_folder(target, image_dir)
        for name in repeated:
            found.note(name, "duplicate", "more than once in the archive", "the last kept")
        return found
    if _PART.search(path.name):
        raise UserError(f"{printable(path)}: one part of an archive; join the parts first")
    raise UserError(
        f"{printable(path)}: not a folder, an archive ({', '.join(archives.SUFFIXES)}) or a list"
        f" ({', '.join(LIST_SUFFIXES)})"
    )


@contextlib.contextmanager
def in_users_names(source: str, scratch: pathlib.Path) -> Iterator[None]:
    """Names the archive in place of the folder that it was unpacked to, in every `UserError`."""
    path = existing(source)
    try:
        yield
    except UserError as error:
        if not path.is_file() or not archives.is_archive(path):
            raise
        unpacked = printable(scratch / archives.stem(path))
        text = str(error).replace(unpacked, printable(path))
        raise UserError(text.replace(printable(scratch), printable(path))) from error


def fingerprint(source: str, image_dir: str, list_folder: ListFolder = find_in_folder) -> str:
    """A digest of the names, sizes and times of a source's files; reads no pixels, unpacks nothing.

    It shows if a source has changed since its data set was prepared. A copy with other file times
    counts as another source.
    """
    path = existing(source)
    files = [path]
    names: list[str] = []
    if path.is_dir() or _ends(path, LIST_SUFFIXES):
        found = find(source, image_dir, path, list_folder)
        files = list(found.lists) if path.is_dir() else list_files(path)
        files += [file for entry in found.entries for file in (entry.image, *entry.masks)]
        files += found.ignored.values()
        # Not the folders that are no classes: one of them may be the data_dir.
        strays = (problem.file for problem in found.problems if not problem.file.endswith("/"))
        names = sorted(found.class_names) + sorted(strays)
    digest = hashlib.sha256("\0".join(names).encode())
    for file in files:
        digest.update(f"\0{printable(os.path.relpath(file, path.parent))}{_stamp(file)}".encode())
    return digest.hexdigest()


def existing(source: str) -> pathlib.Path:
    """The source as an absolute path.

    Raises:
      UserError: none is given, or it does not exist.
    """
    if not source:
        raise UserError("no source is given: name a folder, archive or list with --source=PATH")
    path = pathlib.Path(source).expanduser()
    # A link keeps its own name; the folder above one is that of its target.
    path = path.resolve() if ".." in path.parts else path.absolute()
    if not os.path.exists(path):
        raise UserError(f"{printable(path)} does not exist: check --source")
    return path


def _ends(path: pathlib.Path, suffixes: tuple[str, ...]) -> bool:
    return path.name.lower().endswith(suffixes)


def _stamp(file: pathlib.Path) -> str:
    if not os.path.exists(file):
        return " missing"
    status = file.stat()
    return f" {status.st_size} {status.st_mtime_ns}"
