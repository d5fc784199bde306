"""Key table: Hugging Face's CLIP text tower to the parameters of `prompts.clip_text`."""

import re
from collections.abc import Mapping

import numpy as np

from promptmad_jax.runtime.errors import UserError

_LISTED = 20  # keys of a kind that an error message names

# our path: (Hugging Face name, whether it is torch's [out, in] of a linear layer)
_TOP = {
    "token_embedding/embedding": ("embeddings.token_embedding.weight", False),
    "position_embedding": ("embeddings.position_embedding.weight", False),
    "final_norm/scale": ("final_layer_norm.weight", False),
    "final_norm/bias": ("final_layer_norm.bias", False),
    "projection/kernel": ("text_projection.weight", True),
}
_LAYER = {
    "norm1/scale": ("layer_norm1.weight", False),
    "norm1/bias": ("layer_norm1.bias", False),
    "attention/query/kernel": ("self_attn.q_proj.weight", True),
    "attention/query/bias": ("self_attn.q_proj.bias", False),
    "attention/key/kernel": ("self_attn.k_proj.weight", True),
    "attention/key/bias": ("self_attn.k_proj.bias", False),
    "attention/value/kernel": ("self_attn.v_proj.weight", True),
    "attention/value/bias": ("self_attn.v_proj.bias", False),
    "attention/out/kernel": ("self_attn.out_proj.weight", True),
    "attention/out/bias": ("self_attn.out_proj.bias", False),
    "norm2/scale": ("layer_norm2.weight", False),
    "norm2/bias": ("layer_norm2.bias", False),
    "lin1/kernel": ("mlp.fc1.weight", True),
    "lin1/bias": ("mlp.fc1.bias", False),
    "lin2/kernel": ("mlp.fc2.weight", True),
    "lin2/bias": ("mlp.fc2.bias", False),
}
# The vision half of a full model, and a buffer of 0..76 that old files carry.
_NOT_TEXT = re.compile(r"vision_model\..*|visual_projection\.weight|logit_scale|.*\.position_ids")


def text_tensors(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The text tower's tensors of a CLIPModel, CLIPTextModel or CLIPTextModelWithProjection file.

    Names lose the prefix `text_model.`, which transformers writes or not by version and class.
    """
    return {
        name.removeprefix("text_model."): value
        for name, value in tensors.items()
        if not _NOT_TEXT.fullmatch(name)
    }


def source_name(path: str) -> tuple[str, bool]:
    """Hugging Face's name (without prefix) of our parameter path, and whether it is transposed."""
    layer = re.fullmatch(r"layers/(\d+)/(.+)", path)
    if layer is None:
        return _TOP[path]
    name, transposed = _LAYER[layer[2]]
    return f"encoder.layers.{layer[1]}.{name}", transposed


def convert_text(
    tensors: Mapping[str, np.ndarray], shapes: Mapping[str, tuple[int, ...]], origin: str
) -> dict[str, np.ndarray]:
    """Our parameters from a text tower's tensors, strict both ways.

    Args:
        tensors: the result of `text_tensors`.
        shapes: slash-joined parameter paths of the tower and their shapes.
        origin: the file, for the message.

    Returns:
        float32 arrays by slash-joined path.

    Raises:
        UserError: lists every missing, unexpected and mis-shaped key.
    """
    names = {path: source_name(path) for path in shapes}
    expected = {
        name: shapes[path][::-1] if transposed else shapes[path]
        for path, (name, transposed) in names.items()
    }
    problems = _problems(tensors, expected)
    if problems:
        raise UserError(
            f"{origin} does not fit the CLIP text tower that its config describes: "
            f"{'; '.join(problems)}. Give the weights and config.json of one model."
        )
    return {
        path: _as_parameter(tensors[name], transposed) for path, (name, transposed) in names.items()
    }


def _as_parameter(value: np.ndarray, transposed: bool) -> np.ndarray:
    return np.ascontiguousarray(value.T if transposed else value, dtype=np.float32)


def _problems(tensors: Mapping[str, np.ndarray], expected: Mapping[str, tuple]) -> list[str]:
    missing = sorted(expected.keys() - tensors.keys())
    extra = sorted(tensors.keys() - expected.keys())
    shaped = [
        f"{name} is {tuple(tensors[name].shape)}, not {tuple(shape)}"
        for name, shape in sorted(expected.items())
        if name in tensors and tuple(tensors[name].shape) != tuple(shape)
    ]
    kinds = (("missing", missing), ("unexpected", extra), ("wrong shape", shaped))
    return [f"{kind}: {_listing(keys)}" for kind, keys in kinds if keys]


def _listing(keys: list[str]) -> str:
    rest = f" and {len(keys) - _LISTED} more" if len(keys) > _LISTED else ""
    return ", ".join(keys[:_LISTED]) + rest
