"""Our names of CLIP's parameters: their shapes from a configuration, and the way back."""

from collections.abc import Mapping

from promptmad_jax.clip.config import (
    LEGACY_EOS,
    ClipConfig,
    ClipTextConfig,
    ClipVisionConfig,
    TowerConfig,
)

Shapes = dict[str, tuple[int, ...]]

# open_clip's ViT-H, g and bigG have vision heads of 80, 88 and 104; all other heads are 64 wide.
_VISION_HEADS = {1280: 16, 1408: 16, 1664: 16}
_HEAD_WIDTH = 64


def clip_shapes(config: ClipConfig) -> Shapes:
    """Every parameter, `text/...`, `vision/...` and `logit_scale`, and its shape."""
    shapes = {}
    if config.text:
        shapes |= _under("text", _text(config.text))
    if config.vision:
        shapes |= _under("vision", _vision(config.vision))
    if config.text and config.vision:
        shapes["logit_scale"] = ()
    return shapes


def _under(name: str, shapes: Shapes) -> Shapes:
    return {f"{name}/{path}": shape for path, shape in shapes.items()}


def _text(config: ClipTextConfig) -> Shapes:
    return {
        "token_embedding/embedding": (config.vocabulary, config.width),
        "position_embedding": (config.context, config.width),
        **_norm("final_norm", config.width),
        **_transformer(config),
    }


def _vision(config: ClipVisionConfig) -> Shapes:
    return {
        "patch_embedding/kernel": (config.patch, config.patch, 3, config.width),
        "class_embedding": (config.width,),
        "position_embedding": (1 + config.grid**2, config.width),
        **_norm("pre_norm", config.width),
        **_norm("post_norm", config.width),
        **_transformer(config),
    }


def _transformer(config: TowerConfig) -> Shapes:
    shapes = {}
    for i in range(config.layers):
        shapes |= _under(f"layers/{i}", _layer(config.width, config.hidden))
    if config.projection is not None:
        shapes["projection/kernel"] = (config.width, config.projection)
    return shapes


def _layer(width: int, hidden: int) -> Shapes:
    shapes = {**_norm("norm1", width), **_norm("norm2", width)}
    for part in ("query", "key", "value", "out"):
        shapes |= _dense(f"attention/{part}", width, width)
    return shapes | _dense("lin1", width, hidden) | _dense("lin2", hidden, width)


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}/scale": (width,), f"{name}/bias": (width,)}


def _dense(name: str, width_in: int, width_out: int) -> Shapes:
    return {f"{name}/kernel": (width_in, width_out), f"{name}/bias": (width_out,)}


def text_from_shapes(shapes: Mapping, layers: int, activation: str) -> ClipTextConfig:
    """The text tower that these shapes imply; only those outside the layers and of layer 0 count.

    Raises:
        KeyError: a parameter that is needed is not there.
        ValueError: one has another number of dimensions.
    """
    vocabulary, width = shapes["text/token_embedding/embedding"]
    context, _ = shapes["text/position_embedding"]
    _, hidden = shapes["text/layers/0/lin1/kernel"]
    return ClipTextConfig(
        width=width,
        hidden=hidden,
        heads=max(width // _HEAD_WIDTH, 1),
        layers=layers,
        projection=shapes.get("text/projection/kernel", (None,))[-1],
        activation=activation,
        vocabulary=vocabulary,
        context=context,
        eos_id=LEGACY_EOS,
    )


def vision_from_shapes(shapes: Mapping, layers: int, activation: str) -> ClipVisionConfig:
    """As `text_from_shapes`, the vision tower."""
    patch, _, _, width = shapes["vision/patch_embedding/kernel"]
    positions, _ = shapes["vision/position_embedding"]
    _, hidden = shapes["vision/layers/0/lin1/kernel"]
    return ClipVisionConfig(
        width=width,
        hidden=hidden,
        heads=_VISION_HEADS.get(width, max(width // _HEAD_WIDTH, 1)),
        layers=layers,
        projection=shapes.get("vision/projection/kernel", (None,))[-1],
        activation=activation,
        image=patch * round((positions - 1) ** 0.5),
        patch=patch,
    )
