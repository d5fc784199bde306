"""EfficientNet weights of other projects under our names, BatchNorm folded on the way.

Layers are named by their path in our parameters: `stem`, `block3b/depthwise`; each becomes
`kernel` (HWIO) and `bias`. Known origins: EfficientNet-PyTorch (also inside a OneNIP or UniAD
checkpoint), timm, Hugging Face transformers, Keras' EfficientNetV2 with BatchNorm already folded,
and our own names.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from promptmad_jax.runtime.errors import UserError
from promptmad_jax.weights.files import read_tensors

BATCH_NORM_EPSILON = 1e-3
NORM_PARTS = ("weight", "bias", "running_mean", "running_var")
WRAPPERS = ("module.", "backbone.", "efficientnet.")

Tensors = Mapping[str, np.ndarray]
Shape = tuple[int, ...]
Layers = Mapping[str, Shape]


@dataclass(frozen=True)
class Names:
    """Where one layer's tensors are: a convolution and, unfolded, the BatchNorm after it."""

    convolution: str
    norm: str | None


@dataclass(frozen=True)
class Format:
    """One origin of weight files.

    Attributes:
        title: how messages call it.
        signature: a key that only this origin has.
        names: (layer, all layers) -> Names.
        unused: pattern of the keys behind the last tap.
        torch: OIHW `weight`s, as against HWIO `kernel`s.
    """

    title: str
    signature: str
    names: Callable[[str, Layers], Names]
    unused: str
    torch: bool = True


def load_efficientnet(path: str | Path, layers: Layers) -> dict[str, Any]:
    """Reads a weight file into nested float32 parameters.

    Args:
        path: a .safetensors or .npz file of a known origin.
        layers: kernel shape (HWIO) of every wanted layer, in the order of the network.

    Raises:
        UserError: unreadable or unknown file; or keys that are missing, unknown or of another
            shape, which are listed.
    """
    tensors = _unwrap(read_tensors(path))
    origin = _detect(tensors, path)
    wanted = {layer: origin.names(layer, layers) for layer in layers}
    shapes = {
        key: shape
        for layer, names in wanted.items()
        for key, shape in _stored_shapes(names, layers[layer], origin.torch).items()
    }
    _check(tensors, shapes, origin, path)
    params: dict[str, Any] = {}
    for layer, names in wanted.items():
        *parents, leaf = layer.split("/")
        node = params
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = _layer(tensors, names, layers[layer], origin.torch)
    _check_finite(params, path)
    return params


def _unwrap(tensors: Tensors) -> dict[str, np.ndarray]:
    """Drops the names of enclosing modules, and what stands beside them."""
    kept = {k: v for k, v in tensors.items() if not k.endswith("num_batches_tracked")}
    for wrapper in WRAPPERS:
        if any(key.startswith(wrapper) for key in kept):
            kept = {
                k.removeprefix(wrapper): v
                for k, v in kept.items()
                if k.startswith(wrapper) or k.startswith("classifier.")
            }
    return kept


def _detect(tensors: Tensors, path: str | Path) -> Format:
    for origin in FORMATS:
        if origin.signature in tensors:
            return origin
    raise UserError(
        f"{path}: no EfficientNet weights of a known origin; its first keys are "
        f"{', '.join(sorted(tensors)[:4]) or 'none'}; known are "
        + ", ".join(f"{f.title} (key {f.signature})" for f in FORMATS)
    )


def _stored_shapes(names: Names, kernel: Shape, torch: bool) -> dict[str, Shape]:
    """Keys and shapes of a layer as the file should hold them; `kernel` is HWIO."""
    outputs = kernel[-1:]
    if not torch:
        return {f"{names.convolution}/kernel": kernel, f"{names.convolution}/bias": outputs}
    shapes = {f"{names.convolution}.weight": tuple(kernel[axis] for axis in (3, 2, 0, 1))}
    if names.norm is None:
        return shapes | {f"{names.convolution}.bias": outputs}
    return shapes | {f"{names.norm}.{part}": outputs for part in NORM_PARTS}


def _check(tensors: Tensors, shapes: Mapping[str, Shape], origin: Format, path: str | Path) -> None:
    unused = re.compile(origin.unused)
    faults = {
        "missing": [key for key in shapes if key not in tensors],
        "unknown": [key for key in tensors if key not in shapes and not unused.match(key)],
        "of another shape": [
            f"{key} {tensors[key].shape} instead of {shape}"
            for key, shape in shapes.items()
            if key in tensors and not _same_shape(tensors[key].shape, shape, key)
        ],
    }
    found = [
        f"{len(keys)} {what}: {', '.join(keys[:6])}{', …' if len(keys) > 6 else ''}"
        for what, keys in faults.items()
        if keys
    ]
    if found:
        raise UserError(
            f"{path}: {origin.title} weights that do not fit this backbone; "
            f"{'; '.join(found)}; check the name of the backbone and the file"
        )


def _same_shape(stored: Shape, shape: Shape, key: str) -> bool:
    # Keras keeps a depthwise kernel as [k, k, C, 1].
    depthwise = key.endswith("dwconv2/kernel")
    return stored == ((*shape[:2], shape[3], shape[2]) if depthwise else shape)


def _layer(tensors: Tensors, names: Names, kernel: Shape, torch: bool) -> dict[str, np.ndarray]:
    if not torch:
        return {
            "kernel": _float32(tensors[f"{names.convolution}/kernel"]).reshape(kernel),
            "bias": _float32(tensors[f"{names.convolution}/bias"]),
        }
    weight = tensors[f"{names.convolution}.weight"].astype(np.float64).transpose(2, 3, 1, 0)
    if names.norm is None:
        return {"kernel": _float32(weight), "bias": _float32(tensors[f"{names.convolution}.bias"])}
    scale, bias, mean, variance = (
        tensors[f"{names.norm}.{part}"].astype(np.float64) for part in NORM_PARTS
    )
    scale = scale / np.sqrt(variance + BATCH_NORM_EPSILON)
    return {"kernel": _float32(weight * scale), "bias": _float32(bias - mean * scale)}


def _float32(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array, np.float32)


def _check_finite(params: Mapping[str, Any], path: str | Path, parent: str = "") -> None:
    for name, value in params.items():
        where = f"{parent}{name}"
        if isinstance(value, Mapping):
            _check_finite(value, path, f"{where}/")
        elif not np.isfinite(value).all():
            raise UserError(f"{path}: {where} is not finite after folding; the file is damaged")


def _numbered(root: str, stem: Names, roles: Mapping[str, tuple[str, str | None]]):
    """Origins that number the blocks from 0 through the whole network."""

    def names(layer: str, layers: Layers) -> Names:
        if layer == "stem":
            return stem
        block, role = layer.split("/")
        blocks = list(dict.fromkeys(path.split("/")[0] for path in layers if "/" in path))
        prefix = f"{root}.{blocks.index(block)}."
        convolution, norm = roles[role]
        return Names(prefix + convolution, norm and prefix + norm)

    return names


def _timm_names(layer: str, layers: Layers) -> Names:
    """timm numbers stage and repeat, and the BatchNorms by their order within the block."""
    if layer == "stem":
        return Names("conv_stem", "bn1")
    block, role = layer.split("/")
    prefix = f"blocks.{int(block[5]) - 1}.{ord(block[6]) - ord('a')}."
    if role in ("squeeze", "excite"):
        return Names(f"{prefix}se.conv_{'reduce' if role == 'squeeze' else 'expand'}", None)
    order = [r for r in ("expand", "depthwise", "project") if f"{block}/{r}" in layers]
    names = _TIMM_CONVOLUTIONS[tuple(order)]
    position = order.index(role)
    return Names(prefix + names[position], f"{prefix}bn{position + 1}")


_TIMM_CONVOLUTIONS = {
    ("expand", "depthwise", "project"): ("conv_pw", "conv_dw", "conv_pwl"),
    ("depthwise", "project"): ("conv_dw", "conv_pw"),
    ("expand", "project"): ("conv_exp", "conv_pwl"),
    ("project",): ("conv",),
}

_EFFICIENTNET_PYTORCH = {
    "expand": ("_expand_conv", "_bn0"),
    "depthwise": ("_depthwise_conv", "_bn1"),
    "squeeze": ("_se_reduce", None),
    "excite": ("_se_expand", None),
    "project": ("_project_conv", "_bn2"),
}

_TRANSFORMERS = {
    "expand": ("expansion.expand_conv", "expansion.expand_bn"),
    "depthwise": ("depthwise_conv.depthwise_conv", "depthwise_conv.depthwise_norm"),
    "squeeze": ("squeeze_excite.reduce", None),
    "excite": ("squeeze_excite.expand", None),
    "project": ("projection.project_conv", "projection.project_bn"),
}

_KERAS = {
    "expand": "expand_conv",
    "depthwise": "dwconv2",
    "squeeze": "se_reduce",
    "excite": "se_expand",
    "project": "project_conv",
}


def _keras_names(layer: str, layers: Layers) -> Names:
    if layer == "stem":
        return Names("stem_conv", None)
    block, role = layer.split("/")
    return Names(f"{block}_{_KERAS[role]}", None)


# Blocks 22 to 31 of EfficientNet-B4, stages 6 and 7 of either network, and the classifier.
FORMATS = (
    Format(
        "EfficientNet-PyTorch",
        "_conv_stem.weight",
        _numbered("_blocks", Names("_conv_stem", "_bn0"), _EFFICIENTNET_PYTORCH),
        r"_blocks\.(2[2-9]|3[01])\.|_conv_head\.|_bn1\.|_fc\.|classifier\.",
    ),
    Format(
        "timm", "conv_stem.weight", _timm_names, r"blocks\.[56]\.|conv_head\.|bn2\.|classifier\."
    ),
    Format(
        "transformers",
        "embeddings.convolution.weight",
        _numbered(
            "encoder.blocks", Names("embeddings.convolution", "embeddings.batchnorm"), _TRANSFORMERS
        ),
        r"encoder\.blocks\.(2[2-9]|3[01])\.|encoder\.top_(conv|bn)\.|classifier\.",
    ),
    Format(
        "folded Keras", "stem_conv/kernel", _keras_names, r"block6[a-h]_|top_conv/", torch=False
    ),
    Format(
        "promptmad", "stem/kernel", lambda layer, layers: Names(layer, None), r"(?!)", torch=False
    ),
)
