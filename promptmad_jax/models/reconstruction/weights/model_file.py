"""Files of whole models: ours, and the checkpoints of OneNIP and UniAD."""

import re
from collections.abc import Mapping

import jax
import numpy as np

from promptmad_jax.models.backbone.backbone import BackboneConfig, build_backbone
from promptmad_jax.models.backbone.efficientnet import EFFICIENTNET_B4
from promptmad_jax.models.backbone.efficientnet_backbone import layer_shapes
from promptmad_jax.models.backbone.protocol import Backbone
from promptmad_jax.models.backbone.weights import efficientnet
from promptmad_jax.models.functional import Network
from promptmad_jax.models.reconstruction.encoder import ReconstructorConfig
from promptmad_jax.models.reconstruction.onenip import OneNIP, RefinerConfig
from promptmad_jax.models.reconstruction.uniad import UniAD
from promptmad_jax.models.reconstruction.weights import onenip
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.weights import key_table
from promptmad_jax.weights.files import read_tensors
from promptmad_jax.weights.key_table import Row, Shapes, Tensors

OURS = "promptmad"
BACKBONE = "backbone/"  # before the backbone's paths in our file of a whole model
_BACKBONE_FORMAT = "efficientnet_pytorch"  # of the backbone in a OneNIP or UniAD checkpoint

Canonical = dict[str, np.ndarray]


def read_model(path: str, network: Network, backbone: Backbone) -> tuple[Canonical, Canonical]:
    """A whole model's file, of any format: its own arrays and its backbone's, under our names.

    Args:
        network: the configured model. backbone: the configured one.

    Returns:
        (model, backbone); the second is empty where the file holds no backbone.

    Raises:
        UserError: the file is of another model or backbone, or cannot be read.
    """
    tensors, shapes = read_tensors(path, allow_pickles=True), _shapes(network)
    format = onenip.detect(tensors)
    if format:
        model = onenip.read_canonical(tensors, shapes, path, format)
        return model, _checkpoint_backbone(tensors, backbone, path)
    model, frozen = _split(tensors)
    model = key_table.to_ours(_identity(shapes), model, shapes, f"{path}, read as a {OURS} file")
    return model, backbone.read_canonical(frozen, path, OURS) if frozen else {}


def _shapes(network: Network) -> dict[str, tuple[int, ...]]:
    params, stats = jax.eval_shape(network.init, jax.random.key(0))
    return {path: x.shape for path, x in onenip.join_params_stats(params, stats).items()}


def _identity(paths: Mapping) -> list[Row]:
    return [Row(path, (path,)) for path in paths]


def _split(tensors: Tensors) -> tuple[Canonical, Canonical]:
    """Our file of a whole model: the model's arrays and the backbone's."""
    model = {key: value for key, value in tensors.items() if not key.startswith(BACKBONE)}
    rest = {k.removeprefix(BACKBONE): v for k, v in tensors.items() if k.startswith(BACKBONE)}
    return model, rest


def _checkpoint_backbone(tensors: Tensors, backbone: Backbone, origin: str) -> Canonical:
    if not any(key.removeprefix(onenip.WRAPPER).startswith("backbone.") for key in tensors):
        return {}
    return backbone.read_canonical(tensors, origin, _BACKBONE_FORMAT)


def read_checkpoint(tensors: Tensors, origin: str, format: str) -> Canonical:
    """A OneNIP or UniAD checkpoint with its backbone, under our names.

    The sizes of the network are read off its tensors, since no configuration lies beside.

    Raises:
        UserError: it lacks a part, or has one too many.
    """
    if format == OURS:
        return dict(tensors)
    network = _network_of(tensors, origin, format)
    model = onenip.read_canonical(tensors, _shapes(network), origin, format)
    backbone = _checkpoint_backbone(tensors, build_backbone(BackboneConfig()), origin)
    return model | {BACKBONE + path: value for path, value in backbone.items()}


def write_checkpoint(ours: Tensors, format: str, name: str) -> Canonical:
    """Our arrays of OneNIP or UniAD, which `name` says, with their backbone, under their names."""
    if format == OURS:
        return dict(ours)
    model, backbone = _split(ours)
    theirs = onenip.write_format(model, name)
    if backbone:
        layers = layer_shapes(EFFICIENTNET_B4)
        written = efficientnet.write_format(backbone, layers, _BACKBONE_FORMAT)
        theirs |= {f"{onenip.WRAPPER}backbone.{key}": value for key, value in written.items()}
    return theirs


def _network_of(tensors: Tensors, origin: str, format: str) -> Network:
    plain = {key.removeprefix(onenip.WRAPPER): value.shape for key, value in tensors.items()}
    root = "reconstruction"
    try:
        rows, columns = (
            plain[f"{root}.pos_embed.{axis}_embed.weight"][0] for axis in ("row", "col")
        )
        width, channels = plain[f"{root}.input_proj.weight"]
        config = ReconstructorConfig(
            width=width,
            encoder_layers=_count(plain, rf"{root}\.transformer\.encoder\.layers\.(\d+)\..+"),
            decoder_layers=_count(plain, rf"{root}\.transformer\.decoder\.layers\.(\d+)\..+"),
            mlp_width=plain[f"{root}.transformer.encoder.layers.0.linear1.weight"][0],
        )
        if format == "uniad":
            return Network.create(lambda rngs: UniAD(config, channels, (rows, columns), rngs))
        refiner = plain[f"{root}.seghead.predictor.weight"][1]
    except (KeyError, IndexError, ValueError) as error:
        raise UserError(
            f"{origin}: a checkpoint of {format} that lacks a part or has one of another shape "
            f"({error})"
        ) from error
    return Network.create(
        lambda rngs: OneNIP(config, RefinerConfig(refiner), channels, (rows, columns), rngs)
    )


def _count(keys: Shapes, pattern: str) -> int:
    found = (re.fullmatch(pattern, key) for key in keys)
    return max(int(match[1]) + 1 for match in found if match)
