"""Writes dino.npz: states of transformers' and timm's DINOv2 and DINOv3, narrow and random.

Run from the repository: `python -m tests.goldens.make_dino`. Needs torch; made with transformers
5.24.0 and timm 1.0.31, in float64. For each network and origin: `NETWORK/ORIGIN/weights/KEY`, and
`NETWORK/ORIGIN/SIZE/i`, the patches' states after block i. `native` needs no resizing of positions.
"""

import functools
import pathlib

import numpy as np
import torch
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
)

from tests.goldens.dino import NETS, SIZES


def of_transformers(net):
    """transformers' model of a network, untrained."""
    config = {
        "hidden_size": net.width,
        "num_hidden_layers": net.layers,
        "num_attention_heads": net.heads,
        "patch_size": net.patch,
        "layer_norm_eps": net.epsilon,
    }
    registers = {"num_register_tokens": net.registers}
    if not net.positions:
        config |= registers | {"intermediate_size": net.hidden, "use_gated_mlp": net.gated}
        act = "silu" if net.gated else "gelu"
        return DINOv3ViTModel(DINOv3ViTConfig(**config, hidden_act=act))
    config |= {"image_size": net.positions * net.patch, "use_swiglu_ffn": net.gated}
    if net.registers:
        return Dinov2WithRegistersModel(Dinov2WithRegistersConfig(**config, **registers))
    return Dinov2Model(Dinov2Config(**config))


def of_timm(net):
    """timm's model of a network, untrained, as its registry builds the published ones."""
    from timm.layers import LayerNorm, SwiGLUPacked
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer

    sizes = {
        "img_size": max(net.positions, 4) * net.patch,
        "patch_size": net.patch,
        "embed_dim": net.width,
        "depth": net.layers,
        "num_heads": net.heads,
        "mlp_ratio": net.hidden / net.width * (2 if net.gated and net.positions else 1),
        "num_classes": 0,
        "init_values": 1.0,
        "dynamic_img_size": True,
    }
    if net.positions:
        gated = {"mlp_layer": SwiGLUPacked, "act_layer": torch.nn.SiLU} if net.gated else {}
        registers = {"reg_tokens": net.registers, "no_embed_class": True} if net.registers else {}
        return VisionTransformer(**sizes, **gated, **registers)
    return Eva(
        **sizes,
        qkv_bias=net.gated,
        rope_type="dinov3",
        rope_temperature=100,
        rope_rotate_half=True,
        use_rot_pos_emb=True,
        use_abs_pos_emb=False,
        swiglu_mlp=net.gated,
        swiglu_align_to=8,
        num_reg_tokens=net.registers,
        use_fc_norm=False,
        norm_layer=functools.partial(LayerNorm, eps=net.epsilon),
    )


def randomize(model):
    """Draws values that half precision holds and that keep the states near 1."""
    draw = torch.Generator().manual_seed(0)
    for name, value in model.named_parameters():
        z = torch.randn(value.shape, generator=draw)
        if value.ndim in (2, 4) and name.endswith("weight"):
            z = z / np.sqrt(np.prod(value.shape[1:]))
        elif any(part in name for part in ("lambda", "gamma")):
            z = 0.5 + 0.2 * z
        elif "norm" in name and name.endswith("weight"):
            z = 1 + 0.1 * z
        elif name.endswith("bias"):
            z = 0.1 * z
        value.data.copy_(z.half().float())
    return model.eval()


def images(net, patches):
    """Normalised images float32 [1, H, W, 3]."""
    shape = (1, *(side * net.patch for side in patches), 3)
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def states(model, net, pixels):
    """States [1, h, w, D] of the patches after each block, and after the last LayerNorm."""
    pixels = torch.from_numpy(pixels).to(next(model.parameters()).dtype).permute(0, 3, 1, 2)
    grid = [side // net.patch for side in pixels.shape[2:]]
    with torch.no_grad():
        if hasattr(model, "forward_intermediates"):
            kept = model.forward_intermediates(pixels, output_fmt="NLC", intermediates_only=True)
            last = model.forward_features(pixels)
        else:
            out = model(pixels, output_hidden_states=True)
            last = out.last_hidden_state
            kept = [s[:, 1 + net.registers :] for s in out.hidden_states[1:]]
    found = [*kept, last[:, 1 + net.registers :]]
    return [x.reshape(1, *grid, net.width).numpy() for x in found]


def main():
    arrays = {}
    for name, net in NETS.items():
        for origin, build in (("transformers", of_transformers), ("timm", of_timm)):
            model = randomize(build(net))
            stored = saved_names(model) if origin == "transformers" else model.state_dict()
            for key, value in stored.items():
                arrays[f"{name}/{origin}/weights/{key}"] = np.asarray(value, np.float16)
            for size, patches in SIZES.items():
                found = states(model.double(), net, images(net, patches))
                for i, state in enumerate(found):
                    arrays[f"{name}/{origin}/{size}/{i}"] = state.astype(np.float32)
    np.savez_compressed(pathlib.Path(__file__).with_name("dino.npz"), **arrays)


def saved_names(model):
    """Tensors under the names that transformers writes, those of the published files."""
    import tempfile

    from safetensors.numpy import load_file

    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return load_file(f"{folder}/model.safetensors")


if __name__ == "__main__":
    main()
