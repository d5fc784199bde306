"""Archives: read as meant, or refused in one sentence that names the user's file."""

import io
import os
import pathlib
import shutil
import tarfile
import zipfile

import pytest

from promptmad_jax.data.builders import archives
from promptmad_jax.data.builders.source import find, in_users_names
from promptmad_jax.runtime.errors import UserError
from tests.data.building import build, records
from tests.data.image_trees import write_class


def listed(archive: pathlib.Path, scratch: pathlib.Path):
    scratch.mkdir()
    with in_users_names(str(archive), scratch):
        return find(str(archive), "", scratch)


def packed(path: pathlib.Path, members: dict[str, bytes]) -> pathlib.Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as zipped:
            for name, data in members.items():
                zipped.writestr(zipfile.ZipInfo(name), data)
        return path
    with tarfile.open(path, f"w:{path.suffix[1:].replace('tar', '')}") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def members(tmp_path) -> dict[str, bytes]:
    """The contents of one class folder."""
    write_class(tmp_path / "source", "widget")
    root = tmp_path / "source" / "widget"
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


@pytest.mark.parametrize("suffix", [".tar.xz", ".tar.gz", ".tar", ".zip"])
def test_an_archive_of_one_class_is_called_as_the_archive(tmp_path, members, suffix):
    folder = build(tmp_path / "data", packed(tmp_path / f"part 7{suffix}", members))
    assert sorted(records(folder, "train")) == [f"part 7/train/good/00{i}.png" for i in (0, 1)]
    assert not list(tmp_path.glob("data/**/.unpacked-*"))


def _with_system_files(members):
    extra = {f"__MACOSX/widget/._{name}": b"x" for name in ("a.png", "b")}
    return {**{f"widget/{k}": v for k, v in members.items()}, **extra, ".DS_Store": b"x"}


@pytest.mark.parametrize(
    "rename",
    [
        _with_system_files,
        lambda members: {f"widget\\{k}".replace("/", "\\"): v for k, v in members.items()},
        lambda members: {f"/home/me/widget/{k}": v for k, v in members.items()},
        lambda members: {f"./widget/./{k}": v for k, v in members.items()},
    ],
)
@pytest.mark.parametrize("suffix", [".tar", ".zip"])
def test_names_are_read_as_meant(tmp_path, members, rename, suffix):
    found = listed(packed(tmp_path / f"all{suffix}", rename(members)), tmp_path / "scratch")
    assert found.class_names == {"widget"}
    assert (len(found.entries), found.problems) == (5, [])


def test_an_archive_in_an_archive_repeated_and_wrongly_encoded_names(tmp_path, members):
    first = next(iter(members))
    inner = packed(tmp_path / "dös.zip", members)
    with zipfile.ZipFile(inner, "a") as zipped, pytest.warns(UserWarning, match="Duplicate"):
        zipped.writestr(first, members[first])
    outer = packed(tmp_path / "download.zip", {"dXXs.zip": inner.read_bytes(), "readme": b""})
    outer.write_bytes(outer.read_bytes().replace(b"dXXs", "dös".encode()))
    found = listed(outer, tmp_path / "scratch")
    assert found.class_names == {"dös"}
    assert [p.file for p in found.problems if p.kind == "duplicate"] == [first]


def test_links_inside_an_archive(tmp_path, members):
    write_class(tmp_path / "source", "gasket")
    (tmp_path / "source" / "cap").symlink_to("gasket")
    path = pathlib.Path(shutil.make_archive(str(tmp_path / "p"), "tar", tmp_path / "source"))
    assert listed(path, tmp_path / "scratch").class_names == {"cap", "gasket", "widget"}


def _bytes_changed(path: pathlib.Path, marks: dict[bytes, int], value: int) -> pathlib.Path:
    data = bytearray(path.read_bytes())
    for mark, offset in marks.items():
        place = -1
        while (place := data.find(mark, place + 1)) >= 0:
            data[place + offset] = value
    path.write_bytes(data)
    return path


def _special(path: pathlib.Path, kind: bytes, target: str = "") -> pathlib.Path:
    with tarfile.open(path, "w") as tar:
        info = tarfile.TarInfo("widget/train/good/a.png")
        info.type, info.linkname = kind, target
        tar.addfile(info)
    return path


def _damaged_in_the_middle(path: pathlib.Path, members) -> pathlib.Path:
    data = bytearray(packed(path, members).read_bytes())
    data[data.rfind(b"ustar") - 200] ^= 1  # in a header's checksum range
    path.write_bytes(data)
    return path


FAULTS = {
    "leads out": lambda p, m: packed(p / "a.tar", {"../x.png": b""}),
    "leads out of it": lambda p, m: packed(p / "a.zip", {"a\\..\\..\\x.png": b""}),
    r"Deflate64\)": lambda p, m: _bytes_changed(
        packed(p / "a.zip", m), {b"PK\3\4": 8, b"PK\1\2": 10}, 9
    ),
    "password": lambda p, m: _bytes_changed(
        packed(p / "a.zip", m), {b"PK\3\4": 6, b"PK\1\2": 8}, 1
    ),
    "link out of it": lambda p, m: _special(p / "a.tar", tarfile.SYMTYPE, "/etc"),
    "link out": lambda p, m: _special(p / "a.tar", tarfile.LNKTYPE, "../../../../../../etc/hosts"),
    "device or a pipe": lambda p, m: _special(p / "a.tar", tarfile.FIFOTYPE),
    "damaged or": lambda p, m: _damaged_in_the_middle(p / "a.tar", m),
    "incomplete": lambda p, m: _cut(packed(p / "a.tar", m), 0),
    "or incomplete": lambda p, m: _cut(packed(p / "a.tar.xz", m), 2000),
    "damaged or incomplete": lambda p, m: _cut(packed(p / "a.zip", m), 2000),
    "neither zip nor tar": lambda p, m: _cut(packed(p / "a.tar", m), 300),
    "is empty": lambda p, m: packed(p / "a.zip", {}),
    "cannot be unpacked": lambda p, m: packed(p / "a.zip", {"a" * 300 + ".png": b""}),
    "join the parts": lambda p, m: packed(p / "a.zip", m).rename(p / "a.zip.001"),
}


def _cut(path: pathlib.Path, size: int) -> pathlib.Path:
    """Cuts after `size` bytes; at 0, in front of a tar's end mark, between two members."""
    data = path.read_bytes()
    path.write_bytes(
        data[:size] if size else data.rstrip(b"\0") + bytes(-len(data.rstrip(b"\0")) % 512)
    )
    return path


@pytest.mark.parametrize("message", FAULTS)
def test_faults_are_one_sentence(tmp_path, members, message):
    path = FAULTS[message](tmp_path, members)
    with pytest.raises(UserError, match=rf"^{path}.*{message}") as error:
        listed(path, tmp_path / "scratch")
    assert "scratch" not in str(error.value)
    assert "\n" not in str(error.value)


def test_bombs_and_full_disks(tmp_path, members, monkeypatch):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("b.png", bytes(2**20))
        for name, data in members.items():
            zipped.writestr(name, data)
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    for name, value, message in (
        ("_MAX_MEMBERS", 3, "more than 3 files"),
        ("_MAX_GROWTH", 2, r"would grow to more than \d+ times"),
        ("shutil.disk_usage", lambda path: usage, "needs 2 MB to be unpacked and 1 MB are free"),
    ):
        with monkeypatch.context() as patch, pytest.raises(UserError, match=message):
            patch.setattr(archives, "_MIN_REFUSED", 1 if "GROWTH" in name else 2**30)
            patch.setattr(f"{archives.__name__}.{name}", value)
            listed(path, tmp_path / f"scratch {name}")
    assert os.listdir(tmp_path / "scratch shutil.disk_usage")
