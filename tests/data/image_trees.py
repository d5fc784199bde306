"""Small trees of images in MVTec layout."""

import io
import json
import pathlib
import struct
import zlib

import numpy as np
from PIL import Image


def pixels(seed: int, height: int = 20, width: int = 24, channels: int = 3) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def write_image(path: pathlib.Path, array: np.ndarray, **options) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def encode(image: Image.Image, image_format: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=image_format, **options)
    return buffer.getvalue()


def encode_png16(values: np.ndarray) -> bytes:
    """16-bit PNG of grey, grey with alpha, RGB or RGBA [H, W, C]; Pillow writes only the first."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, (0, 4, 2, 6)[channels - 1], 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


def spot(height: int = 20, width: int = 24, value: int = 255) -> np.ndarray:
    """A mask with a foreground of 3 x 4 pixels."""
    mask = np.zeros((height, width), np.uint8)
    mask[5:8, 10:14] = value
    return mask


def write_class(root: pathlib.Path, name: str, train: int = 2, good: int = 1, bad: int = 2) -> None:
    """A faultless class with one defect type, `crack`."""
    seed = sum(name.encode())
    for i in range(train):
        write_image(root / name / "train" / "good" / f"{i:03}.png", pixels(seed + i))
    for i in range(good):
        write_image(root / name / "test" / "good" / f"{i:03}.png", pixels(seed + 100 + i))
    for i in range(bad):
        write_image(root / name / "test" / "crack" / f"{i:03}.png", pixels(seed + 200 + i))
        write_image(root / name / "ground_truth" / "crack" / f"{i:03}_mask.png", spot())


def report_of(folder: pathlib.Path) -> dict:
    return json.loads((folder / "report.json").read_text(encoding="utf-8"))


def problems_of(folder: pathlib.Path) -> dict[str, tuple[str, str]]:
    """file -> (kind, action); every file has at most one problem in these trees."""
    problems = report_of(folder)["problems"]
    table = {problem["file"]: (problem["kind"], problem["action"]) for problem in problems}
    assert len(table) == len(problems)
    return table
