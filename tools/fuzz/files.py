"""Lists, vocabularies, weight files and settings, and the ways to bend them."""

import codecs
import io
import json
import pathlib
import pickle
import random
import struct
from collections.abc import Callable

import numpy as np

from tools.fuzz.trees import images

Text = Callable[[str], bytes]

LISTS: dict[str, Callable[[list[dict]], bytes]] = {
    "list": lambda rows: _lines(rows),
    "list with a mark": lambda rows: codecs.BOM_UTF8 + _lines(rows),
    "list in UTF-16": lambda rows: _lines(rows).decode().encode("utf-16"),
    "list with CRLF": lambda rows: _lines(rows).replace(b"\n", b"\r\n"),
    "list as an array": lambda rows: json.dumps(rows).encode(),
    "list with blank lines": lambda rows: _lines(rows).replace(b"\n", b"\n\n"),
    "list cut": lambda rows: _lines(rows)[:-20],
    "list of numbers": lambda rows: b"1\n2\n3\n",
    "list of nothing": lambda rows: b"",
    "list without names": lambda rows: _lines(
        [{k: v for k, v in r.items() if k != "filename"} for r in rows]
    ),
    "list of missing files": lambda rows: _lines([{**r, "filename": "none.png"} for r in rows[:1]]),
    "list with absolute names": lambda rows: _lines(
        [{**r, "filename": "/etc/passwd"} for r in rows[:1]] + rows[1:]
    ),
    "list that climbs out": lambda rows: _lines(
        [{**r, "filename": f"../../{r['filename']}"} for r in rows[:1]] + rows[1:]
    ),
    "list with rows twice": lambda rows: _lines(rows + rows[:2]),
    "list with labels as text": lambda rows: _lines(
        [{**r, "label": str(r["label"])} for r in rows]
    ),
    "list with odd labels": lambda rows: _lines([{**r, "label": [7]} for r in rows[:1]] + rows[1:]),
    "list with null classes": lambda rows: _lines([{**r, "clsname": None} for r in rows]),
    "list with slashes in classes": lambda rows: _lines([{**r, "clsname": "a/../b"} for r in rows]),
    "list all defective": lambda rows: _lines([{**r, "label": 1} for r in rows]),
}
LIST_NAMES = ("train.json", "train.jsonl", "TRAIN.JSON", "latest_train.json", "trains.json")


def _lines(rows: list[dict]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def rows_of(root: pathlib.Path) -> list[dict]:
    """Rows in the form of VisA's and OneNIP's lists, for the training images of a tree."""
    return [
        {
            "filename": str(path.relative_to(root)),
            "label": 0,
            "label_name": "good",
            "clsname": path.relative_to(root).parts[0],
        }
        for path in images(root)
        if "train" in path.parts
    ]


_WORDS = {"bracket": {"name": "bracket", "normal": ["a bracket"], "defects": {"scratch": ["x"]}}}
_JSON = json.dumps(_WORDS)
VOCABULARIES: dict[str, tuple[str, bytes]] = {
    "words": ("w.json", _JSON.encode()),
    "words with a mark": ("W.JSON", codecs.BOM_UTF8 + _JSON.encode()),
    "words in UTF-16": ("w.json", _JSON.encode("utf-16")),
    "words cut": ("w.json", _JSON[:-9].encode()),
    "words nested deeply": ("w.json", b"[" * 50_000),
    "words nested deeply in YAML": ("w.yaml", b"[" * 3_000),
    "words empty": ("w.yaml", b""),
    "words as a list": ("w.yaml", b"- bracket\n"),
    "words with a key twice": ("w.yaml", b"a: {}\na: {}\n"),
    "words with a list as key": ("w.yaml", b"? [a, b]\n: c\n"),
    "words with a number as key": ("w.yaml", b"1: {name: x, normal: [y], defects: {}}\n"),
    "words that run code": ("w.yaml", b"a: !!python/object/apply:os.getcwd []\n"),
    "words with an anchor bomb": (
        "w.yaml",
        b"a: &a [x,x,x,x,x,x,x,x,x]\n"
        + b"".join(
            b"%c: &%c [%s]\n" % (c, c, b",".join([b"*%c" % (c - 1)] * 9)) for c in b"bcdefghi"
        ),
    ),
    "words with tabs": ("w.yaml", b"a:\n\tname: x\n"),
    "words in Latin-1": ("w.yaml", "Gehäuse: {}\n".encode("latin-1")),
    "words without a suffix": ("words", _JSON.encode()),
    "words with a wrong form": ("w.json", b'{"bracket": {"name": 3, "normal": [], "defects": 1}}'),
    "words of bytes": ("w.yaml", bytes(range(256))),
}


def _npz(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def _safetensors(header: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header


_ENTRY = b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,%d]}}'
WEIGHTS: dict[str, tuple[str, bytes]] = {
    "weights of other names": ("w.npz", _npz(a=np.zeros(3))),
    "weights of objects": ("w.npz", _npz(a=np.array([{}], object))),
    "weights of NaN": ("w.npz", _npz(**{"stem/kernel": np.full((3, 3), np.nan)})),
    "weights cut": ("w.npz", _npz(a=np.zeros(300))[:-50]),
    "weights empty": ("w.npz", b""),
    "weights of text": ("w.safetensors", b"hello, this is a text"),
    "weights with a long header": ("w.safetensors", _safetensors(b"{}", 2**60)),
    "weights with a broken header": ("w.safetensors", _safetensors(b"{]")),
    "weights beyond the end": ("w.safetensors", _safetensors(_ENTRY % 8)),
    "weights of another size": ("w.safetensors", _safetensors(_ENTRY % 4) + b"\0" * 4),
    "weights of nothing": ("w.safetensors", _safetensors(b"{}")),
    "weights in a pickle": ("w.pth", pickle.dumps({"a": 1})),
    "weights in a pickle that calls": ("w.pth", b"cos\nsystem\n(S'touch owned'\ntR."),
    "weights in a broken pickle": ("w.pt", b"\x80\x04garbage"),
    "weights of another suffix": ("w.bin2", b"x"),
}

SETTINGS = (
    *("train.batch_size", "train.seed", "train.log_every", "train.checkpoint_every", "train.keep"),
    *("train.epochs", "eval.batch_size", "eval.image_pool", "eval.calibration_images"),
    *("eval.prompt_index", "eval.pixel_fpr", "eval.image_fpr", "eval.aupro_limit"),
    *("data.image_size", "data.holdout", "memory.patches", "memory.projection", "memory.pool"),
    *("memory.seed", "segmentor.width", "segmentor.heads", "segmentor.norm_group"),
    *("segmentor.denoiser_width", "segmentor.prior_probability", "segmentor.correction"),
    *("optimizer.learning_rate", "optimizer.clip_norm", "optimizer.warmup_steps"),
    *("loss.focal", "loss.focal_gamma", "backbone.norm_epsilon", "mesh.data", "mesh.fsdp"),
    *("pseudo_anomaly.perlin", "diffusion.steps", "diffusion.noise_scale", "text.width"),
)
VALUES = ("-1", "0", "1", "2", "3", "7", "0.5", "1e-40", "1e30", "nan", "inf", "4294967296", "x")


def setting(rng: random.Random) -> str:
    """An override of one setting with a value that it may not take."""
    return f"--config.{rng.choice(SETTINGS)}={rng.choice(VALUES)}"
