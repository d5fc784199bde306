"""Names of EfficientNet's tensors in each origin: rows of the key tables, layer by layer.

Layers are named by their path in our parameters, `stem` or `block3b/depthwise`: stage 3, second
repeat. Of a layer we keep `kernel` (HWIO), and `norm/{scale,bias,mean,var}` or, where no BatchNorm
follows or it is folded, `bias`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from promptmad_jax.weights.key_table import CONVOLUTION, SAME, Row, moved

ROLES = ("expand", "depthwise", "squeeze", "excite", "project")  # in the order of a block
UNNORMALIZED = ("squeeze", "excite")
NORM_PARTS = {"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"}
KERAS_DEPTHWISE = moved(0, 1, 3, 2)  # [k, k, C, 1]

Shape = tuple[int, ...]
Layers = Mapping[str, Shape]


def canonical_shapes(layers: Layers, folded: bool) -> dict[str, Shape]:
    """Shape of every array under our names.

    Args:
        layers: kernel shape (HWIO) of every layer, in the order of the network.
        folded: whether BatchNorm is folded into the convolutions.
    """
    shapes = {}
    for layer, kernel in layers.items():
        bare = folded or layer.endswith(UNNORMALIZED)
        vectors = ["bias"] if bare else [f"norm/{part}" for part in NORM_PARTS.values()]
        shapes[f"{layer}/kernel"] = kernel
        shapes |= {f"{layer}/{vector}": kernel[-1:] for vector in vectors}
    return shapes


@dataclass(frozen=True)
class Place:
    """Place of a layer in the network; `roles` are all those of its block, in order."""

    index: int
    stage: int
    repeat: int
    role: str
    roles: tuple[str, ...]


@dataclass(frozen=True)
class Names:
    """A layer's convolution and the BatchNorm after it, if any."""

    convolution: str
    norm: str | None


def places(layers: Layers) -> dict[str, Place]:
    """Place of every layer but the stem."""
    paths = [path for path in layers if path != "stem"]
    found = {}
    for index, block in enumerate(dict.fromkeys(path.split("/")[0] for path in paths)):
        roles = tuple(role for role in ROLES if f"{block}/{role}" in layers)
        stage, repeat = int(block[5:-1]), ord(block[-1]) - ord("a")
        found |= {f"{block}/{role}": Place(index, stage, repeat, role, roles) for role in roles}
    return found


def torch_rows(
    stem: Names, names_of: Callable[[Place], Names]
) -> Callable[[Layers, bool], list[Row]]:
    """torch's naming: OIHW `weight`s, BatchNorm with running statistics."""

    def rows(layers: Layers, folded: bool) -> list[Row]:
        named = {"stem": stem} | {path: names_of(at) for path, at in places(layers).items()}
        return [row for layer in layers for row in _torch_layer(layer, named[layer])]

    return rows


def _torch_layer(layer: str, names: Names) -> list[Row]:
    kernel = Row(f"{names.convolution}.weight", (f"{layer}/kernel",), CONVOLUTION)
    if names.norm is None:
        return [kernel, Row(f"{names.convolution}.bias", (f"{layer}/bias",))]
    norm = [Row(f"{names.norm}.{a}", (f"{layer}/norm/{b}",)) for a, b in NORM_PARTS.items()]
    return [kernel, *norm]


def numbered(root: str, roles: Mapping[str, tuple[str, str | None]]) -> Callable[[Place], Names]:
    """Origins that number the blocks from 0 through the whole network."""

    def names_of(place: Place) -> Names:
        convolution, norm = roles[place.role]
        block = f"{root}.{place.index}."
        return Names(block + convolution, norm and block + norm)

    return names_of


def timm(place: Place) -> Names:
    """timm numbers stage and repeat, and the BatchNorms by their order within the block."""
    block = f"blocks.{place.stage - 1}.{place.repeat}."
    if place.role in UNNORMALIZED:
        part = "conv_reduce" if place.role == "squeeze" else "conv_expand"
        return Names(f"{block}se.{part}", None)
    order = tuple(role for role in place.roles if role not in UNNORMALIZED)
    position = order.index(place.role)
    return Names(block + _TIMM_CONVOLUTIONS[order][position], f"{block}bn{position + 1}")


def torchvision(place: Place) -> Names:
    """torchvision numbers stage, repeat and what a block does; squeeze and excite are one."""
    entries = [role for role in place.roles if role != "excite"]
    unnormalized = place.role in UNNORMALIZED
    position = entries.index("squeeze" if unnormalized else place.role)
    entry = f"features.{place.stage}.{place.repeat}.block.{position}."
    if unnormalized:
        return Names(f"{entry}fc{1 + UNNORMALIZED.index(place.role)}", None)
    return Names(f"{entry}0", f"{entry}1")


def keras_rows(layers: Layers, folded: bool) -> list[Row]:
    """Keras' EfficientNetV2, `kernel` and `bias` a layer."""
    rows = []
    for layer in layers:
        block, _, role = layer.partition("/")
        name = f"{block}_{_KERAS[role]}"
        kernel = KERAS_DEPTHWISE if role == "depthwise" else SAME
        rows.append(Row(f"{name}/kernel", (f"{layer}/kernel",), kernel))
        rows.append(Row(f"{name}/bias", (f"{layer}/bias",)))
    return rows


def own_rows(layers: Layers, folded: bool) -> list[Row]:
    """Our names for themselves."""
    return [Row(path, (path,)) for path in canonical_shapes(layers, folded)]


EFFICIENTNET_PYTORCH = {
    "expand": ("_expand_conv", "_bn0"),
    "depthwise": ("_depthwise_conv", "_bn1"),
    "squeeze": ("_se_reduce", None),
    "excite": ("_se_expand", None),
    "project": ("_project_conv", "_bn2"),
}
TRANSFORMERS = {
    "expand": ("expansion.expand_conv", "expansion.expand_bn"),
    "depthwise": ("depthwise_conv.depthwise_conv", "depthwise_conv.depthwise_norm"),
    "squeeze": ("squeeze_excite.reduce", None),
    "excite": ("squeeze_excite.expand", None),
    "project": ("projection.project_conv", "projection.project_bn"),
}
_TIMM_CONVOLUTIONS = {
    ("expand", "depthwise", "project"): ("conv_pw", "conv_dw", "conv_pwl"),
    ("depthwise", "project"): ("conv_dw", "conv_pw"),
    ("expand", "project"): ("conv_exp", "conv_pwl"),
    ("project",): ("conv",),
}
_KERAS = {
    "": "conv",
    "expand": "expand_conv",
    "depthwise": "dwconv2",
    "squeeze": "se_reduce",
    "excite": "se_expand",
    "project": "project_conv",
}
