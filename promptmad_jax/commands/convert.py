"""Weight files between other projects' names and ours, in either direction, without loss.

Nothing is computed: arrays are moved, and keep their type. Keys that no network here uses are left
out by name; any other key that is superfluous or missing ends in an error that lists it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from promptmad_jax.clip.weights import clip
from promptmad_jax.clip.weights.config_file import config_of, config_path, write_config
from promptmad_jax.config import relocated
from promptmad_jax.methods.method import open_method
from promptmad_jax.models.backbone import efficientnet as networks
from promptmad_jax.models.backbone.efficientnet_backbone import layer_shapes
from promptmad_jax.models.backbone.weights import efficientnet, vit
from promptmad_jax.models.reconstruction.weights import model_file, onenip
from promptmad_jax.models.reconstruction.weights.model_file import OURS, Canonical
from promptmad_jax.runs.workdir import Workdir
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.outputs import check_file
from promptmad_jax.weights.files import check_suffix, read_tensors, write_tensors
from promptmad_jax.weights.key_table import Shapes, Tensors

CLIP = "CLIP"
_NETWORK_OF = {"keras": networks.EFFICIENTNETV2_B0}  # formats that EfficientNet-B4 does not come in


@dataclass(frozen=True)
class Family:
    """One kind of network and the formats that its files come in.

    Attributes:
        title: the network's name. formats: names, ours included.
        detect: tensors to the format, or None.
        read: (tensors, origin, format) to our names. write: (ours, format) to their names.
    """

    title: str
    formats: tuple[str, ...]
    detect: Callable[[Tensors], str | None]
    read: Callable[[Tensors, str, str], Canonical]
    write: Callable[[Tensors, str], Canonical]


def convert(
    source: str,
    target: str,
    from_format: str,
    to_format: str,
    activation: str | None = None,
    weights: str = "",
) -> str:
    """Reads `source` and writes `target`, for CLIP with a config.json; returns a summary.

    Args:
        source: a weight file, or the working directory of a trained run.
        from_format: a format, or "auto". to_format: a format of the same family.
        activation: of CLIP, see `config_of`.
        weights: of a run's backbone, if they have moved.

    Raises:
        UserError: a file that cannot be read, is of another format, or does not fit.
    """
    run = Path(source).is_dir()
    tensors = trained_tensors(source, weights) if run else read_tensors(source, allow_pickles=True)
    family, found = detect(tensors, source)
    if from_format not in ("auto", found):
        raise UserError(
            f"{source}: holds {family.title} weights of format {found}, not {from_format}"
        )
    if to_format not in family.formats:
        raise UserError(
            f"--to={to_format}: {family.title} weights can become {', '.join(family.formats)}"
        )
    if activation and family.title != CLIP:
        raise UserError(f"--activation={activation}: {source} holds {family.title}, not {CLIP}")
    written = family.write(family.read(tensors, source, found), to_format)
    summary = f"{family.title}: {len(written)} tensors, {found} to {to_format}, written to {target}"
    # "pt" is what readers of safetensors expect of files in any of these namings.
    metadata = {"format": "pt", "names": to_format, "network": family.title}
    if family.title != CLIP:
        write_tensors(target, written, metadata)
        return summary
    config = config_of(tensors, source, found, activation)
    path = config_path(target, config)
    write_tensors(target, written, metadata)
    return f"{summary}\n{write_config(path, config)}"


def check_target(target: str, source: str, overwrite: bool) -> None:
    """Checks before the work that `target` can be written, and that nothing is lost by it.

    Raises:
        UserError: another suffix, a file that exists or is the input, or a folder without access.
    """
    check_suffix(target)
    check_file(target, "--output", (source,), overwrite)


def detect(tensors: Tensors, origin: str) -> tuple[Family, str]:
    """Finds the family and format of a file by its keys.

    Raises:
        UserError: it is of no known format.
    """
    for family in FAMILIES:
        format = family.detect(tensors)
        if format:
            return family, format
    raise UserError(
        f"{origin}: weights of no known format; its first keys are "
        f"{', '.join(sorted(tensors)[:4]) or 'none'}; `promptmad convert --list` lists the formats"
    )


def trained_tensors(workdir: str, weights: str = "") -> Canonical:
    """Reads a run's checkpoint, the one that `eval.checkpoint` names, and its backbone.

    The backbone's BatchNorms are apart, as in the file that the run took them from; those of random
    or shipped weights are folded.
    """
    files = Workdir(workdir)
    return open_method(relocated(files.config(), "", weights)).run_weights(files)


def describe_formats() -> str:
    """One line per family: its name and its formats."""
    width = max(len(family.title) for family in FAMILIES)
    return "\n".join(f"{f.title:{width}}  {', '.join(f.formats)}" for f in FAMILIES)


def _checkpoint_family(title: str, name: str, own_key: str) -> Family:
    def detect(tensors: Tensors) -> str | None:
        found = onenip.detect(tensors)
        if found:
            return name if found == name else None
        return OURS if own_key in tensors else None

    write = lambda ours, format: model_file.write_checkpoint(ours, format, name)
    return Family(title, (name, OURS), detect, model_file.read_checkpoint, write)


def _layers(tensors: Tensors, format: str, origin: str) -> Shapes:
    """Shapes of the EfficientNet whose first convolution has as many channels as the file's."""
    layers = {a: layer_shapes(a) for a in networks.ARCHITECTURES.values()}
    rows = efficientnet.key_rows(format, layers[_NETWORK_OF.get(format, networks.EFFICIENTNET_B4)])
    name = next(row.theirs for row in rows if row.ours == ("stem/kernel",))
    stem = next((value.shape for key, value in tensors.items() if key.endswith(name)), ())
    for shapes in layers.values():
        # The order of the axes depends on the format.
        if sorted(shapes["stem"]) == sorted(stem):
            return shapes
    raise UserError(
        f"{origin}: the first convolution has shape {stem}, that of no EfficientNet here; "
        f"known are {', '.join(networks.ARCHITECTURES)}"
    )


def _read_efficientnet(tensors: Tensors, origin: str, format: str) -> Canonical:
    layers = _layers(tensors, format, origin)
    return efficientnet.read_canonical(tensors, layers, origin, format)


def _write_efficientnet(ours: Tensors, format: str) -> Canonical:
    return efficientnet.write_format(ours, _layers(ours, OURS, "the weights to write"), format)


def _read_vit(tensors: Tensors, origin: str, format: str) -> Canonical:
    return vit.read_canonical(tensors, vit.infer_shapes(tensors, origin, format), origin, format)


def _read_clip(tensors: Tensors, origin: str, format: str) -> Canonical:
    config = clip.infer_config(tensors, origin, format)
    return clip.read_canonical(tensors, config, origin, format)


def _write_clip(ours: Tensors, format: str) -> Canonical:
    config = clip.infer_config(ours, "the weights to write", OURS)
    return clip.write_format(ours, config, format)


def _detect_promptmad(tensors: Tensors) -> str | None:
    return OURS if any(key.startswith("segmentor/") for key in tensors) else None


FAMILIES = (
    Family("PromptMAD", (OURS,), _detect_promptmad, lambda t, *_: dict(t), lambda t, _: dict(t)),
    _checkpoint_family("OneNIP", "onenip", "refiner/predictor/kernel"),
    _checkpoint_family("UniAD", "uniad", "reconstructor/decoder/layer_0/query_embed"),
    Family(CLIP, tuple(clip.FORMATS), clip.detect, _read_clip, _write_clip),
    Family(
        "EfficientNet",
        tuple(efficientnet.FORMATS),
        efficientnet.detect,
        _read_efficientnet,
        _write_efficientnet,
    ),
    Family("DINO", tuple(vit.FORMATS), vit.detect, _read_vit, vit.write_format),
)
