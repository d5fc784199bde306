"""Checkpoints of OneNIP and UniAD: what follows the backbone, under our names and back.

The canonical form is a flat mapping from our slash-joined paths to arrays in the file's types;
parameters and BatchNorm's running statistics stand in it together. The backbone of the same file is
read by `weights.efficientnet`.

OneNIP's two releases, `checkpoints` and `checkpoints-v2`, have the same keys and shapes. The first
was trained with another decoder, which added the MLP's output where the image tokens attend to the
prompt; ours is the second's. So a first release converts without complaint and gives other figures
than its authors' logs: nothing in the file tells which it is.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from promptmad_jax.models.reconstruction.weights.names import onenip_rows, uniad_rows
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.weights.key_table import Row, Shapes, Tensors, to_ours, to_theirs

_TABLES = {"onenip": onenip_rows, "uniad": uniad_rows}
FORMATS = tuple(_TABLES)
# The released files are of a model inside DistributedDataParallel, whose loader wants the prefix.
WRAPPER = "module."
_SIGNATURES = {
    "reconstruction.seghead.predictor.weight": "onenip",
    "reconstruction.transformer.decoder.layers.0.learned_embed.weight": "uniad",
}
# The backbone has a table of its own; the counter is of no use where the momentum is constant.
_UNUSED = r"backbone\..+|.+\.num_batches_tracked"
_STATISTICS = ("mean", "var")


def detect(tensors: Tensors) -> str | None:
    """The model of a checkpoint by its keys, one of `FORMATS`, or None."""
    plain = _plain(tensors)
    return next((name for key, name in _SIGNATURES.items() if key in plain), None)


def key_rows(format: str, encoder_layers: int = 4, decoder_layers: int = 4) -> list[Row]:
    """The key table of one of `FORMATS`, without the prefix of the wrapping module."""
    return _TABLES[format](encoder_layers, decoder_layers)


def read_canonical(
    tensors: Tensors, shapes: Shapes, origin: str, format: str | None = None
) -> dict[str, np.ndarray]:
    """The tensors of a whole checkpoint under our names, without its backbone.

    Args:
        shapes: of all our parameters and statistics, by path; they tell the number of layers.
        origin: the file, for messages.
        format: one of `FORMATS`; None finds it out.

    Raises:
        UserError: a checkpoint of neither model, or of another than `shapes`; or keys that are
            missing, unexpected or of another shape, which are listed.
    """
    format = format or _detected(tensors, origin)
    table = key_rows(format, *_layer_counts(shapes))
    if {path for row in table for path in row.ours} != shapes.keys():
        raise UserError(
            f"{origin}: a checkpoint of {format}, and the configured model is another one; "
            f"set config.model={format}"
        )
    return to_ours(table, _plain(tensors), shapes, f"{origin}, read as {format}", _UNUSED)


def write_format(canonical: Tensors, format: str) -> dict[str, np.ndarray]:
    """Our arrays under the keys of a released checkpoint; the inverse of `read_canonical`.

    `num_batches_tracked` is not written: torch takes a missing one as 0.

    Raises:
        UserError: lists the paths that are missing or that the model does not have.
    """
    table = key_rows(format, *_layer_counts(canonical))
    theirs = to_theirs(table, canonical, f"the weights to write as {format}")
    return {WRAPPER + key: value for key, value in theirs.items()}


def split_params_stats(canonical: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The canonical form to nested (params, stats)."""
    params: dict[str, Any] = {}
    stats: dict[str, Any] = {}
    for path, value in canonical.items():
        *parents, leaf = path.split("/")
        node = stats if leaf in _STATISTICS else params
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return params, stats


def join_params_stats(params: Mapping[str, Any], stats: Mapping[str, Any]) -> dict[str, Any]:
    """Nested (params, stats) to the canonical form, or anything else of the same paths."""
    return dict(_flat(params)) | dict(_flat(stats))


def _flat(tree: Mapping[str, Any], parent: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{parent}{name}/")
        else:
            yield f"{parent}{name}", value


def _plain(tensors: Tensors) -> dict[str, np.ndarray]:
    return {key.removeprefix(WRAPPER): value for key, value in tensors.items()}


def _detected(tensors: Tensors, origin: str) -> str:
    format = detect(tensors)
    if format is None:
        raise UserError(
            f"{origin}: a checkpoint of neither OneNIP nor UniAD; its first keys are "
            f"{', '.join(sorted(tensors)[:4]) or 'none'}"
        )
    return format


def _layer_counts(paths: Iterable[str]) -> tuple[int, int]:
    """Number of encoder and of decoder layers."""
    found = [re.match(r"reconstructor/(encoder|decoder)/(layer_\d+)/", path) for path in paths]
    layers = {match.groups() for match in found if match}
    encoder = sum(part == "encoder" for part, _ in layers)
    return encoder, len(layers) - encoder
