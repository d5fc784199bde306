"""EfficientNet weights of any known origin: to our names and back unchanged, and folded for use.

The canonical form is a flat mapping under our names (`efficientnet_names.canonical_shapes`), in the
types that the file has. `fold` makes of it the float32 parameters that the network runs with.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from promptmad_jax.models.backbone.weights.formats import (
    FORMATS,
    format_named,
    key_rows,
    unused_keys,
)
from promptmad_jax.models.backbone.weights.names import NORM_PARTS, Layers, canonical_shapes
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.weights import key_table
from promptmad_jax.weights.files import read_tensors
from promptmad_jax.weights.key_table import Tensors

NORM_EPSILON = 1e-3
# Enclosing modules, from the outside in, each with the keys that may stand beside it: the rest of
# a OneNIP or UniAD checkpoint, and the head of transformers' classifier.
WRAPPERS = {
    "module.": "(?!)",
    "backbone.": r"reconstruction\..*",
    "efficientnet.": r"classifier\..*",
}


def load_efficientnet(
    path: str | Path, layers: Layers, epsilon: float = NORM_EPSILON
) -> dict[str, Any]:
    """Reads a weight file into nested float32 parameters, BatchNorm folded.

    Args:
        path: a .safetensors or .npz file of a known origin.
        layers: kernel shape (HWIO) of every wanted layer, in the order of the network.
        epsilon: of the BatchNorms; weights that are folded already do without.

    Raises:
        UserError: unreadable or unknown file; keys that are missing, unexpected or of another
            shape, which are listed; values that are not finite.
    """
    params = fold(read_canonical(read_tensors(path), layers, str(path)), layers, epsilon)
    _check_finite(params, path)
    return params


def detect(tensors: Tensors) -> str | None:
    """Name in FORMATS of the origin of these tensors, or None."""
    prefix, _ = _wrapping(tensors)
    found = (name for name, spec in FORMATS.items() if prefix + spec.signature in tensors)
    return next(found, None)


def read_canonical(
    tensors: Tensors, layers: Layers, origin: str, format: str | None = None
) -> dict[str, np.ndarray]:
    """Tensors of a file under our names, in the file's types.

    Args:
        layers: kernel shape (HWIO) of every wanted layer, in the order of the network.
        origin: of the tensors, for the message.
        format: a name in FORMATS; None detects it.

    Raises:
        UserError: an unknown origin; or lists the keys that are missing, unexpected or of another
            shape.
    """
    name = format or detect(tensors)
    if name is None:
        raise _unknown(tensors, origin)
    spec, (prefix, beside) = format_named(name), _wrapping(tensors)
    folded = spec.forms[0] if len(spec.forms) == 1 else f"{prefix}stem/bias" in tensors
    try:
        rows = key_rows(name, layers, folded)
    except UserError as error:
        raise UserError(f"{origin}: {error}") from error
    return key_table.to_ours(
        [replace(row, theirs=prefix + row.theirs) for row in rows],
        tensors,
        canonical_shapes(layers, folded),
        f"{origin} ({spec.title})",
        rf"{re.escape(prefix)}(?:{unused_keys(name, layers)})|{beside}",
    )


def write_format(canonical: Tensors, layers: Layers, format: str) -> dict[str, np.ndarray]:
    """The inverse of `read_canonical`, for the layers that we have.

    Raises:
        UserError: the origin is unknown, does not have this network or this form of BatchNorm; or
            the arrays do not fit the layers.
    """
    rows = key_rows(format, layers, "stem/bias" in canonical)
    arrays = read_canonical(canonical, layers, "the weights to write", "promptmad")
    return key_table.to_theirs(rows, arrays, format_named(format).title)


def fold(canonical: Tensors, layers: Layers, epsilon: float) -> dict[str, Any]:
    """Nested float32 parameters, `kernel` and `bias` a layer, BatchNorm folded in float64."""
    params: dict[str, Any] = {}
    for layer in layers:
        *parents, leaf = layer.split("/")
        node = params
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = _folded_layer(canonical, layer, epsilon)
    return params


def _folded_layer(canonical: Tensors, layer: str, epsilon: float) -> dict[str, np.ndarray]:
    kernel = canonical[f"{layer}/kernel"]
    if f"{layer}/bias" in canonical:
        return {"kernel": _float32(kernel), "bias": _float32(canonical[f"{layer}/bias"])}
    scale, bias, mean, variance = (
        canonical[f"{layer}/norm/{part}"].astype(np.float64) for part in NORM_PARTS.values()
    )
    scale = scale / np.sqrt(variance + epsilon)
    return {
        "kernel": _float32(kernel.astype(np.float64) * scale),
        "bias": _float32(bias - mean * scale),
    }


def _float32(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array, np.float32)


def _check_finite(params: Mapping[str, Any], path: str | Path, parent: str = "") -> None:
    for name, value in params.items():
        where = f"{parent}{name}"
        if isinstance(value, Mapping):
            _check_finite(value, path, f"{where}/")
        elif not np.isfinite(value).all():
            raise UserError(f"{path}: {where} is not finite after folding; the file is damaged")


def _wrapping(tensors: Tensors) -> tuple[str, str]:
    """The prefix of the enclosing modules, and the pattern of what may stand beside them."""
    prefix, beside = "", []
    for wrapper, siblings in WRAPPERS.items():
        if any(key.startswith(prefix + wrapper) for key in tensors):
            beside.append(re.escape(prefix) + siblings)
            prefix += wrapper
    return prefix, "|".join(beside) or "(?!)"


def _unknown(tensors: Tensors, origin: str) -> UserError:
    known = ", ".join(f"{spec.title} (key {spec.signature})" for spec in FORMATS.values())
    return UserError(
        f"{origin}: no EfficientNet weights of a known origin; its first keys are "
        f"{', '.join(sorted(tensors)[:4]) or 'none'}; known are {known}"
    )
