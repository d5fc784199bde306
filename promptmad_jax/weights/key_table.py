"""Tables of another project's tensor names against ours, read strictly in either direction.

A row ties one tensor of theirs to one or several of ours by a transform that only moves numbers:
there and back changes nothing, in any stored type.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from promptmad_jax.runtime.errors import UserError

LISTED = 12  # keys per fault in an error message

Tensors = Mapping[str, np.ndarray]
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Transform:
    """A function from their array to our arrays, `to_ours`, and its inverse."""

    to_ours: Callable[[np.ndarray], Sequence[np.ndarray]]
    to_theirs: Callable[[Sequence[np.ndarray]], np.ndarray]


def moved(*axes: int) -> Transform:
    """Transposes: axis i of ours is axis axes[i] of theirs."""
    back = tuple(np.argsort(axes))
    return Transform(lambda a: [a.transpose(axes)], lambda arrays: arrays[0].transpose(back))


SAME = Transform(lambda a: [a], lambda arrays: arrays[0])
# torch's Linear [out, in] to [in, out]; its convolutions, also depthwise, OIHW to HWIO; its
# transposed ones IOHW to IHWO; a 1x1 convolution [out, in, 1, 1] to a dense kernel [in, out].
DENSE = moved(1, 0)
CONVOLUTION = moved(2, 3, 1, 0)
TRANSPOSED_CONVOLUTION = moved(0, 2, 3, 1)
POINTWISE = Transform(lambda a: [a[:, :, 0, 0].T], lambda arrays: arrays[0].T[:, :, None, None])
# torch's packed attention: rows of query, key and value, one below the other.
PACKED_KERNEL = Transform(
    lambda a: [part.T for part in np.split(a, 3)],
    lambda arrays: np.concatenate([part.T for part in arrays]),
)
PACKED_BIAS = Transform(lambda a: np.split(a, 3), np.concatenate)


@dataclass(frozen=True)
class Row:
    """A key of the file, `theirs`, and our slash-joined paths."""

    theirs: str
    ours: tuple[str, ...]
    transform: Transform = SAME


def to_ours(
    table: Iterable[Row], tensors: Tensors, shapes: Shapes, origin: str, unused: str = "(?!)"
) -> dict[str, np.ndarray]:
    """Renames their tensors to ours.

    Args:
        shapes: of our arrays, for every path in the table.
        origin: file and kind, for the message.
        unused: pattern of keys to leave out.

    Raises:
        UserError: lists the keys that are missing, unexpected or of another shape.
    """
    table = list(table)
    expected = {row.theirs: _their_shape(row, shapes) for row in table}
    _check(tensors, expected, re.compile(unused), origin)
    return {
        path: np.asarray(array, order="C")
        for row in table
        for path, array in zip(row.ours, row.transform.to_ours(tensors[row.theirs]), strict=True)
    }


def to_theirs(table: Iterable[Row], ours: Tensors, origin: str) -> dict[str, np.ndarray]:
    """Renames our arrays to theirs.

    Raises:
        UserError: lists the paths that are missing or not in the table.
    """
    table = list(table)
    paths = {path for row in table for path in row.ours}
    faults = {"missing": sorted(paths - ours.keys()), "unexpected": sorted(ours.keys() - paths)}
    _refuse(faults, origin)
    return {
        row.theirs: np.asarray(row.transform.to_theirs([ours[p] for p in row.ours]), order="C")
        for row in table
    }


def _their_shape(row: Row, shapes: Shapes) -> tuple[int, ...]:
    return row.transform.to_theirs([np.broadcast_to(0, shapes[path]) for path in row.ours]).shape


def _check(tensors: Tensors, expected: Shapes, unused: re.Pattern[str], origin: str) -> None:
    others = sorted(tensors.keys() - expected.keys())
    faults = {
        "missing": sorted(expected.keys() - tensors.keys()),
        "unexpected": [key for key in others if not unused.fullmatch(key)],
        "of another shape": [
            f"{key} {tuple(tensors[key].shape)} instead of {shape}"
            for key, shape in sorted(expected.items())
            if key in tensors and tuple(tensors[key].shape) != shape
        ],
    }
    _refuse(faults, origin)


def _refuse(faults: Mapping[str, Sequence[str]], origin: str) -> None:
    found = []
    for kind, keys in faults.items():
        rest = f" and {len(keys) - LISTED} more" if len(keys) > LISTED else ""
        if keys:
            found.append(f"{len(keys)} {kind}: {', '.join(keys[:LISTED])}{rest}")
    if found:
        raise UserError(
            f"{origin}: the keys do not fit: {'; '.join(found)}. "
            "Check that the file is of this network and of this kind."
        )
