"""Key tables of OneNIP and UniAD: their state dicts below `reconstruction.`, and our paths.

OneNIP's names are those of its released files. UniAD's are of its state dict too; that `self_attn`
is the attention to the encoder's tokens and `multihead_attn` the one to the layer before follows
from their order there, which is the order of the norms.
"""

from collections.abc import Callable

from promptmad_jax.weights.key_table import (
    CONVOLUTION,
    DENSE,
    PACKED_BIAS,
    PACKED_KERNEL,
    POINTWISE,
    TRANSPOSED_CONVOLUTION,
    Row,
)

OURS, THEIRS = "reconstructor", "reconstruction"
ENCODER, DECODER = (f"{THEIRS}.transformer.{part}" for part in ("encoder", "decoder"))


def onenip_rows(encoder_layers: int, decoder_layers: int) -> list[Row]:
    """OneNIP; `refiner/.../mean` and `/var` are running statistics."""
    return [
        *_shared(encoder_layers),
        *_attention(f"{DECODER}.final_attn_token_to_image", f"{OURS}/final_attention"),
        *_layers(_onenip_decoder_layer, DECODER, f"{OURS}/decoder", decoder_layers),
        *_refiner_block(1),
        *_refiner_block(2),
        Row(f"{THEIRS}.seghead.predictor.weight", ("refiner/predictor/kernel",), POINTWISE),
        Row(f"{THEIRS}.seghead.predictor.bias", ("refiner/predictor/bias",)),
    ]


def uniad_rows(encoder_layers: int, decoder_layers: int) -> list[Row]:
    """UniAD."""
    return [
        *_shared(encoder_layers),
        *_layers(_uniad_decoder_layer, DECODER, f"{OURS}/decoder", decoder_layers),
    ]


def _shared(encoder_layers: int) -> list[Row]:
    return [
        Row(f"{THEIRS}.pos_embed.row_embed.weight", (f"{OURS}/row_embed",)),
        Row(f"{THEIRS}.pos_embed.col_embed.weight", (f"{OURS}/column_embed",)),
        *_dense(f"{THEIRS}.input_proj", f"{OURS}/input_proj"),
        *_dense(f"{THEIRS}.output_proj", f"{OURS}/output_proj"),
        *_layers(_encoder_layer, ENCODER, f"{OURS}/encoder", encoder_layers),
        *_norm(f"{DECODER}.norm", f"{OURS}/final_norm"),
    ]


def _layers(
    layer: Callable[[str, str], list[Row]], theirs: str, ours: str, count: int
) -> list[Row]:
    return [row for i in range(count) for row in layer(f"{theirs}.layers.{i}", f"{ours}/layer_{i}")]


def _encoder_layer(theirs: str, ours: str) -> list[Row]:
    return [
        *_attention(f"{theirs}.self_attn", f"{ours}/attention"),
        *_mlp(f"{theirs}.linear", ours),
        *_norms(theirs, ours, 2),
    ]


def _onenip_decoder_layer(theirs: str, ours: str) -> list[Row]:
    return [
        *_attention(f"{theirs}.cross_attn_prompt_to_image", f"{ours}/prompt_to_image"),
        *_attention(f"{theirs}.cross_attn_image_to_prompt", f"{ours}/image_to_prompt"),
        *_mlp(f"{theirs}.mlp.lin", ours),
        *_norms(theirs, ours, 3),
    ]


def _uniad_decoder_layer(theirs: str, ours: str) -> list[Row]:
    return [
        Row(f"{theirs}.learned_embed.weight", (f"{ours}/query_embed",)),
        *_attention(f"{theirs}.self_attn", f"{ours}/memory_attention"),
        *_attention(f"{theirs}.multihead_attn", f"{ours}/output_attention"),
        *_mlp(f"{theirs}.linear", ours),
        *_norms(theirs, ours, 3),
    ]


def _refiner_block(i: int) -> list[Row]:
    theirs, ours = f"{THEIRS}.seghead.upconv{i}", f"refiner/up{i}"
    return [
        Row(f"{theirs}.0.weight", (f"{ours}/conv/kernel",), CONVOLUTION),
        *_norm(f"{theirs}.1", f"{ours}/norm"),
        Row(f"{theirs}.1.running_mean", (f"{ours}/norm/mean",)),
        Row(f"{theirs}.1.running_var", (f"{ours}/norm/var",)),
        Row(f"{theirs}.3.weight", (f"{ours}/up/kernel",), TRANSPOSED_CONVOLUTION),
        Row(f"{theirs}.3.bias", (f"{ours}/up/bias",)),
    ]


def _mlp(theirs: str, ours: str) -> list[Row]:
    return [row for n in (1, 2) for row in _dense(f"{theirs}{n}", f"{ours}/mlp/lin{n}")]


def _norms(theirs: str, ours: str, count: int) -> list[Row]:
    numbers = range(1, count + 1)
    return [row for n in numbers for row in _norm(f"{theirs}.norm{n}", f"{ours}/norm{n}")]


def _dense(theirs: str, ours: str) -> list[Row]:
    return [
        Row(f"{theirs}.weight", (f"{ours}/kernel",), DENSE),
        Row(f"{theirs}.bias", (f"{ours}/bias",)),
    ]


def _norm(theirs: str, ours: str) -> list[Row]:
    return [
        Row(f"{theirs}.weight", (f"{ours}/scale",)),
        Row(f"{theirs}.bias", (f"{ours}/bias",)),
    ]


def _attention(theirs: str, ours: str) -> list[Row]:
    parts = ("query", "key", "value")
    return [
        Row(f"{theirs}.in_proj_weight", tuple(f"{ours}/{p}/kernel" for p in parts), PACKED_KERNEL),
        Row(f"{theirs}.in_proj_bias", tuple(f"{ours}/{p}/bias" for p in parts), PACKED_BIAS),
        *_dense(f"{theirs}.out_proj", f"{ours}/out"),
    ]
