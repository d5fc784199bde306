"""Weight files between other projects' names and ours, in either direction, without loss.

Nothing is computed: arrays are moved, and keep their type. Keys that no network here uses are left
out by name; any other key that is too much or missing ends in an error that lists it.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from promptmad_jax.evaluation_run import restore_experiment, restore_state
from promptmad_jax.models.backbone import layer_shapes
from promptmad_jax.models.efficientnet import (
    ARCHITECTURES,
    EFFICIENTNET_B4,
    EFFICIENTNETV2_B0,
    Architecture,
)
from promptmad_jax.models.encoder import ReconstructorConfig
from promptmad_jax.models.functional import Network
from promptmad_jax.models.onenip import OneNIP, RefinerConfig
from promptmad_jax.models.uniad import UniAD
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.weights import clip, efficientnet, key_table, onenip
from promptmad_jax.weights.files import read_foreign_tensors, read_tensors, write_tensors
from promptmad_jax.weights.hub import resolve_file
from promptmad_jax.weights.key_table import Row, Shapes, Tensors
from promptmad_jax.workdir import Workdir

OURS = "promptmad"
BACKBONE = "backbone/"  # before the backbone's paths in our file of a whole model
_BACKBONE_FORMAT = "efficientnet_pytorch"  # of the backbone in a OneNIP or UniAD checkpoint
_NETWORK_OF = {"keras": EFFICIENTNETV2_B0}  # formats that EfficientNet-B4 does not come in

Canonical = dict[str, np.ndarray]


@dataclass(frozen=True)
class Family:
    """One kind of network and the formats that its files come in.

    Attributes:
        title: for people. formats: names, ours included.
        detect: tensors to the format, or None.
        read: (tensors, origin, format) to our names. write: (ours, format) to their names.
    """

    title: str
    formats: tuple[str, ...]
    detect: Callable[[Tensors], str | None]
    read: Callable[[Tensors, str, str], Canonical]
    write: Callable[[Tensors, str], Canonical]


def convert(source: str, target: str, from_format: str, to_format: str) -> str:
    """Reads `source`, writes `target`; returns a sentence on what was done.

    Args:
        source: a weight file, or the working directory of a trained run.
        from_format: a format, or "auto". to_format: a format of the same family.

    Raises:
        UserError: a file that cannot be read, is of another format, or does not fit.
    """
    tensors = trained_tensors(source) if Path(source).is_dir() else read_foreign_tensors(source)
    family, found = detect(tensors, source)
    if from_format not in ("auto", found):
        raise UserError(
            f"{source}: holds {family.title} weights of format {found}, not {from_format}"
        )
    if to_format not in family.formats:
        raise UserError(
            f"--to={to_format}: {family.title} weights can become {', '.join(family.formats)}"
        )
    written = family.write(family.read(tensors, source, found), to_format)
    write_tensors(target, written, {"format": to_format, "network": family.title})
    return f"{family.title}: {len(written)} tensors, {found} to {to_format}, written to {target}"


def detect(tensors: Tensors, origin: str) -> tuple[Family, str]:
    """The family and format of these tensors.

    Raises:
        UserError: none that is known.
    """
    for family in FAMILIES:
        format = family.detect(tensors)
        if format:
            return family, format
    raise UserError(
        f"{origin}: weights of no known format; its first keys are "
        f"{', '.join(sorted(tensors)[:4]) or 'none'}; `python -m promptmad_jax.convert --list` "
        "shows what is known"
    )


def trained_tensors(workdir: str) -> Canonical:
    """The newest checkpoint of a run and its backbone, under our names.

    The backbone's BatchNorms are apart, as in the file that the run took them from; those of random
    or shipped weights are folded.
    """
    files = Workdir(workdir)
    config = files.config()
    experiment, _ = restore_experiment(config, files)
    state = restore_state(experiment, files)
    weights, architecture = config.backbone.weights, experiment.detector.backbone.architecture
    if weights in ("random", "shipped"):
        backbone = onenip.join_params_stats(experiment.frozen.backbone, {})
    else:
        path = resolve_file(weights, "model.safetensors", "backbone.weights")
        tensors = read_tensors(path)
        backbone = efficientnet.read_canonical(tensors, layer_shapes(architecture), str(path))
    model = onenip.join_params_stats(state.params, state.stats)
    model |= {BACKBONE + path: value for path, value in backbone.items()}
    return {path: np.asarray(value) for path, value in model.items()}


def describe_formats() -> str:
    """One line a family."""
    width = max(len(family.title) for family in FAMILIES)
    return "\n".join(f"{f.title:{width}}  {', '.join(f.formats)}" for f in FAMILIES)


def read_model(
    path: str, network: Network, architecture: Architecture
) -> tuple[Canonical, Canonical]:
    """A whole model's file, of any format: its own arrays and its backbone's, under our names.

    Args:
        network: the configured model. architecture: the configured backbone.

    Returns:
        (model, backbone); the second is empty where the file holds no backbone.

    Raises:
        UserError: the file is of another model or backbone, or cannot be read.
    """
    tensors, shapes = read_foreign_tensors(path), _shapes(network)
    format = onenip.detect(tensors)
    if format:
        model = onenip.read_canonical(tensors, shapes, path, format)
        return model, _checkpoint_backbone(tensors, architecture, path)
    model, backbone = _split(tensors)
    model = key_table.to_ours(_identity(shapes), model, shapes, f"{path}, read as a {OURS} file")
    if backbone:
        layers = layer_shapes(architecture)
        backbone = efficientnet.read_canonical(backbone, layers, path, OURS)
    return model, backbone


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


def _checkpoint_backbone(tensors: Tensors, architecture: Architecture, origin: str) -> Canonical:
    if not any(key.removeprefix(onenip.WRAPPER).startswith("backbone.") for key in tensors):
        return {}
    layers = layer_shapes(architecture)
    return efficientnet.read_canonical(tensors, layers, origin, _BACKBONE_FORMAT)


# OneNIP and UniAD: the sizes of a network are read off its tensors, since no config lies beside.


def _read_checkpoint(tensors: Tensors, origin: str, format: str) -> Canonical:
    if format == OURS:
        return dict(tensors)
    network = _network_of(tensors, origin, format)
    model = onenip.read_canonical(tensors, _shapes(network), origin, format)
    backbone = _checkpoint_backbone(tensors, EFFICIENTNET_B4, origin)
    return model | {BACKBONE + path: value for path, value in backbone.items()}


def _write_checkpoint(ours: Tensors, format: str, name: str) -> Canonical:
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


def _checkpoint_family(title: str, name: str, own_key: str) -> Family:
    def detect(tensors: Tensors) -> str | None:
        found = onenip.detect(tensors)
        if found:
            return name if found == name else None
        return OURS if own_key in tensors else None

    write = lambda ours, format: _write_checkpoint(ours, format, name)
    return Family(title, (name, OURS), detect, _read_checkpoint, write)


def _architecture(tensors: Tensors, format: str, origin: str) -> Architecture:
    """The EfficientNet whose first convolution has as many channels as the file's."""
    layers = {a: layer_shapes(a) for a in ARCHITECTURES.values()}
    rows = efficientnet.key_rows(format, layers[_NETWORK_OF.get(format, EFFICIENTNET_B4)])
    name = next(row.theirs for row in rows if row.ours == ("stem/kernel",))
    stem = next((value.shape for key, value in tensors.items() if key.endswith(name)), ())
    for architecture in layers:
        # The axes stand in another order in each format.
        if sorted(layers[architecture]["stem"]) == sorted(stem):
            return architecture
    raise UserError(
        f"{origin}: the first convolution has shape {stem}, that of no EfficientNet here; "
        f"known are {', '.join(ARCHITECTURES)}"
    )


def _read_efficientnet(tensors: Tensors, origin: str, format: str) -> Canonical:
    layers = layer_shapes(_architecture(tensors, format, origin))
    return efficientnet.read_canonical(tensors, layers, origin, format)


def _write_efficientnet(ours: Tensors, format: str) -> Canonical:
    layers = layer_shapes(_architecture(ours, OURS, "the weights to write"))
    return efficientnet.write_format(ours, layers, format)


def _read_clip(tensors: Tensors, origin: str, format: str) -> Canonical:
    config = clip.infer_config(tensors, origin, format)
    return clip.read_canonical(tensors, config, origin, format)


def _write_clip(ours: Tensors, format: str) -> Canonical:
    config = clip.infer_config(ours, "the weights to write", OURS)
    return clip.write_format(ours, config, format)


def _keep(tensors: Tensors, *_: str) -> Canonical:
    return dict(tensors)


def _detect_promptmad(tensors: Tensors) -> str | None:
    return OURS if any(key.startswith("segmentor/") for key in tensors) else None


FAMILIES = (
    Family("PromptMAD", (OURS,), _detect_promptmad, _keep, _keep),
    _checkpoint_family("OneNIP", "onenip", "refiner/predictor/kernel"),
    _checkpoint_family("UniAD", "uniad", "reconstructor/decoder/layer_0/query_embed"),
    Family("CLIP", tuple(clip.FORMATS), clip.detect, _read_clip, _write_clip),
    Family(
        "EfficientNet",
        tuple(efficientnet.FORMATS),
        efficientnet.detect,
        _read_efficientnet,
        _write_efficientnet,
    ),
)
