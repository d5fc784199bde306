"""CLIP weights of other projects under our names, and back; numbers and types stay as stored.

Our names are `text/...` and `vision/...`, the parameter paths of the two towers, and `logit_scale`.
A configuration with one tower reads that tower of any file and leaves the rest out.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from promptmad_jax.clip.config import ClipConfig, ClipTextConfig, ClipVisionConfig
from promptmad_jax.clip.weights import names
from promptmad_jax.clip.weights.shapes import clip_shapes, text_from_shapes, vision_from_shapes
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.weights.key_table import Row, Shapes, Tensors, to_ours, to_theirs


@dataclass(frozen=True)
class Format:
    """The keys of one kind of file.

    Attributes:
        rows: its key table.
        signature: pattern of a key that only this kind has.
        text, vision: patterns of a tower's keys; group 1 is a layer's number.
        unused: pattern of buffers, which are no parameters.
    """

    rows: Callable[[ClipConfig], Iterable[Row]]
    signature: str
    text: str
    vision: str
    unused: str = "(?!)"


# The dots match torch's separator and Flax's, a slash.
_TEXT = r"text_model.(?:encoder.layers.(\d+).)?.+|text_projection.\w+"
_VISION = r"vision_model.(?:encoder.layers.(\d+).)?.+|visual_projection.\w+"
FORMATS = {
    "promptmad": Format(
        names.promptmad_rows,
        "text/token_embedding/embedding|vision/patch_embedding/kernel",
        r"text/(?:layers/(\d+)/)?.+",
        r"vision/(?:layers/(\d+)/)?.+",
    ),
    "transformers": Format(
        names.transformers_rows,
        r"((text|vision)_model\.)?embeddings\.(token|patch)_embedding\.weight",
        _TEXT,
        _VISION,
        r".+\.position_ids",
    ),
    "flax": Format(
        names.flax_rows,
        "(text|vision)_model/embeddings/(token|patch)_embedding/(embedding|kernel)",
        _TEXT,
        _VISION,
    ),
    "openai": Format(
        names.openai_rows,
        r"(token_embedding|visual\.conv1)\.weight",
        r"transformer\.resblocks\.(\d+)\..+|token_embedding\.weight|positional_embedding"
        r"|ln_final\..+|text_projection",
        r"visual\.(?:transformer\.resblocks\.(\d+)\.)?.+",
        "input_resolution|context_length|vocab_size|attn_mask",
    ),
}
_WRAPPER = "module."  # of checkpoints of a distributed training
_ONE_LAYER = ClipConfig(ClipTextConfig(layers=1), ClipVisionConfig(layers=1))


def detect(tensors: Tensors) -> str | None:
    """Finds the format of a file by its keys: one of `FORMATS`, or None."""
    for name, format in FORMATS.items():
        if any(re.fullmatch(format.signature, key.removeprefix(_WRAPPER)) for key in tensors):
            return name
    return None


def read_canonical(
    tensors: Tensors, config: ClipConfig, origin: str, format: str | None = None
) -> dict[str, np.ndarray]:
    """Renames the tensors of a file to ours.

    Args:
        config: the towers to read; the file may hold another one as well.
        origin: the file, for messages.
        format: one of `FORMATS`; None finds it out.

    Raises:
        UserError: an unknown format, or keys that are missing, unexpected or of another shape.
    """
    format = format or _detected(tensors, origin)
    return to_ours(
        FORMATS[format].rows(config),
        _plain(tensors, format),
        clip_shapes(config),
        f"{origin}, read as CLIP of format {format}",
        _unused(FORMATS[format], config),
    )


def write_format(canonical: Tensors, config: ClipConfig, format: str) -> dict[str, np.ndarray]:
    """Renames our arrays to one of `FORMATS`; the inverse of `read_canonical`.

    Raises:
        UserError: the arrays do not fit `config`.
    """
    arrays = read_canonical(canonical, config, "the weights to write", "promptmad")
    return to_theirs(FORMATS[format].rows(config), arrays, f"CLIP of format {format}")


def infer_config(
    tensors: Tensors, origin: str, format: str | None = None, activation: str = "quick_gelu"
) -> ClipConfig:
    """Infers the configuration of the towers in a file from shapes, with heads 64 wide.

    Shapes do not tell the activation. OpenAI trained with quick-GELU, hence the default; open_clip,
    whose names are the same, trains with GELU unless the model's name says `quickgelu`, and a tower
    that runs with the wrong one gives vectors that look right and are worse. Pooling of the text is
    at the largest id, as in OpenAI's code. A vision tower that is a ResNet is left out.

    Raises:
        UserError: an unknown format, or a file without a whole tower.
    """
    format = format or _detected(tensors, origin)
    tensors = _plain(tensors, format)
    text = _count_layers(tensors, FORMATS[format].text)
    vision = _count_layers(tensors, FORMATS[format].vision)
    try:
        shapes = _landmarks(tensors, format)
        return ClipConfig(
            text_from_shapes(shapes, text, activation) if text else None,
            vision_from_shapes(shapes, vision, activation) if vision else None,
        )
    except (KeyError, ValueError) as error:
        raise UserError(f"{origin}: no whole CLIP tower of format {format} ({error})") from error


def _detected(tensors: Tensors, origin: str) -> str:
    format = detect(tensors)
    if format is None:
        raise UserError(
            f"{origin}: no CLIP weights of a known format ({', '.join(FORMATS)}); its first keys "
            f"are {', '.join(sorted(tensors)[:4]) or 'none'}"
        )
    return format


def _plain(tensors: Tensors, format: str) -> dict[str, np.ndarray]:
    """Removes wrappers; gives transformers' single towers the prefix of the whole model."""
    plain = {key.removeprefix(_WRAPPER): value for key, value in tensors.items()}
    for side, part in (("text", "token"), ("vision", "patch")):
        if format == "transformers" and f"embeddings.{part}_embedding.weight" in plain:
            return {
                key if key.endswith("_projection.weight") else f"{side}_model.{key}": value
                for key, value in plain.items()
            }
    return plain


def _unused(format: Format, config: ClipConfig) -> str:
    left_out = {format.text: config.text, format.vision: config.vision}
    left_out["logit_scale"] = config.text and config.vision
    return "|".join((format.unused, *(pattern for pattern, used in left_out.items() if not used)))


def _count_layers(tensors: Tensors, pattern: str) -> int:
    matches = (re.fullmatch(pattern, key) for key in tensors)
    return max((1 + int(match[1]) for match in matches if match and match[1]), default=0)


def _landmarks(tensors: Tensors, format: str) -> Shapes:
    """Shapes under our names of what is outside the layers and in layer 0."""
    shapes = {}
    for row in FORMATS[format].rows(_ONE_LAYER):
        if row.theirs in tensors:
            arrays = row.transform.to_ours(np.broadcast_to(0, tensors[row.theirs].shape))
            shapes |= {path: a.shape for path, a in zip(row.ours, arrays, strict=True)}
    return shapes
