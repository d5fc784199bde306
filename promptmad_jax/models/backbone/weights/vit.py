"""DINOv2 and DINOv3 weights of any known origin: to our names and back unchanged, and for use.

The canonical form is a flat mapping under our names, in the file's types. Three of its arrays are
optional, since not every origin has them: `class_position`, which timm adds to the class token
where there are registers, and the biases of queries and values, which its DINOv3 does without.
"""

import re
from collections.abc import Iterable
from typing import Any

import numpy as np
from flax import traverse_util

from promptmad_jax.runtime.errors import UserError
from promptmad_jax.weights import key_table
from promptmad_jax.weights.key_table import (
    CONVOLUTION,
    DENSE,
    SAME,
    Row,
    Shapes,
    Tensors,
    Transform,
)

CLASS_POSITION = "class_position"
_OPTIONAL = re.compile(rf"{CLASS_POSITION}|blocks/\d+/attention/(query|value)/bias")
_BLOCK = re.compile(r"blocks/(\d+)/")
_PARTS, _GATED = ("query", "key", "value"), ("gate", "up")

_BATCHED = Transform(lambda a: [a[0]], lambda arrays: arrays[0][None])
_TOKEN = Transform(lambda a: [a[0, 0]], lambda arrays: arrays[0][None, None])
_TABLE = Transform(
    lambda a: [a[0, 0], a[0, 1:]], lambda arrays: np.concatenate([arrays[0][None], arrays[1]])[None]
)
_PACKED_PAIR_KERNEL = Transform(
    lambda a: [part.T for part in np.split(a, 2)],
    lambda arrays: np.concatenate([part.T for part in arrays]),
)
_PACKED_PAIR_BIAS = Transform(lambda a: np.split(a, 2), np.concatenate)

Rules = tuple[tuple[str, str], ...]  # pattern and replacement, applied in order
_TORCH = (("/(kernel|scale)$", ".weight"), ("/", "."))
_DINOV2: Rules = (
    ("^patch_embedding", "embeddings/patch_embeddings/projection"),
    ("^class_token", "embeddings/cls_token"),
    ("^registers", "embeddings/register_tokens"),
    ("^positions", "embeddings/position_embeddings"),
    ("^blocks", "encoder/layer"),
    ("attention/out", "attention/output/dense"),
    ("attention/(query|key|value)", r"attention/attention/\1"),
    (r"scale(\d)$", r"layer_scale\1/lambda1"),
    ("mlp/gate", "mlp/weights_in"),
    ("^norm", "layernorm"),
)
_DINOV2_PLAIN: Rules = (("mlp/up", "mlp/fc1"), ("mlp/down", "mlp/fc2"))
_DINOV2_GATED: Rules = (("mlp/down", "mlp/weights_out"),)
_DINOV3: Rules = (
    ("^patch_embedding", "embeddings/patch_embeddings"),
    ("^class_token", "embeddings/cls_token"),
    ("^registers", "embeddings/register_tokens"),
    ("^blocks", "layer"),
    ("attention/out", "attention/o_proj"),
    ("attention/(q|k|v)(uery|ey|alue)", r"attention/\1_proj"),
    (r"scale(\d)$", r"layer_scale\1/lambda1"),
    ("mlp/(gate|up|down)", r"mlp/\1_proj"),
)
_TIMM: Rules = (
    ("^patch_embedding", "patch_embed/proj"),
    ("^class_token", "cls_token"),
    ("^registers", "reg_token"),
    ("^positions", "pos_embed"),
    ("attention/out", "attn/proj"),
    ("attention/query/(kernel|bias)", r"attn/qkv/\1"),
    ("mlp/down", "mlp/fc2"),
)
_TIMM_DINOV2: Rules = ((r"scale(\d)$", r"ls\1/gamma"), ("mlp/(gate|up)", "mlp/fc1"))
_TIMM_DINOV3: Rules = (
    (r"scale(\d)$", r"gamma_\1"),
    ("attn/qkv/bias", "attn/q_bias"),
    ("attention/value/bias", "attn/v_bias"),
)
_TIMM_DINOV3_GATED: Rules = (("mlp/gate", "mlp/fc1_g"), ("mlp/up", "mlp/fc1_x"))

# A key that only this origin's files have; of ours, one that CLIP's do not have either.
FORMATS = {
    "transformers": "embeddings.cls_token",
    "timm": "patch_embed.proj.weight",
    "promptmad": "patch_embedding/kernel",
}
# What no network here reads: mask tokens of the pretraining and heads.
_UNUSED = r"embeddings\.mask_token|mask_token|(classifier|head|fc_norm|pooler)\..*"


def detect(tensors: Tensors) -> str | None:
    """Name in FORMATS of the origin of these tensors, or None."""
    return next((name for name, key in FORMATS.items() if key in tensors), None)


def key_rows(format: str, paths: Iterable[str]) -> list[Row]:
    """The key table of an origin for the arrays of these paths."""
    paths = list(paths)
    if format == "promptmad":
        return [Row(path, (path,)) for path in paths]
    rotary, gated = "positions" not in paths, any("/mlp/gate/" in path for path in paths)
    if format == "timm":
        own = _TIMM_DINOV3 if rotary else _TIMM_DINOV2
        plain = (("mlp/up", "mlp/fc1"),)
        rules = _TIMM + own + (_TIMM_DINOV3_GATED if rotary and gated else plain)
        packed = (_PARTS,) if rotary else (_PARTS, _GATED)
    else:
        own = _DINOV2_GATED if gated else _DINOV2_PLAIN
        rules = _DINOV3 if rotary else _DINOV2 + own
        packed = () if rotary else (_GATED,)
    return _rows(paths, rules, packed)


def _rows(paths: list[str], rules: Rules, packed: tuple[tuple[str, ...], ...]) -> list[Row]:
    """Rows of torch's names by rules, one for all layers of a pack; its name is the first's."""
    rows, done = [], set()
    for path in paths:
        if path in done or (path == CLASS_POSITION and "positions" in paths):
            continue
        parts, transform = (path,), _transform(path)
        for names in packed:
            if match := re.search(f"/({'|'.join(names)})/", path):
                parts = tuple(path.replace(match[0], f"/{name}/") for name in names)
        if not set(parts) <= set(paths):
            # timm packs the kernels of DINOv3, whose keys have no bias, and not the biases.
            parts = (path,)
        elif len(parts) > 1:
            transform = _packed(len(parts), path)
        if path == "positions" and CLASS_POSITION in paths:
            parts, transform = (CLASS_POSITION, path), _TABLE
        done |= set(parts)
        name = path if path == "positions" else parts[0]
        rows.append(Row(_renamed(name, rules), parts, transform))
    return rows


def _packed(count: int, path: str) -> Transform:
    kernel = path.endswith("kernel")
    if count == 3:
        return key_table.PACKED_KERNEL if kernel else key_table.PACKED_BIAS
    return _PACKED_PAIR_KERNEL if kernel else _PACKED_PAIR_BIAS


def _transform(path: str) -> Transform:
    match path:
        case "patch_embedding/kernel":
            return CONVOLUTION
        case "class_token":
            return _TOKEN
        case "registers" | "positions":
            return _BATCHED
    return DENSE if path.endswith("kernel") else SAME


def _renamed(path: str, rules: Rules) -> str:
    for pattern, replacement in rules + _TORCH:
        path = re.sub(pattern, replacement, path)
    return path


def read_canonical(
    tensors: Tensors, shapes: Shapes, origin: str, format: str | None = None
) -> dict[str, np.ndarray]:
    """Tensors of a file under our names, in the file's types.

    Args:
        shapes: of the wanted arrays, the optional ones included; blocks behind the last of them
            are left out.
        origin: of the tensors, for the message.
        format: a name in FORMATS; None detects it.

    Raises:
        UserError: an unknown origin; or lists the keys that are missing, unexpected or of another
            shape.
    """
    format = format or detect(tensors)
    if format not in FORMATS:
        known = ", ".join(f"{name} (key {key})" for name, key in FORMATS.items())
        raise UserError(
            f"{origin}: no DINOv2 or DINOv3 weights of a known origin; its first keys are "
            f"{', '.join(sorted(tensors)[:4]) or 'none'}; known are {known}"
        )
    wanted = {path: shape for path, shape in shapes.items() if _has(tensors, format, path, shapes)}
    return key_table.to_ours(
        key_rows(format, wanted), tensors, wanted, f"{origin} ({format})", _unused(format, wanted)
    )


def _has(tensors: Tensors, format: str, path: str, shapes: Shapes) -> bool:
    """False for an optional array that this file does without."""
    if not _OPTIONAL.fullmatch(path) or format == "transformers":
        return True
    if format == "promptmad":
        return path in tensors
    if path == CLASS_POSITION:
        return "registers" not in shapes
    return "positions" in shapes or "blocks.0.attn.q_bias" in tensors


def _unused(format: str, wanted: Shapes) -> str:
    """Pattern of the keys that the arrays do without: later blocks, the last LayerNorm."""
    kept = "|".join(sorted({match[1] for path in wanted if (match := _BLOCK.match(path))}))
    later = rf"(?:encoder\.layer|layer|blocks)[./](?!(?:{kept})[./])\d+[./].+"
    norm = "" if "norm/scale" in wanted else r"|(?:layer)?norm[./](?:weight|bias|scale)"
    return f"{_UNUSED}|{later}{norm}|{CLASS_POSITION}"


def infer_shapes(tensors: Tensors, origin: str, format: str) -> Shapes:
    """Shapes of all arrays of a file under our names, every block's as the first's.

    Raises:
        UserError: the file lacks a part.
    """
    count = 1 + max((int(m[1]) for key in tensors if (m := _NUMBERED.match(key))), default=-1)
    for gated in (True, False):
        for rotary in (False, True):
            paths = _first_paths(tensors, format, gated, rotary)
            rows = key_rows(format, paths)
            if not all(row.theirs in tensors for row in rows):
                continue
            shapes = _shapes_of(rows, tensors)
            # timm packs the gate with `up`: only the shapes tell it from a plain perceptron.
            up, down = (shapes[f"blocks/0/mlp/{name}/kernel"] for name in ("up", "down"))
            if up == down[::-1]:
                return _repeated(shapes, count)
    raise UserError(f"{origin}: no whole DINOv2 or DINOv3 network of format {format}")


_NUMBERED = re.compile(r"(?:encoder\.layer|layer|blocks)[./](\d+)[./]")


def _first_paths(tensors: Tensors, format: str, gated: bool, rotary: bool) -> list[str]:
    """Paths of what a network of this kind has outside its blocks and in the first."""
    tokens = ("embeddings.register_tokens", "reg_token", "registers")
    dense = [f"attention/{part}" for part in (*_PARTS, "out")]
    dense += [f"mlp/{part}" for part in (("gate", "up", "down") if gated else ("up", "down"))]
    paths = ["patch_embedding/kernel", "patch_embedding/bias", "class_token"]
    paths += ["registers"] if any(key in tensors for key in tokens) else []
    paths += [] if rotary else [CLASS_POSITION, "positions"]
    block = [f"{layer}/{leaf}" for layer in dense for leaf in ("kernel", "bias")]
    block += [f"norm{i}/{leaf}" for i in (1, 2) for leaf in ("scale", "bias")]
    block += ["scale1", "scale2"]
    if rotary:
        block.remove("attention/key/bias")
    paths += [f"blocks/0/{name}" for name in block] + ["norm/scale", "norm/bias"]
    shapes = dict.fromkeys(paths, ())
    return [path for path in paths if _has(tensors, format, path, shapes)]


def _shapes_of(rows: Iterable[Row], tensors: Tensors) -> Shapes:
    found = {}
    for row in rows:
        arrays = row.transform.to_ours(np.broadcast_to(0, tensors[row.theirs].shape))
        found |= {path: array.shape for path, array in zip(row.ours, arrays, strict=True)}
    return found


def _repeated(shapes: Shapes, count: int) -> Shapes:
    """The shapes with those of block 0 for `count` blocks."""
    found = {path: shape for path, shape in shapes.items() if not _BLOCK.match(path)}
    for number in range(count):
        own = {_BLOCK.sub(f"blocks/{number}/", p): s for p, s in shapes.items() if _BLOCK.match(p)}
        found |= own
    return found


def write_format(canonical: Tensors, format: str) -> dict[str, np.ndarray]:
    """The inverse of `read_canonical`.

    What an origin has no place for is computed as that origin does: timm's class token with
    registers has its position added. What it has and the arrays lack is zero.
    """
    shapes = infer_shapes(canonical, "the weights to write", "promptmad")
    arrays = read_canonical(canonical, shapes, "the weights to write", "promptmad")
    rotary = "positions" not in arrays
    if format == "timm" and not rotary and "registers" in arrays and CLASS_POSITION in arrays:
        arrays["class_token"] = arrays["class_token"] + arrays.pop(CLASS_POSITION)
    if format == "transformers":
        arrays |= _zeros(arrays)
    return key_table.to_theirs(key_rows(format, arrays), arrays, f"DINO of format {format}")


def _zeros(arrays: Tensors) -> dict[str, np.ndarray]:
    """The optional arrays that are not there, as zeros."""
    token = np.zeros_like(arrays["class_token"])
    biases = [
        path.replace("kernel", "bias")
        for path in arrays
        if re.fullmatch(r"blocks/\d+/attention/(query|value)/kernel", path)
    ]
    wanted = biases + ([CLASS_POSITION] if "positions" in arrays else [])
    return {path: token for path in wanted if path not in arrays}


def to_params(canonical: Tensors) -> dict[str, Any]:
    """Nested float32 parameters; the class token with its position."""
    arrays = {path: np.asarray(value, np.float32) for path, value in canonical.items()}
    arrays |= _zeros(arrays)
    if CLASS_POSITION in arrays:
        arrays["class_token"] = arrays["class_token"] + arrays.pop(CLASS_POSITION)
    return traverse_util.unflatten_dict(arrays, sep="/")
