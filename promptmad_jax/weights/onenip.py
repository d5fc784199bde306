"""OneNIP's released checkpoints: their keys, without `module.` and `reconstruction.`, to our paths.

The packed attention matrix `in_proj` [3 D, D] becomes query, key and value; dense kernels are
transposed, convolutions go from OIHW to HWIO, transposed ones from IOHW to IHWO.
"""

import numpy as np

Tensors = dict[str, np.ndarray]


def _dense(theirs: str, ours: str) -> dict[str, str]:
    return {f"{theirs}.weight": f"{ours}/kernel:transpose", f"{theirs}.bias": f"{ours}/bias"}


def _norm(theirs: str, ours: str) -> dict[str, str]:
    return {f"{theirs}.weight": f"{ours}/scale", f"{theirs}.bias": f"{ours}/bias"}


def _attention(theirs: str, ours: str) -> dict[str, str]:
    return {
        f"{theirs}.in_proj_weight": f"{ours}:packed_kernel",
        f"{theirs}.in_proj_bias": f"{ours}:packed_bias",
        **_dense(f"{theirs}.out_proj", f"{ours}/out"),
    }


def _encoder_layer(i: int) -> dict[str, str]:
    theirs, ours = f"transformer.encoder.layers.{i}", f"reconstructor/encoder/layer_{i}"
    return {
        **_attention(f"{theirs}.self_attn", f"{ours}/attention"),
        **_dense(f"{theirs}.linear1", f"{ours}/mlp/lin1"),
        **_dense(f"{theirs}.linear2", f"{ours}/mlp/lin2"),
        **_norm(f"{theirs}.norm1", f"{ours}/norm1"),
        **_norm(f"{theirs}.norm2", f"{ours}/norm2"),
    }


def _decoder_layer(i: int) -> dict[str, str]:
    theirs, ours = f"transformer.decoder.layers.{i}", f"reconstructor/decoder/layer_{i}"
    table = {
        **_attention(f"{theirs}.cross_attn_prompt_to_image", f"{ours}/prompt_to_image"),
        **_attention(f"{theirs}.cross_attn_image_to_prompt", f"{ours}/image_to_prompt"),
        **_dense(f"{theirs}.mlp.lin1", f"{ours}/mlp/lin1"),
        **_dense(f"{theirs}.mlp.lin2", f"{ours}/mlp/lin2"),
    }
    for n in (1, 2, 3):
        table |= _norm(f"{theirs}.norm{n}", f"{ours}/norm{n}")
    return table


def _refiner_block(i: int) -> dict[str, str]:
    theirs, ours = f"seghead.upconv{i}", f"refiner/up{i}"
    return {
        f"{theirs}.0.weight": f"{ours}/conv/kernel:convolution",
        **_norm(f"{theirs}.1", f"{ours}/norm"),
        f"{theirs}.1.running_mean": f"{ours}/norm/mean",
        f"{theirs}.1.running_var": f"{ours}/norm/var",
        f"{theirs}.3.weight": f"{ours}/up/kernel:transposed_convolution",
        f"{theirs}.3.bias": f"{ours}/up/bias",
    }


def key_table(encoder_layers: int = 4, decoder_layers: int = 4) -> dict[str, str]:
    """Their key to `our/path[:transform]`; `/mean` and `/var` are running statistics."""
    table = {
        "pos_embed.row_embed.weight": "reconstructor/row_embed",
        "pos_embed.col_embed.weight": "reconstructor/column_embed",
        **_dense("input_proj", "reconstructor/input_proj"),
        **_dense("output_proj", "reconstructor/output_proj"),
        **_attention(
            "transformer.decoder.final_attn_token_to_image", "reconstructor/final_attention"
        ),
        **_norm("transformer.decoder.norm", "reconstructor/final_norm"),
        "seghead.predictor.weight": "refiner/predictor/kernel:pointwise",
        "seghead.predictor.bias": "refiner/predictor/bias",
    }
    for i in range(encoder_layers):
        table |= _encoder_layer(i)
    for i in range(decoder_layers):
        table |= _decoder_layer(i)
    return table | _refiner_block(1) | _refiner_block(2)


def _place(path: str, transform: str, value: np.ndarray) -> Tensors:
    match transform:
        case "":
            return {path: value}
        case "transpose":
            return {path: value.T}
        case "pointwise":
            return {path: value[:, :, 0, 0].T}
        case "convolution":
            return {path: value.transpose(2, 3, 1, 0)}
        case "transposed_convolution":
            return {path: value.transpose(0, 2, 3, 1)}
        case "packed_kernel" | "packed_bias":
            leaf = transform.removeprefix("packed_")
            parts = zip(("query", "key", "value"), np.split(value, 3), strict=True)
            return {f"{path}/{name}/{leaf}": part.T for name, part in parts}
    raise ValueError(f"unknown transform {transform}")


def from_onenip(tensors: Tensors) -> tuple[Tensors, Tensors]:
    """Their tensors (keys after `reconstruction.`) to our flat (params, stats) by path.

    Raises:
        KeyError: a key is missing.
    """
    params, stats = {}, {}
    for key, target in key_table().items():
        path, _, transform = target.partition(":")
        for name, value in _place(path, transform, tensors[key]).items():
            (stats if name.endswith(("/mean", "/var")) else params)[name] = value
    return params, stats
