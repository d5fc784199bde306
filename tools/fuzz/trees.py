"""Small trees of images in MVTec layout, and the ways to bend them."""

import os
import pathlib
import random
import shutil
import struct
import unicodedata
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

Bend = Callable[[random.Random, pathlib.Path], None]
SIDE = 24
_NAMES = ("bracket", "gasket", "Gehäuse", "pin 2")


def picture(seed: int, defect: bool = False) -> np.ndarray:
    """A grey picture with noise, uint8 [H, W, 3]; with `defect`, a red square."""
    noise = np.random.default_rng(seed).normal(0, 20, (SIDE, SIDE, 3))
    image = np.clip(120 + noise, 0, 255).astype(np.uint8)
    if defect:
        image[6:12, 6:12] = [250, 20, 20]
    return image


def mask() -> np.ndarray:
    """The mask of `picture`'s defect, uint8 [H, W]."""
    values = np.zeros((SIDE, SIDE), np.uint8)
    values[6:12, 6:12] = 255
    return values


def write_tree(rng: random.Random, root: pathlib.Path, classes: int) -> None:
    """Writes classes with 3 training images, 1 good one and 2 with masks for the test."""
    for name in rng.sample(_NAMES, classes):
        for i in range(3):
            save(root / name / "train" / "good" / f"{i:03}.png", picture(rng.randrange(2**31)))
        save(root / name / "test" / "good" / "000.png", picture(rng.randrange(2**31)))
        for i in range(2):
            image = picture(rng.randrange(2**31), defect=True)
            save(root / name / "test" / "scratch" / f"{i:03}.png", image)
            save(root / name / "ground_truth" / "scratch" / f"{i:03}_mask.png", mask())


def save(path: pathlib.Path, array: np.ndarray, **options: object) -> None:
    """Writes an array as an image, with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


def images(root: pathlib.Path) -> list[pathlib.Path]:
    """The regular files with an image's suffix below the folders of the splits, sorted."""
    return sorted(p for p in root.rglob("*.png") if p.is_file() and "ground_truth" not in p.parts)


def _an_image(act: Callable[[random.Random, pathlib.Path], None]) -> Bend:
    """Applies `act` to a random image."""
    return lambda rng, root: act(rng, rng.choice(images(root)))


def _a_mask(act: Callable[[random.Random, pathlib.Path], None]) -> Bend:
    def bend(rng: random.Random, root: pathlib.Path) -> None:
        masks = sorted(root.rglob("ground_truth/*/*_mask.png"))
        if masks:
            act(rng, rng.choice(masks))

    return bend


def _a_folder(pattern: str, act: Callable[[random.Random, pathlib.Path], None]) -> Bend:
    """Applies `act` to a random folder that matches `pattern`."""

    def bend(rng: random.Random, root: pathlib.Path) -> None:
        folders = sorted(p for p in root.glob(pattern) if p.is_dir())
        if folders:
            act(rng, rng.choice(folders))

    return bend


def _content(data: bytes) -> Bend:
    return _an_image(lambda rng, path: path.write_bytes(data))


def _truncate(rng: random.Random, path: pathlib.Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(1, len(data))])


def _flip(rng: random.Random, path: pathlib.Path) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(rng.randrange(1, 8)):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def _rename(name: str | Callable[[pathlib.Path], str]) -> Bend:
    def act(rng: random.Random, path: pathlib.Path) -> None:
        target = path.with_name(name if isinstance(name, str) else name(path))
        if not os.path.lexists(target):
            path.rename(target)

    return _an_image(act)


def _as(convert: Callable[[np.ndarray], object], suffix: str = ".png", **options: object) -> Bend:
    """Writes a random image again in another form."""

    def act(rng: random.Random, path: pathlib.Path) -> None:
        array = np.asarray(Image.open(path).convert("RGB"))
        made = convert(array)
        made = made if isinstance(made, Image.Image) else Image.fromarray(made)
        path.unlink()
        made.save(path.with_suffix(suffix), **options)

    return _an_image_that_opens(act)


def _an_image_that_opens(act: Callable[[random.Random, pathlib.Path], None]) -> Bend:
    def bend(rng: random.Random, root: pathlib.Path) -> None:
        whole = [path for path in images(root) if _opens(path)]
        if whole:
            act(rng, rng.choice(whole))

    return bend


def _opens(path: pathlib.Path) -> bool:
    try:
        with Image.open(path) as image:
            image.load()
        return True
    except Exception:  # A bent file; the commands are judged, not Pillow.
        return False


def _grey(array: np.ndarray) -> np.ndarray:
    return array.mean(-1)


def _turned(array: np.ndarray) -> Image.Image:
    image = Image.fromarray(array)
    image.getexif()[0x0112] = 6
    return image


def _header(width: int, height: int) -> bytes:
    """A PNG that says it is large and holds nothing."""
    body = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", body), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b""))
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, data in chunks:
        check = struct.pack(">I", zlib.crc32(kind + data))
        parts.append(struct.pack(">I", len(data)) + kind + data + check)
    return b"".join(parts)


def _add(name: str, data: bytes) -> Bend:
    """Adds a file beside the images of a random folder."""
    return _an_image(lambda rng, path: path.with_name(name).write_bytes(data))


def _add_copy(name: str) -> Bend:
    """Adds a copy of an image at a path relative to the image's folder."""

    def act(rng: random.Random, path: pathlib.Path) -> None:
        target = path.parent / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)

    return _an_image(act)


def _replace_mask(make: Callable[[np.ndarray], object], suffix: str = "_mask.png") -> Bend:
    def act(rng: random.Random, path: pathlib.Path) -> None:
        made = make(mask())
        made = made if isinstance(made, Image.Image) else Image.fromarray(made)
        path.unlink()
        made.save(path.with_name(path.name.replace("_mask.png", suffix)))

    return _a_mask(act)


def _loco(rng: random.Random, path: pathlib.Path) -> None:
    folder = path.with_name(path.name.removesuffix("_mask.png"))
    if not folder.exists():
        folder.mkdir()
        path.rename(folder / "000.png")


def _rename_folder(pattern: str, name: Callable[[str], str]) -> Bend:
    def act(rng: random.Random, folder: pathlib.Path) -> None:
        target = folder.with_name(name(folder.name))
        if not os.path.lexists(target):
            folder.rename(target)

    return _a_folder(pattern, act)


def _link_folder(rng: random.Random, folder: pathlib.Path) -> None:
    away = folder.parent.parent / f"linked-{folder.name}"
    if not folder.is_symlink() and not away.exists():
        folder.rename(away)
        folder.symlink_to(away, target_is_directory=True)


def _nest(rng: random.Random, root: pathlib.Path) -> None:
    inner = root / "outer"
    if not inner.exists():
        children = list(root.iterdir())
        inner.mkdir()
        for child in children:
            child.rename(inner / child.name)


def _images_up(rng: random.Random, folder: pathlib.Path) -> None:
    for path in list(folder.iterdir()):
        if not os.path.lexists(folder.parent / path.name):
            path.rename(folder.parent / path.name)


def _file_in_place(rng: random.Random, folder: pathlib.Path) -> None:
    shutil.rmtree(folder)
    folder.write_bytes(b"not a folder")


def _pipe(rng: random.Random, path: pathlib.Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _bytes_name(rng: random.Random, path: pathlib.Path) -> None:
    os.rename(path, os.fsencode(path.parent) + b"/\xff\xfe.png")


BENDS: dict[str, Bend] = {
    "image empty": _content(b""),
    "image is text": _content(b"hello\n"),
    "image is noise": _content(bytes(range(256)) * 4),
    "image cut": _an_image(_truncate),
    "image bits flipped": _an_image(_flip),
    "image header of 50,000 x 50,000": _content(_header(50_000, 50_000)),
    "image header of 0 x 0": _content(_header(0, 0)),
    "image suffix in capitals": _rename(lambda path: f"{path.stem}.PNG"),
    "image without suffix": _rename(lambda path: path.stem),
    "image with another format's suffix": _rename(lambda path: f"{path.stem}.jpg"),
    "image with a text's suffix": _rename(lambda path: f"{path.stem}.txt"),
    "image name with a newline": _rename("two\nlines.png"),
    "image name of 250 characters": _rename("n" * 246 + ".png"),
    "image name with signs": _rename("a b #%&'\"$é😀.png"),
    "image name that is no UTF-8": _an_image(_bytes_name),
    "image name with two suffixes": _rename(lambda path: f"{path.stem}.tar.png"),
    "image 16 bit": _as(lambda a: (_grey(a) * 257).astype(np.uint16)),
    "image 12 bit in 16": _as(lambda a: (_grey(a) * 16).astype(np.uint16)),
    "image 8 bit in 16": _as(lambda a: _grey(a).astype(np.uint16)),
    "image float tiff": _as(lambda a: (_grey(a) / 255).astype(np.float32), ".tif"),
    "image float tiff with NaN": _as(lambda a: np.full(a.shape[:2], np.nan, np.float32), ".tif"),
    "image palette": _as(lambda a: Image.fromarray(a).convert("P")),
    "image alpha": _as(lambda a: np.dstack([a, a[..., :1]])),
    "image transparent": _as(lambda a: np.dstack([a, a[..., :1] * 0])),
    "image grey alpha": _as(lambda a: Image.fromarray(a).convert("LA")),
    "image 1 bit": _as(lambda a: Image.fromarray(a).convert("1")),
    "image cmyk": _as(lambda a: Image.fromarray(a).convert("CMYK"), ".jpg"),
    "image turned by exif": _as(_turned, ".jpg"),
    "image gif": _as(lambda a: Image.fromarray(a).convert("P"), ".gif"),
    "image bmp": _as(lambda a: a, ".bmp"),
    "image 1 x 1": _as(lambda a: a[:1, :1]),
    "image 1 x 3000": _as(lambda a: np.repeat(a[:1, :1], 3000, 1)),
    "image larger": _as(lambda a: np.kron(a, np.ones((3, 2, 1), np.uint8))),
    "image black": _as(lambda a: a * 0),
    "image is a folder": _an_image(lambda rng, path: (path.unlink(), path.mkdir())[0]),
    "image is a pipe": _an_image(_pipe),
    "image is a broken link": _an_image(
        lambda rng, path: (path.unlink(), path.symlink_to("nowhere.png"))[0]
    ),
    "image links to itself": _an_image(
        lambda rng, path: (path.unlink(), path.symlink_to(path.name))[0]
    ),
    "system file ._": _add("._000.png", b"\0\5\26\7"),
    "system file Thumbs.db": _add("Thumbs.db", b"\xd0\xcf\x11\xe0"),
    "system file .DS_Store": _add(".DS_Store", b"\0\0\0\1Bud1"),
    "hidden image": _add_copy(".000.png"),
    "folder of Jupyter": _add_copy(".ipynb_checkpoints/000-checkpoint.png"),
    "folder __MACOSX": lambda rng, root: save(root / "__MACOSX" / "a.png", picture(1)),
    "folder .git": lambda rng, root: save(root / ".git" / "a.png", picture(1)),
    "text beside images": _add("notes.txt", b"good parts of Monday\n"),
    "folder among images": _add_copy("more/000.png"),
    "same stem twice": _add_copy("000.bmp"),
    "names that differ in case": _add_copy("000.PNG"),
    "mask missing": _a_mask(lambda rng, path: path.unlink()),
    "mask cut": _a_mask(_truncate),
    "mask empty": _replace_mask(lambda m: m * 0),
    "mask full": _replace_mask(lambda m: m * 0 + 255),
    "mask inverted": _replace_mask(lambda m: 255 - m),
    "mask in alpha": _replace_mask(lambda m: np.dstack([m * 0 + 255] * 3 + [m])),
    "mask in colour": _replace_mask(lambda m: np.dstack([m, m * 0, m * 0])),
    "mask palette": _replace_mask(lambda m: Image.fromarray(m).convert("P")),
    "mask 16 bit": _replace_mask(lambda m: m.astype(np.uint16) * 257),
    "mask of ones": _replace_mask(lambda m: m // 255),
    "mask of another size": _replace_mask(lambda m: m[:-3]),
    "mask jpeg": _replace_mask(lambda m: m, "_mask.jpg"),
    "mask named as the image": _replace_mask(lambda m: m, ".png"),
    "mask in a folder": _a_mask(_loco),
    "mask without an image": _a_mask(
        lambda rng, path: shutil.copy(path, path.with_name("777_mask.png"))
    ),
    "class called like a word": lambda rng, root: _rename_folder(
        "*", lambda name: rng.choice(("test", "train", "good", "auto", "mean", "ground_truth"))
    )(rng, root),
    "class with signs": _rename_folder("*", lambda name: f"{name}: 50 % & more"),
    "class decomposed": _rename_folder("*", lambda name: unicodedata.normalize("NFD", name + "ä")),
    "class with a space at its end": _rename_folder("*", lambda name: f"{name} "),
    "class hidden": _rename_folder("*", lambda name: f".{name}"),
    "class linked": _a_folder("*", _link_folder),
    "class empty": lambda rng, root: (root / "empty").mkdir(exist_ok=True),
    "class is a file": lambda rng, root: (root / "stray.png").write_bytes(b"x"),
    "class links to its parent": lambda rng, root: (
        os.path.lexists(root / "loop") or (root / "loop").symlink_to(root)
    ),
    "classes one level deeper": _nest,
    "split in capitals": _rename_folder("*/train", str.upper),
    "split missing": _a_folder("*/t*", lambda rng, folder: shutil.rmtree(folder)),
    "split is a file": _a_folder("*/test", _file_in_place),
    "split unknown": _rename_folder("*/test", lambda name: "tests"),
    "masks' folder missing": _a_folder("*/ground_truth", lambda rng, f: shutil.rmtree(f)),
    "defect in capitals": _rename_folder("*/test/scratch", str.capitalize),
    "defect of another name": _rename_folder("*/test/scratch", lambda name: "dent"),
    "defect decomposed": _rename_folder(
        "*/test/scratch", lambda name: unicodedata.normalize("NFD", "Kratzér")
    ),
    "defect among training": _rename_folder("*/train/good", lambda name: "scratch"),
    "good called ok": _rename_folder("*/t*/good", lambda name: "OK"),
    "images above their folder": _a_folder("*/*/good", _images_up),
    "folder links to its parent": _a_folder(
        "*/*/good", lambda rng, f: os.path.lexists(f / "up") or (f / "up").symlink_to(f.parent)
    ),
}
