"""Archives of a tree, and the ways to bend them."""

import io
import pathlib
import random
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Iterator

Archive = Callable[[random.Random, pathlib.Path, pathlib.Path], pathlib.Path]


def _files(root: pathlib.Path) -> Iterator[tuple[pathlib.Path, str]]:
    for path in sorted(root.rglob("*")):
        if path.is_file():
            yield path, str(path.relative_to(root)).encode("utf-8", "backslashreplace").decode()


def _zip(
    target: pathlib.Path,
    root: pathlib.Path,
    name: Callable[[str], str] = str,
    extra: tuple[tuple[str, bytes], ...] = (),
    method: int = zipfile.ZIP_DEFLATED,
) -> pathlib.Path:
    with warnings.catch_warnings(), zipfile.ZipFile(target, "w", method) as archive:
        warnings.simplefilter("ignore")  # of names twice
        for path, inner in _files(root):
            archive.writestr(zipfile.ZipInfo(name(inner)), path.read_bytes(), method)
        for inner, data in extra:
            archive.writestr(zipfile.ZipInfo(inner), data, method)
    return target


def _tar(
    target: pathlib.Path,
    root: pathlib.Path,
    mode: str = "w:gz",
    extra: Callable[[], tuple[tarfile.TarInfo, ...]] = tuple,
) -> pathlib.Path:
    with tarfile.open(target, mode) as archive:
        for path, inner in _files(root):
            archive.add(path, inner, recursive=False)
        for entry in extra():
            archive.addfile(entry, io.BytesIO(b"\0" * entry.size))
    return target


def _entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname, entry.size = kind, link, 0 if kind != tarfile.REGTYPE else 3
    return entry


def _patched(offset_local: int, offset_central: int, value: int) -> Archive:
    """A zip whose entries' headers have another byte: compression or flags."""

    def make(rng: random.Random, root: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
        path = _zip(folder / "parts.zip", root)
        data = bytearray(path.read_bytes())
        for mark, offset in ((b"PK\3\4", offset_local), (b"PK\1\2", offset_central)):
            place = data.find(mark)
            while place >= 0:
                data[place + offset] = value
                place = data.find(mark, place + 4)
        path.write_bytes(data)
        return path

    return make


def _cut(make: Archive) -> Archive:
    def cut(rng: random.Random, root: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
        path = make(rng, root, folder)
        data = path.read_bytes()
        path.write_bytes(data[: rng.randrange(len(data))])
        return path

    return cut


def _simple(make: Callable[[pathlib.Path, pathlib.Path], pathlib.Path]) -> Archive:
    return lambda rng, root, folder: make(root, folder)


def _links() -> tuple[tarfile.TarInfo, ...]:
    return (
        _entry("bracket/train/good/out.png", tarfile.SYMTYPE, "../../../../../../etc/passwd"),
        _entry("bracket/train/good/abs.png", tarfile.SYMTYPE, "/etc/passwd"),
    )


def _nested(root: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    inner = _zip(folder / "inner.zip", root)
    outer = folder / "outer.zip"
    with zipfile.ZipFile(outer, "w") as archive:
        archive.write(inner, "inner.zip")
    inner.unlink()
    return outer


_GOOD_ZIP = _simple(lambda root, folder: _zip(folder / "parts.zip", root))
_GOOD_TAR = _simple(lambda root, folder: _tar(folder / "parts.tar.gz", root))
_BOMB = (("bracket/zeros.png", bytes(50_000_000)),)

ARCHIVES: dict[str, Archive] = {
    "zip": _GOOD_ZIP,
    "zip of a Mac": _simple(
        lambda root, folder: _zip(
            folder / "mac.zip", root, "parts/{}".format, (("__MACOSX/parts/._x.png", b"\0\5"),)
        )
    ),
    "zip with backslashes": _simple(
        lambda root, folder: _zip(folder / "win.zip", root, lambda name: name.replace("/", "\\"))
    ),
    "zip that climbs out": _simple(
        lambda root, folder: _zip(folder / "parts.zip", root, extra=(("../../up.png", b"x"),))
    ),
    "zip with absolute names": _simple(
        lambda root, folder: _zip(folder / "parts.zip", root, "/{}".format)
    ),
    "zip with names twice": _simple(
        lambda root, folder: _zip(
            folder / "parts.zip", root, extra=(("a/train/good/0.png", b"x"),) * 2
        )
    ),
    "zip bomb": _simple(lambda root, folder: _zip(folder / "parts.zip", root, extra=_BOMB)),
    "zip of a zip": _simple(_nested),
    "zip called tar": _simple(lambda root, folder: _zip(folder / "parts.tar", root)),
    "zip in capitals": _simple(lambda root, folder: _zip(folder / "PARTS.ZIP", root)),
    "zip by bzip2": _simple(
        lambda root, folder: _zip(folder / "parts.zip", root, method=zipfile.ZIP_BZIP2)
    ),
    "zip with unknown compression": _patched(8, 10, 9),
    "zip with a password": _patched(6, 8, 1),
    "zip cut": _cut(_GOOD_ZIP),
    "tar": _GOOD_TAR,
    "tar by xz": _simple(lambda root, folder: _tar(folder / "parts.tar.xz", root, "w:xz")),
    "tar called zip": _simple(lambda root, folder: _tar(folder / "parts.zip", root)),
    "tar that climbs out": _simple(
        lambda root, folder: _tar(
            folder / "parts.tar.gz", root, extra=lambda: (_entry("../../up.png"),)
        )
    ),
    "tar with absolute names": _simple(
        lambda root, folder: _tar(
            folder / "parts.tar.gz", root, extra=lambda: (_entry("/tmp/promptmad-up.png"),)
        )
    ),
    "tar with links out": _simple(
        lambda root, folder: _tar(folder / "parts.tar.gz", root, extra=_links)
    ),
    "tar with a device": _simple(
        lambda root, folder: _tar(
            folder / "parts.tar.gz", root, extra=lambda: (_entry("null.png", tarfile.CHRTYPE),)
        )
    ),
    "tar cut": _cut(_GOOD_TAR),
    "empty zip": _simple(lambda root, folder: _zip(folder / "parts.zip", folder / "none")),
    "no archive": lambda rng, root, folder: _written(folder / "parts.zip", b"hello"),
    "archive of no bytes": lambda rng, root, folder: _written(folder / "parts.tar.gz", b""),
}


def _written(path: pathlib.Path, data: bytes) -> pathlib.Path:
    path.write_bytes(data)
    return path
