"""Writes onenip_small.npz: narrow OneNIP and UniAD with random weights, run by torch.

Run from the repository: `python tests/goldens/make_onenip_small.py`. Needs torch. The modules are
written from the published formulas with torch's own parts; their parameters have the names of the
released checkpoints. Two layers each, so that their order shows, and a grid that is not square, so
that rows and columns do. Arrays are [B, h, w, C] outside; computed in float64.

File: `values`, all arrays one after another, and `layout`, JSON: [[name, shape], ...].
"""

import json
import pathlib
import re
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Sizes:
    """grid, C, D, heads, width of the MLP, of the refiner; layers; n of the mask; S of the maps."""

    grid: tuple[int, int] = (4, 5)
    channels: int = 6
    width: int = 8
    heads: int = 2
    mlp_width: int = 12
    refiner_width: int = 4
    encoder_layers: int = 2
    decoder_layers: int = 2
    neighbor_size: int = 2
    image_size: int = 32


def blocked(sizes):
    """bool [N, N], true where a query must not look: its n // 2 neighbourhood."""
    cells = [(y, x) for y in range(sizes.grid[0]) for x in range(sizes.grid[1])]
    reach = sizes.neighbor_size // 2
    near = [[max(abs(a - c), abs(b - d)) <= reach for c, d in cells] for a, b in cells]
    return torch.tensor(near)


def attention(sizes):
    return nn.MultiheadAttention(sizes.width, sizes.heads, batch_first=True)


def look(module, query, key, value, mask=None):
    return module(query, key, value, attn_mask=mask, need_weights=False)[0]


class EncoderLayer(nn.Module):
    def __init__(self, sizes):
        super().__init__()
        self.self_attn = attention(sizes)
        self.linear1 = nn.Linear(sizes.width, sizes.mlp_width)
        self.linear2 = nn.Linear(sizes.mlp_width, sizes.width)
        self.norm1, self.norm2 = nn.LayerNorm(sizes.width), nn.LayerNorm(sizes.width)

    def forward(self, x, pos, mask):
        x = self.norm1(x + look(self.self_attn, x + pos, x + pos, x, mask))
        return self.norm2(x + self.linear2(F.relu(self.linear1(x))))


class OneNIPLayer(nn.Module):
    def __init__(self, sizes):
        super().__init__()
        self.cross_attn_prompt_to_image = attention(sizes)
        self.cross_attn_image_to_prompt = attention(sizes)
        self.mlp = nn.Module()
        self.mlp.lin1 = nn.Linear(sizes.width, sizes.mlp_width)
        self.mlp.lin2 = nn.Linear(sizes.mlp_width, sizes.width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(sizes.width) for _ in range(3))

    def forward(self, p, z, pos, mask):
        p = self.norm1(p + look(self.cross_attn_prompt_to_image, p + pos, z + pos, z, mask))
        p = self.norm2(p + self.mlp.lin2(F.relu(self.mlp.lin1(p))))
        return p, self.norm3(z + look(self.cross_attn_image_to_prompt, z + pos, p + pos, p, mask))


class OneNIPDecoder(nn.Module):
    def __init__(self, sizes):
        super().__init__()
        self.layers = nn.ModuleList(OneNIPLayer(sizes) for _ in range(sizes.decoder_layers))
        self.final_attn_token_to_image = attention(sizes)
        self.norm = nn.LayerNorm(sizes.width)

    def forward(self, p, z, pos, mask):
        for layer in self.layers:
            p, z = layer(p, z, pos, mask)
        return self.norm(p + look(self.final_attn_token_to_image, p + pos, z + pos, z))


class UniADLayer(nn.Module):
    def __init__(self, sizes):
        super().__init__()
        self.learned_embed = nn.Embedding(sizes.grid[0] * sizes.grid[1], sizes.width)
        self.self_attn, self.multihead_attn = attention(sizes), attention(sizes)
        self.linear1 = nn.Linear(sizes.width, sizes.mlp_width)
        self.linear2 = nn.Linear(sizes.mlp_width, sizes.width)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(sizes.width) for _ in range(3))

    def forward(self, out, m, pos, mask):
        e = self.learned_embed.weight.expand_as(m)
        e = self.norm1(e + look(self.self_attn, e + pos, m + pos, m, mask))
        e = self.norm2(e + look(self.multihead_attn, e + pos, out + pos, out, mask))
        return self.norm3(e + self.linear2(F.relu(self.linear1(e))))


class UniADDecoder(nn.Module):
    def __init__(self, sizes):
        super().__init__()
        self.layers = nn.ModuleList(UniADLayer(sizes) for _ in range(sizes.decoder_layers))
        self.norm = nn.LayerNorm(sizes.width)

    def forward(self, m, pos, mask):
        out = m
        for layer in self.layers:
            out = layer(out, m, pos, mask)
        return self.norm(out)


class Refiner(nn.Module):
    def __init__(self, sizes):
        super().__init__()
        width = sizes.refiner_width
        self.upconv1, self.upconv2 = (
            nn.Sequential(
                nn.Conv2d(channels, width, 3, padding=1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
                nn.ConvTranspose2d(width, width, 2, stride=2),
            )
            for channels in (sizes.channels, width)
        )
        self.predictor = nn.Conv2d(width, 1, 1)

    def forward(self, error):
        return self.predictor(self.upconv2(self.upconv1(error.permute(0, 3, 1, 2))))


class Reconstruction(nn.Module):
    """Everything behind the neck. decoder: its class; without OneNIP's there is no refiner."""

    def __init__(self, sizes, decoder):
        super().__init__()
        self.sizes, (rows, columns) = sizes, sizes.grid
        self.pos_embed = nn.Module()
        self.pos_embed.row_embed = nn.Embedding(rows, sizes.width // 2)
        self.pos_embed.col_embed = nn.Embedding(columns, sizes.width // 2)
        self.transformer = nn.Module()
        self.transformer.encoder = nn.Module()
        self.transformer.encoder.layers = nn.ModuleList(
            EncoderLayer(sizes) for _ in range(sizes.encoder_layers)
        )
        self.transformer.decoder = decoder(sizes)
        self.input_proj = nn.Linear(sizes.channels, sizes.width)
        self.output_proj = nn.Linear(sizes.width, sizes.channels)
        if decoder is OneNIPDecoder:
            self.seghead = Refiner(sizes)

    def position(self):
        rows, columns = self.sizes.grid
        column = self.pos_embed.col_embed.weight[None].expand(rows, -1, -1)
        row = self.pos_embed.row_embed.weight[:, None].expand(-1, columns, -1)
        return torch.cat([column, row], -1).flatten(0, 1)

    def encode(self, features):
        x = self.input_proj(features.flatten(1, 2))
        for layer in self.transformer.encoder.layers:
            x = layer(x, self.position(), blocked(self.sizes))
        return x

    def decode(self, *streams):
        tokens = self.transformer.decoder(*streams, self.position(), blocked(self.sizes))
        return self.output_proj(tokens).unflatten(1, self.sizes.grid)

    def rebuild(self, features, prompt):
        if not hasattr(self, "seghead"):
            return self.decode(self.encode(features))
        prompt = self.encode(prompt).repeat(len(features) // len(prompt), 1, 1)
        return self.decode(prompt, self.encode(features))

    def enlarged(self, maps):
        size = (self.sizes.image_size,) * 2
        return F.interpolate(maps, size, mode="bilinear", align_corners=True)[:, 0]


def make_model(sizes, decoder, seed):
    """The model in float64 with random weights, also in norms and running statistics."""
    torch.manual_seed(seed)
    model = Reconstruction(sizes, decoder)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name.endswith("num_batches_tracked"):
                continue
            noise = torch.randn_like(value)
            is_norm = "norm" in name or re.search(r"upconv\d\.1\.", name)
            if name.endswith("running_var"):
                value.copy_(1 + 0.3 * noise.abs())
            elif is_norm and name.endswith("weight"):
                value.copy_(1 + 0.3 * noise)
            else:
                value.copy_(0.4 * noise)
    return model.double()


def make_inputs(sizes, seed):
    """Features of two clean and two pseudo-anomalous images and of two prompts, and the masks."""
    rng = np.random.default_rng(seed)
    normal = lambda count: rng.normal(size=(count, *sizes.grid, sizes.channels)).astype(np.float32)
    masks = np.zeros((4, sizes.image_size, sizes.image_size), np.float32)
    masks[2, 3:12, 5:20], masks[3, 20:, 8:25] = 1, 1
    return {"features": normal(4), "prompt": normal(2), "masks": masks}


def predict(model, features, prompt):
    """Inference results by name."""
    results = {"encoded": model.encode(features), "reconstruction": model.rebuild(features, prompt)}
    error = results["reconstruction"] - features
    distance = error.square().sum(-1).sqrt()
    results["map/reconstruction"] = model.enlarged(distance[:, None])
    if hasattr(model, "seghead"):
        logit = model.seghead(error.abs())
        results |= {"logit": logit[:, 0], "map/coarse": model.enlarged(logit).sigmoid()}
    return results


def losses(model, features, prompt, masks):
    """Of clean images and, in the second half of the rows, their pseudo-anomalous versions."""
    clean = features[: len(features) // 2]
    if not hasattr(model, "seghead"):
        return {"mse": F.mse_loss(model.rebuild(clean, prompt), clean)}
    reconstruction = model.rebuild(features, prompt)
    mse = F.mse_loss(reconstruction, torch.cat([clean, clean]))
    p = model.enlarged(model.seghead((reconstruction - features).abs())).sigmoid()
    total = lambda x: x.flatten(1).sum(1)
    dice = (1 - (total(p * masks) + 1) / (total(p**2) + total(masks**2) + 1)).mean()
    return {"mse": mse, "dice": dice}


def train(model, features, prompt, masks):
    """Losses and gradients of one step; the running statistics change in the model."""
    found = losses(model, features, prompt, masks)
    (found["mse"] + 0.5 * found.get("dice", 0)).backward()
    return found


def golden(sizes, seed):
    """All arrays of the file: inputs; for each model its state dict, results, and training."""
    arrays = make_inputs(sizes, seed)
    features, prompt, masks = (torch.tensor(value).double() for value in arrays.values())
    for name, decoder in (("onenip", OneNIPDecoder), ("uniad", UniADDecoder)):
        model = make_model(sizes, decoder, seed).eval()
        with torch.no_grad():
            parts = {"weights": checkpoint(model), "predict": predict(model, features[:2], prompt)}
        parts["train"] = train(model.train(), features, prompt, masks)
        parts["statistics"] = {k: v for k, v in checkpoint(model).items() if "running" in k}
        for parameter in model.parameters():
            parameter.data = parameter.grad
        parts["gradient"] = checkpoint(model)
        for part, values in parts.items():
            arrays |= {f"{name}/{part}/{key}": v.detach().numpy() for key, v in values.items()}
    return {key: np.asarray(value, np.float32) for key, value in arrays.items()}


def checkpoint(model):
    """A copy of the state dict, named as a model inside DistributedDataParallel has it."""
    state = model.state_dict()
    return {f"module.reconstruction.{key}": value.clone() for key, value in state.items()}


def main():
    path = pathlib.Path(__file__).with_name("onenip_small.npz")
    arrays = golden(Sizes(), 0)
    layout = json.dumps([[name, value.shape] for name, value in arrays.items()])
    values = np.concatenate([value.ravel() for value in arrays.values()])
    np.savez_compressed(path, values=values, layout=layout)


if __name__ == "__main__":
    main()
