"""Reads efficientnet.npz, and the two narrow networks that it is of; see make_efficientnet.py."""

import json
import pathlib

import numpy as np

from promptmad_jax.models.backbone.efficientnet import Architecture, Stage

VERSION1 = Architecture(
    "narrow",
    16,
    (
        Stage("mbconv", 3, 1, 1, 8, 2, tapped=True),
        Stage("mbconv", 3, 2, 2, 8, 2, tapped=True),
        Stage("mbconv", 5, 2, 2, 16, 2, tapped=True),
        Stage("mbconv", 3, 2, 2, 8, 2, tapped=False),
        Stage("mbconv", 5, 1, 3, 16, 2, tapped=True),
    ),
)
VERSION2 = Architecture(
    "narrow2",
    16,
    (
        Stage("plain", 3, 1, 1, 4, 1, tapped=True),
        Stage("fused", 3, 2, 2, 8, 2, tapped=True),
        Stage("fused", 3, 2, 2, 16, 1, tapped=True),
        Stage("mbconv", 3, 2, 2, 16, 1, tapped=False),
        Stage("mbconv", 3, 1, 3, 8, 2, tapped=True),
    ),
)

FILE = np.load(pathlib.Path(__file__).with_name("efficientnet.npz"))
LAYOUTS = json.loads(str(FILE["layouts"]))


def images():
    """float32 [1, 32, 32, 3]."""
    return FILE["images"].astype(np.float32) / 64 - 2


def taps(name):
    """The reference's four taps; name is a padding of version 1, or `version2`."""
    return [FILE[f"taps/{name}/{i}"] for i in range(4)]


def state_dict(layout):
    """An origin's whole state dict: the golden weights, then zeros behind the last tap."""
    vector = FILE["weights/2" if layout == "timm_version2" else "weights/1"].astype(np.float32)
    tensors, offset = {}, 0
    for key, shape in LAYOUTS[layout]:
        if key.endswith("num_batches_tracked"):
            tensors[key] = np.array(0)
            continue
        size = int(np.prod(shape))
        part = vector[offset : offset + size] if offset < len(vector) else np.zeros(size, "f")
        tensors[key] = part.reshape(shape)
        offset += size
    return tensors
