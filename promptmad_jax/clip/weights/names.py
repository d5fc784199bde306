"""Key tables of CLIP: transformers' names and OpenAI's, which are open_clip's too, against ours."""

from collections.abc import Iterator

from promptmad_jax.clip.config import ClipConfig, TowerConfig
from promptmad_jax.clip.weights.shapes import clip_shapes
from promptmad_jax.weights.key_table import (
    CONVOLUTION,
    DENSE,
    PACKED_BIAS,
    PACKED_KERNEL,
    SAME,
    Row,
    Transform,
)

Rows = Iterator[Row]


def _row(theirs: str, ours: str, transform: Transform = SAME) -> Row:
    return Row(theirs, (ours,), transform)


def _norm(theirs: str, ours: str) -> Rows:
    yield _row(f"{theirs}.weight", f"{ours}/scale")
    yield _row(f"{theirs}.bias", f"{ours}/bias")


def _dense(theirs: str, ours: str) -> Rows:
    yield _row(f"{theirs}.weight", f"{ours}/kernel", DENSE)
    yield _row(f"{theirs}.bias", f"{ours}/bias")


def promptmad_rows(config: ClipConfig) -> Rows:
    """Our own names."""
    for path in clip_shapes(config):
        yield _row(path, path)


def transformers_rows(config: ClipConfig) -> Rows:
    """CLIPModel, or the one tower's class with its projection."""
    if config.text:
        yield from _transformers_text(config.text)
    if config.vision:
        yield from _transformers_vision(config.vision)
    if config.text and config.vision:
        yield _row("logit_scale", "logit_scale")


def _transformers_text(config: TowerConfig) -> Rows:
    theirs = "text_model.embeddings"
    yield _row(f"{theirs}.token_embedding.weight", "text/token_embedding/embedding")
    yield _row(f"{theirs}.position_embedding.weight", "text/position_embedding")
    yield from _transformers_layers("text", config.layers)
    yield from _norm("text_model.final_layer_norm", "text/final_norm")
    if config.projection is not None:
        yield _row("text_projection.weight", "text/projection/kernel", DENSE)


def _transformers_vision(config: TowerConfig) -> Rows:
    theirs = "vision_model.embeddings"
    yield _row(f"{theirs}.patch_embedding.weight", "vision/patch_embedding/kernel", CONVOLUTION)
    yield _row(f"{theirs}.class_embedding", "vision/class_embedding")
    yield _row(f"{theirs}.position_embedding.weight", "vision/position_embedding")
    yield from _norm("vision_model.pre_layrnorm", "vision/pre_norm")  # spelt so there
    yield from _transformers_layers("vision", config.layers)
    yield from _norm("vision_model.post_layernorm", "vision/post_norm")
    if config.projection is not None:
        yield _row("visual_projection.weight", "vision/projection/kernel", DENSE)


def _transformers_layers(side: str, layers: int) -> Rows:
    for i in range(layers):
        theirs, ours = f"{side}_model.encoder.layers.{i}", f"{side}/layers/{i}"
        yield from _norm(f"{theirs}.layer_norm1", f"{ours}/norm1")
        for short, part in (("q", "query"), ("k", "key"), ("v", "value"), ("out", "out")):
            yield from _dense(f"{theirs}.self_attn.{short}_proj", f"{ours}/attention/{part}")
        yield from _norm(f"{theirs}.layer_norm2", f"{ours}/norm2")
        yield from _dense(f"{theirs}.mlp.fc1", f"{ours}/lin1")
        yield from _dense(f"{theirs}.mlp.fc2", f"{ours}/lin2")


def openai_rows(config: ClipConfig) -> Rows:
    """OpenAI's state dict; open_clip's of the models in OpenAI's form."""
    if config.text:
        yield from _openai_text(config.text)
    if config.vision:
        yield from _openai_vision(config.vision)
    if config.text and config.vision:
        yield _row("logit_scale", "logit_scale")


def _openai_text(config: TowerConfig) -> Rows:
    yield _row("token_embedding.weight", "text/token_embedding/embedding")
    yield _row("positional_embedding", "text/position_embedding")
    yield from _openai_layers("transformer", "text", config.layers)
    yield from _norm("ln_final", "text/final_norm")
    if config.projection is not None:  # a matrix, not a Linear: stored as [width, projection]
        yield _row("text_projection", "text/projection/kernel")


def _openai_vision(config: TowerConfig) -> Rows:
    yield _row("visual.conv1.weight", "vision/patch_embedding/kernel", CONVOLUTION)
    yield _row("visual.class_embedding", "vision/class_embedding")
    yield _row("visual.positional_embedding", "vision/position_embedding")
    yield from _norm("visual.ln_pre", "vision/pre_norm")
    yield from _openai_layers("visual.transformer", "vision", config.layers)
    yield from _norm("visual.ln_post", "vision/post_norm")
    if config.projection is not None:
        yield _row("visual.proj", "vision/projection/kernel")


def _openai_layers(root: str, side: str, layers: int) -> Rows:
    for i in range(layers):
        theirs, ours = f"{root}.resblocks.{i}", f"{side}/layers/{i}"
        parts = [f"{ours}/attention/{part}" for part in ("query", "key", "value")]
        yield from _norm(f"{theirs}.ln_1", f"{ours}/norm1")
        kernels, biases = (tuple(f"{part}/{leaf}" for part in parts) for leaf in ("kernel", "bias"))
        yield Row(f"{theirs}.attn.in_proj_weight", kernels, PACKED_KERNEL)
        yield Row(f"{theirs}.attn.in_proj_bias", biases, PACKED_BIAS)
        yield from _dense(f"{theirs}.attn.out_proj", f"{ours}/attention/out")
        yield from _norm(f"{theirs}.ln_2", f"{ours}/norm2")
        yield from _dense(f"{theirs}.mlp.c_fc", f"{ours}/lin1")
        yield from _dense(f"{theirs}.mlp.c_proj", f"{ours}/lin2")
