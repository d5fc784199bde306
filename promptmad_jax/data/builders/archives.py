"""Unpacking of zip and tar archives, one member at a time."""

import contextlib
import errno
import functools
import pathlib
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO

from promptmad_jax.data.paths import printable
from promptmad_jax.data.user_files import children, files_below, is_image, is_users_name
from promptmad_jax.runtime.errors import UserError

SUFFIXES = (".tar", ".tar.xz", ".txz", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".zip")
_NESTED = 3  # levels of archives in archives
# Image data shrink a few times; what grows far more on unpacking was made to fill a disk.
_MAX_GROWTH = 200
_MIN_REFUSED = 2**30
_MAX_MEMBERS = 1_000_000
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_METHODS = {9: "Deflate64", 93: "Zstandard", 95: "XZ", 98: "PPMd", 99: "AES encryption"}
_EXTRACT = "extract it yourself and give the folder"


class _Refused(Exception):
    """The reason why an archive cannot be used."""


@dataclass(frozen=True)
class _Member:
    """A file, folder or link of an archive; a link has a target, from the root if `hard`."""

    name: str
    size: int = 0
    read: Callable[[], IO[bytes] | None] | None = None
    link: str = ""
    hard: bool = False


@dataclass
class _Unpacking:
    """The part of an archive that is unpacked so far.

    Attributes:
      target: the folder for the members.
      packed: bytes of the archive.
      free: bytes that were free on the disk at the start.
      size: bytes of the members so far; `members`, their number.
      links: the links, to be made once all files are there, so that none is written through.
    """

    target: pathlib.Path
    packed: int
    free: int
    size: int = 0
    members: int = 0
    links: dict[pathlib.Path, _Member] = field(default_factory=dict)
    repeated: list[str] = field(default_factory=list)


def is_archive(path: pathlib.Path) -> bool:
    """Returns True for the name of an archive."""
    return path.name.lower().endswith(SUFFIXES)


def stem(archive: pathlib.Path) -> str:
    """The name of an archive without its suffix."""
    suffix = max((end for end in SUFFIXES if archive.name.lower().endswith(end)), key=len)
    return archive.name[: -len(suffix)].strip(".") or "archive"


def unpack(archive: pathlib.Path, target: pathlib.Path, nested: int = _NESTED) -> list[str]:
    """Unpacks the user's files of an archive, and archives that are all it holds beside them.

    Names cannot leave the target: leading slashes are dropped, and `..` is refused. Backslashes
    separate folders.

    Returns:
      The names that the archive holds more than once; the last of each is kept.

    Raises:
      UserError: the archive is damaged, protected, packed in an unknown way or made to do harm, or
        the disk is full.
    """
    target.mkdir(parents=True)
    state = _Unpacking(target, archive.stat().st_size, shutil.disk_usage(target).free)
    try:
        _unpack_members(archive, state)
        _make_links(state)
    except _Refused as error:
        raise UserError(f"{printable(archive)}: {error}") from error
    inner = files_below(target)
    if nested and not any(map(is_image, inner)):
        for path in filter(is_archive, inner):
            folder = path.with_name(stem(path))
            state.repeated += unpack(path, folder, nested - 1)
            path.unlink()
            _drop_doubled(folder)
    return state.repeated


def _drop_doubled(folder: pathlib.Path) -> None:
    """Makes `NAME/NAME`, as an archive NAME.tar with the folder NAME gives, one folder."""
    inner = folder / folder.name
    if children(folder) == [inner]:
        passing = folder.rename(folder.with_name(f".{folder.name}"))
        (passing / folder.name).rename(folder)


def _unpack_members(archive: pathlib.Path, state: _Unpacking) -> None:
    try:
        members = _zip_members(archive) if _is_zip(archive) else _tar_members(archive)
        for member in members:
            try:
                _unpack_member(member, state)
            except OSError as error:
                if error.errno in _NO_ROOM:
                    raise _no_room(state, members) from error
                raise
    except (_Refused, UserError):
        raise
    except OSError as error:
        if error.errno is not None:
            raise _Refused(f"cannot be unpacked ({error.strerror})") from error
        raise _damaged(error) from error
    except Exception as error:  # The readers raise many types on damaged bytes.
        raise _damaged(error) from error


def _is_zip(archive: pathlib.Path) -> bool:
    with open(archive, "rb") as file:
        start = file.read(4)
    named = archive.suffix.lower() == ".zip"
    return start in (b"PK\3\4", b"PK\5\6") or (named and zipfile.is_zipfile(archive))


def _damaged(error: Exception) -> _Refused:
    reason = str(error) or type(error).__name__
    if "\n" in reason:  # Of `tarfile.open`, a line per kind of compression.
        reason = "neither zip nor tar"
    return _Refused(
        f"the archive is damaged or incomplete ({reason}); fetch it again, or give an extracted"
        " folder"
    )


def _no_room(state: _Unpacking, rest: Iterator[_Member]) -> _Refused:
    with contextlib.suppress(Exception):  # A damaged rest does not change the reason.
        state.size += sum(member.size for member in rest)
    need, free = (f"{-(-size // 10**6):,} MB" for size in (state.size, state.free))
    return _Refused(
        f"needs {need} to be unpacked and {free} are free on the disk of --data_dir: make room,"
        f" choose another, or {_EXTRACT}"
    )


def _unpack_member(member: _Member, state: _Unpacking) -> None:
    parts = [part for part in member.name.replace("\\", "/").split("/") if part not in ("", ".")]
    state.size += member.size
    state.members += 1
    if ".." in parts:
        raise _Refused(f"holds a name that leads out of it ({member.name}): {_EXTRACT}")
    if state.members > _MAX_MEMBERS:
        raise _Refused(f"holds more than {_MAX_MEMBERS:,} files: {_EXTRACT}")
    if state.size > max(_MIN_REFUSED, _MAX_GROWTH * state.packed):
        raise _Refused(
            f"would grow to more than {state.size // state.packed} times its size, as archives do"
            f" that are made to fill a disk: if this is meant, {_EXTRACT}"
        )
    if state.size > state.free:
        raise OSError(errno.ENOSPC, "")
    if not parts or not all(map(is_users_name, parts)):
        return
    path = state.target.joinpath(*parts)
    if path.is_file() or path in state.links:
        state.repeated.append("/".join(parts))
    state.links.pop(path, None)
    path.parent.mkdir(parents=True, exist_ok=True)
    if member.link:
        state.links[path] = member
    elif member.read is None:
        path.mkdir(exist_ok=True)
    else:
        with member.read() as source, open(path, "wb") as file:
            shutil.copyfileobj(source, file, 2**20)


def _make_links(state: _Unpacking) -> None:
    for path, member in state.links.items():
        path.unlink(missing_ok=True)
        path.symlink_to(state.target / member.link if member.hard else member.link)
    root = state.target.resolve()
    for path, member in state.links.items():
        if not path.resolve().is_relative_to(root):
            raise _Refused(f"holds a link out of it ({member.name} -> {member.link}): {_EXTRACT}")


def _zip_members(archive: pathlib.Path) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as zipped:
        for info in zipped.infolist():
            read = functools.partial(_open_zipped, zipped, info)
            name = _zip_name(info).replace("\\", "/")
            if name.endswith("/"):
                yield _Member(name)
            elif stat.S_ISLNK(info.external_attr >> 16):
                with read() as file:
                    yield _Member(name, link=file.read(4096).decode())
            else:
                yield _Member(name, info.file_size, read)


def _zip_name(info: zipfile.ZipInfo) -> str:
    """The name of a member; many programs write UTF-8 without the flag that says so."""
    utf8 = info.flag_bits & 0x800
    with contextlib.suppress(UnicodeError):
        return info.filename if utf8 else info.filename.encode("cp437").decode()
    return info.filename


def _open_zipped(zipped: zipfile.ZipFile, info: zipfile.ZipInfo) -> IO[bytes]:
    if info.flag_bits & 1:
        raise _Refused(f"is protected by a password: {_EXTRACT}")
    try:
        return zipped.open(info)
    except NotImplementedError as error:
        method = _METHODS.get(info.compress_type, f"method {info.compress_type}")
        raise _Refused(
            f"is packed in a way that Python cannot read ({method}): {_EXTRACT}"
        ) from error


class _Header(tarfile.TarInfo):
    """A header that is damaged or cut off is an error also behind the first member."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> tarfile.TarInfo:
        try:
            return super().fromtarfile(archive)
        except (
            tarfile.EmptyHeaderError,
            tarfile.TruncatedHeaderError,
            tarfile.InvalidHeaderError,
        ) as error:
            raise tarfile.ReadError(str(error)) from error


def _tar_members(archive: pathlib.Path) -> Iterator[_Member]:
    with tarfile.open(archive, tarinfo=_Header) as tar:
        for info in tar:
            if info.isdir():
                yield _Member(info.name)
            elif info.issym() or info.islnk():
                yield _Member(info.name, link=info.linkname, hard=info.islnk())
            elif info.isfile():
                yield _Member(info.name, info.size, functools.partial(tar.extractfile, info))
            else:
                raise _Refused(f"holds a device or a pipe ({info.name}): {_EXTRACT}")
