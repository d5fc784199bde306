"""Key tables of CLIP: other projects' names, which follow from ours by rules."""

import re
from collections.abc import Iterator

from promptmad_jax.clip.config import ClipConfig
from promptmad_jax.clip.weights.shapes import clip_shapes
from promptmad_jax.weights import key_table
from promptmad_jax.weights.key_table import DENSE, SAME, Row, Transform

Rows = Iterator[Row]
Rules = tuple[tuple[str, str], ...]  # pattern and replacement, applied in order

_FLAX = (
    (r"^(text|vision)/(\w+_embedding)", r"\1_model/embeddings/\2"),
    ("position_embedding$", "position_embedding/embedding"),
    (r"^(text|vision)/layers", r"\1_model/encoder/layers"),
    ("^text/final_norm", "text_model/final_layer_norm"),
    ("^vision/pre_norm", "vision_model/pre_layrnorm"),  # spelt so there
    ("^vision/post_norm", "vision_model/post_layernorm"),
    ("^text/projection", "text_projection"),
    ("^vision/projection", "visual_projection"),
    (r"/norm(\d)", r"/layer_norm\1"),
    ("/attention/out", "/self_attn/out_proj"),
    (r"/attention/(\w)\w+", r"/self_attn/\1_proj"),
    (r"/lin(\d)", r"/mlp/fc\1"),
)
_TORCH = (("/(kernel|scale|embedding)$", ".weight"), ("/", "."))
_OPENAI = (
    ("^text/projection/kernel", "text_projection"),
    ("^vision/projection/kernel", "visual/proj"),
    ("position_embedding", "positional_embedding"),
    ("^vision/patch_embedding", "visual/conv1"),
    ("^text/final_norm", "ln_final"),
    ("^vision/(pre|post)_norm", r"visual/ln_\1"),
    ("^vision", "visual"),
    ("^text/(?=token|position)", ""),
    ("^text/layers", "transformer/layers"),
    ("^visual/layers", "visual/transformer/layers"),
    ("/layers/", "/resblocks/"),
    (r"/norm(\d)", r"/ln_\1"),
    ("/attention/out", "/attn/out_proj"),
    ("/attention/query/kernel", "/attn/in_proj_weight"),
    ("/attention/query/bias", "/attn/in_proj_bias"),
    ("/lin1", "/mlp/c_fc"),
    ("/lin2", "/mlp/c_proj"),
)


def promptmad_rows(config: ClipConfig) -> Rows:
    """Our own names."""
    for path in clip_shapes(config):
        yield Row(path, (path,))


def flax_rows(config: ClipConfig) -> Rows:
    """transformers' FlaxCLIPModel, or one tower's class; kernels have our axes."""
    for path in clip_shapes(config):
        yield Row(_renamed(path, _FLAX), (path,))


def transformers_rows(config: ClipConfig) -> Rows:
    """transformers' CLIPModel, or one tower's class."""
    for path in clip_shapes(config):
        yield Row(_renamed(path, _FLAX + _TORCH), (path,), _transform(path))


def openai_rows(config: ClipConfig) -> Rows:
    """OpenAI's state dict, and open_clip's of the models in OpenAI's form."""
    for path in clip_shapes(config):
        name = _renamed(path, _OPENAI + _TORCH)
        if "/attention/query/" in path:
            kernel = path.endswith("kernel")
            transform = key_table.PACKED_KERNEL if kernel else key_table.PACKED_BIAS
            parts = tuple(path.replace("query", part) for part in ("query", "key", "value"))
            yield Row(name, parts, transform)
        elif not re.search("/attention/(key|value)/", path):
            # Projections are matrices there, not a Linear: stored as [width, projection].
            yield Row(name, (path,), SAME if "projection" in path else _transform(path))


def _renamed(path: str, rules: Rules) -> str:
    for pattern, replacement in rules:
        path = re.sub(pattern, replacement, path)
    return path


def _transform(path: str) -> Transform:
    if path.endswith("patch_embedding/kernel"):
        return key_table.CONVOLUTION
    return DENSE if path.endswith("kernel") else SAME
