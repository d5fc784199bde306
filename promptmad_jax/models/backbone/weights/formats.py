"""The origins of EfficientNet weights: their key tables, and what of a file is left out."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from promptmad_jax.models.backbone.weights.names import (
    EFFICIENTNET_PYTORCH,
    TRANSFORMERS,
    Layers,
    Names,
    keras_rows,
    numbered,
    own_rows,
    places,
    timm,
    torch_rows,
    torchvision,
)
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.weights.key_table import Row


@dataclass(frozen=True)
class Format:
    """One origin of weight files.

    Attributes:
        title: how messages call it.
        signature: a key that only this origin has.
        rows: (layers, folded) -> the key table.
        unused: layers -> pattern of the keys that the backbone does without: later blocks, the
            classifier, counters.
        forms: whether such files hold BatchNorm folded into the convolutions; both if either.
        versions: of EfficientNet that the origin has. Every block of version 1 has a depthwise
            filter; version 2 begins with blocks that have none.
    """

    title: str
    signature: str
    rows: Callable[[Layers, bool], list[Row]]
    unused: Callable[[Layers], str]
    forms: tuple[bool, ...] = (False,)
    versions: tuple[int, ...] = (1, 2)


def key_rows(format: str, layers: Layers, folded: bool | None = None) -> list[Row]:
    """The key table of an origin for the network that has these layers.

    Args:
        format: a name in FORMATS.
        folded: the form of the weights; None takes the one that the origin's files usually have.

    Raises:
        UserError: the origin is unknown, does not have this network, or not in this form.
    """
    spec = format_named(format)
    folded = spec.forms[0] if folded is None else folded
    version = 1 if all("depthwise" in place.roles for place in places(layers).values()) else 2
    if version not in spec.versions:
        raise UserError(
            f"{spec.title} has no EfficientNet of version {version}; check the name of the "
            "network and the kind of the weights"
        )
    if folded not in spec.forms:
        wanted, given = ("folded", "apart") if spec.forms[0] else ("apart", "folded")
        raise UserError(
            f"{spec.title} weights hold BatchNorm {wanted}, and these hold it {given}; "
            "write them as promptmad, which takes both"
        )
    return spec.rows(layers, folded)


def unused_keys(format: str, layers: Layers) -> str:
    """Pattern of the keys of an origin's file that the network with these layers leaves out."""
    return format_named(format).unused(layers)


def format_named(name: str) -> Format:
    """The entry of FORMATS.

    Raises:
        UserError: there is none of this name.
    """
    if name not in FORMATS:
        raise UserError(f"{name}: unknown kind of weights; choose from {', '.join(FORMATS)}")
    return FORMATS[name]


def _unused(
    root: str, counted: Callable[[Layers], Iterable[int]], *others: str
) -> Callable[[Layers], str]:
    """Everything under `root.NUMBER.` but the counted numbers; the other modules; counters."""

    def pattern(layers: Layers) -> str:
        kept = "|".join(map(str, counted(layers)))
        later = rf"{re.escape(root)}\.(?!(?:{kept})\.)\d+"
        rest = "|".join((later, *map(re.escape, others)))
        return rf"(?:{rest})\..*|.*\.num_batches_tracked"

    return pattern


def _block_numbers(layers: Layers) -> list[int]:
    return sorted({place.index for place in places(layers).values()})


def _stages(layers: Layers) -> list[int]:
    return sorted({place.stage for place in places(layers).values()})


def _keras_unused(layers: Layers) -> str:
    kept = "|".join(map(str, _stages(layers)))
    return rf"block(?!(?:{kept})[a-z]_)\d+[a-z]_.*|top_conv/.*"


FORMATS = {
    "efficientnet_pytorch": Format(
        "EfficientNet-PyTorch",
        "_conv_stem.weight",
        torch_rows(Names("_conv_stem", "_bn0"), numbered("_blocks", EFFICIENTNET_PYTORCH)),
        _unused("_blocks", _block_numbers, "_conv_head", "_bn1", "_fc"),
        versions=(1,),
    ),
    "timm": Format(
        "timm",
        "conv_stem.weight",
        torch_rows(Names("conv_stem", "bn1"), timm),
        _unused("blocks", lambda x: [n - 1 for n in _stages(x)], "conv_head", "bn2", "classifier"),
    ),
    "torchvision": Format(
        "torchvision",
        "features.1.0.block.0.0.weight",
        torch_rows(Names("features.0.0", "features.0.1"), torchvision),
        _unused("features", lambda layers: [0, *_stages(layers)], "classifier"),
    ),
    "transformers": Format(
        "transformers",
        "embeddings.convolution.weight",
        torch_rows(
            Names("embeddings.convolution", "embeddings.batchnorm"),
            numbered("encoder.blocks", TRANSFORMERS),
        ),
        _unused("encoder.blocks", _block_numbers, "encoder.top_conv", "encoder.top_bn"),
        versions=(1,),
    ),
    "keras": Format(
        "Keras (folded)",
        "stem_conv/kernel",
        keras_rows,
        _keras_unused,
        forms=(True,),
        versions=(2,),
    ),
    "promptmad": Format(
        "promptmad", "stem/kernel", own_rows, lambda layers: "(?!)", forms=(False, True)
    ),
}
