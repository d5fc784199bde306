"""Sources of data sets: a folder, an archive, or a list file."""

import hashlib
import lzma
import os
import pathlib
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable

from promptmad_jax.data.builders.layout import find_in_folder
from promptmad_jax.data.builders.lists import find_in_list, list_files
from promptmad_jax.data.builders.records import Found
from promptmad_jax.data.paths import printable
from promptmad_jax.runtime.errors import UserError

ARCHIVE_SUFFIXES = (".tar", ".tar.xz", ".txz", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".zip")
LIST_SUFFIXES = (".json", ".jsonl")
_DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    lzma.LZMAError,
    zlib.error,
    EOFError,
    shutil.ReadError,
)


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
    try:
        if path.is_dir():
            return list_folder(path, image_dir)
        if _ends(path, LIST_SUFFIXES):
            return find_in_list(path, image_dir)
        if _ends(path, ARCHIVE_SUFFIXES):
            return list_folder(_unpack(path, scratch), image_dir)
    except PermissionError as error:
        raise UserError(f"{printable(error.filename)}: {error.strerror}") from error
    raise UserError(
        f"{printable(path)}: not a folder, an archive ({', '.join(ARCHIVE_SUFFIXES)}) or a list"
        f" ({', '.join(LIST_SUFFIXES)})"
    )


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
        names = sorted(found.class_names) + sorted(problem.file for problem in found.problems)
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
    path = pathlib.Path(source).expanduser().absolute()
    if not path.exists():
        raise UserError(f"{printable(path)} does not exist: check --source")
    return path


def _ends(path: pathlib.Path, suffixes: tuple[str, ...]) -> bool:
    return path.name.lower().endswith(suffixes)


def _stamp(file: pathlib.Path) -> str:
    if not file.exists():
        return " missing"
    status = file.stat()
    return f" {status.st_size} {status.st_mtime_ns}"


def _unpack(archive: pathlib.Path, scratch: pathlib.Path) -> pathlib.Path:
    target = scratch / "unpacked"
    try:
        if _ends(archive, (".zip",)):
            shutil.unpack_archive(archive, target, "zip")
        else:
            with tarfile.open(archive) as tar:
                tar.extractall(target, filter="data")
    except _DAMAGED as error:
        raise UserError(
            f"{printable(archive)}: the archive is damaged or incomplete ({error});"
            " fetch it again, or give an extracted folder"
        ) from error
    except OSError as error:
        raise UserError(f"{printable(archive)}: cannot be unpacked to {target}: {error}") from error
    return target
