"""Writes dapo.npz: the formulas of DAPO, MultiADS and plain CLIP in torch, on narrow towers.

Run from the repository: `python tests/goldens/make_dapo.py`. Needs torch; made with 2.13.0, in
float64. Nothing of the project is used. `draw` makes the inputs from a seed: CLIP's tensors under
OpenAI's names, what the methods train, token ids, images; `outputs` computes all that is compared.
"""

import pathlib

import numpy as np
import torch
from torch.nn import functional as F

SIZES = {
    "vocabulary": 24,
    "context": 16,
    "text_width": 8,
    "text_layers": 2,
    "image": 12,
    "patch": 4,
    "image_width": 12,
    "image_layers": 3,
    "heads": 2,
    "projection": 6,
}
PROMPTS, ROOM, TEXT_TOKENS, IMAGE_TOKENS, ALPHA = 2, 3, 2, 3, 0.2
TAPS, SIZE = (1, 3), 20
# At their own 0.01 random features give nothing but zeros and ones.
DAPO_TEMPERATURE, WRITTEN_TEMPERATURE = 0.07, 0.1
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def layer_shapes(prefix, layers, width):
    for i in range(layers):
        name = f"{prefix}transformer.resblocks.{i}"
        yield f"{name}.ln_1.weight", (width,)
        yield f"{name}.ln_1.bias", (width,)
        yield f"{name}.attn.in_proj_weight", (3 * width, width)
        yield f"{name}.attn.in_proj_bias", (3 * width,)
        yield f"{name}.attn.out_proj.weight", (width, width)
        yield f"{name}.attn.out_proj.bias", (width,)
        yield f"{name}.ln_2.weight", (width,)
        yield f"{name}.ln_2.bias", (width,)
        yield f"{name}.mlp.c_fc.weight", (2 * width, width)
        yield f"{name}.mlp.c_fc.bias", (2 * width,)
        yield f"{name}.mlp.c_proj.weight", (width, 2 * width)
        yield f"{name}.mlp.c_proj.bias", (width,)


def weight_shapes():
    s = SIZES
    yield "token_embedding.weight", (s["vocabulary"], s["text_width"])
    yield "positional_embedding", (s["context"], s["text_width"])
    yield from layer_shapes("", s["text_layers"], s["text_width"])
    yield "ln_final.weight", (s["text_width"],)
    yield "ln_final.bias", (s["text_width"],)
    yield "text_projection", (s["text_width"], s["projection"])
    yield "visual.conv1.weight", (s["image_width"], 3, s["patch"], s["patch"])
    yield "visual.class_embedding", (s["image_width"],)
    positions = 1 + (s["image"] // s["patch"]) ** 2
    yield "visual.positional_embedding", (positions, s["image_width"])
    for norm in ("visual.ln_pre", "visual.ln_post"):
        yield f"{norm}.weight", (s["image_width"],)
        yield f"{norm}.bias", (s["image_width"],)
    yield from layer_shapes("visual.", s["image_layers"], s["image_width"])
    yield "visual.proj", (s["image_width"], s["projection"])
    yield "logit_scale", ()


def trained_shapes():
    s = SIZES
    yield "text/normal", (PROMPTS, ROOM, s["text_width"])
    yield "text/abnormal", (PROMPTS, ROOM, s["text_width"])
    yield "text/deep", (s["text_layers"], TEXT_TOKENS, s["text_width"])
    yield "vision/deep", (s["image_layers"], IMAGE_TOKENS, s["image_width"])
    for tap in TAPS:
        yield f"adapters/{tap}/kernel", (s["image_width"], s["projection"])
        yield f"adapters/{tap}/bias", (s["projection"],)


def token_rows(rng, count, length, padding):
    """Texts of several lengths: the start token 22, words, the end token 23, padding."""
    ids = np.full((count, length), padding, np.int32)
    end = rng.integers(6, length - 1, count).astype(np.int32)
    for row, stop in zip(ids, end, strict=True):
        row[:stop] = rng.integers(1, 22, stop)
        row[0], row[stop] = 22, 23
    return ids, end


def draw(seed):
    """Inputs by name: float32, int32 and uint8 arrays."""
    rng = np.random.default_rng(seed)
    inputs = {}
    for name, shape in weight_shapes():
        noise = 0.4 * rng.standard_normal(shape)
        scale = ".ln_" in f".{name}" and name.endswith("weight")
        inputs[f"weights/{name}"] = np.float32(noise + 1 if scale else noise)
    for name, shape in trained_shapes():
        inputs[f"trained/{name}"] = np.float32(0.5 * rng.standard_normal(shape))
    inputs["ids"], inputs["end"] = token_rows(rng, 4, 14, 23)
    inputs["compat/ids"], inputs["compat/end"] = token_rows(rng, 4, SIZES["context"], 0)
    inputs["written/ids"], inputs["written/end"] = token_rows(rng, 7, 10, 23)
    inputs["written/owner"] = np.asarray([0, 0, 0, 1, 2, 2, 3], np.int32)
    inputs["images"] = rng.integers(0, 256, (2, SIZE, SIZE, 3)).astype(np.uint8)
    return inputs


class Reference:
    """The forward passes; `w` are CLIP's tensors and `t` the trained ones, float64."""

    def __init__(self, inputs):
        tensors = {name: torch.tensor(value, dtype=torch.float64) for name, value in inputs.items()}
        strip = lambda prefix: {
            name.removeprefix(prefix): value
            for name, value in tensors.items()
            if name.startswith(prefix)
        }
        self.w, self.t, self.inputs = strip("weights/"), strip("trained/"), inputs

    def norm(self, x, name):
        return F.layer_norm(x, x.shape[-1:], self.w[f"{name}.weight"], self.w[f"{name}.bias"])

    def block(self, x, name, causal):
        batch, length, width = x.shape
        packed = F.linear(
            self.norm(x, f"{name}.ln_1"),
            self.w[f"{name}.attn.in_proj_weight"],
            self.w[f"{name}.attn.in_proj_bias"],
        )
        heads = packed.reshape(batch, length, 3, SIZES["heads"], -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(*heads, is_causal=causal)
        mixed = mixed.transpose(1, 2).reshape(batch, length, width)
        out = f"{name}.attn.out_proj"
        x = x + F.linear(mixed, self.w[f"{out}.weight"], self.w[f"{out}.bias"])
        first, second = f"{name}.mlp.c_fc", f"{name}.mlp.c_proj"
        hidden = F.linear(
            self.norm(x, f"{name}.ln_2"), self.w[f"{first}.weight"], self.w[f"{first}.bias"]
        )
        hidden = hidden * torch.sigmoid(1.702 * hidden)
        return x + F.linear(hidden, self.w[f"{second}.weight"], self.w[f"{second}.bias"])

    def layers(self, x, prefix, count, causal, deep=None):
        """The outputs of all layers; `deep` [layers, n, D] stand behind the first token."""
        states = []
        for i in range(count):
            if deep is not None:
                own, n = deep[i].expand(len(x), -1, -1), deep.shape[1]
                if i > 0:
                    own = ALPHA * x[:, 1 : 1 + n] + (1 - ALPHA) * own
                x = torch.cat([x[:, :1], own, x[:, 1 + n if i > 0 else 1 :]], dim=1)
            x = self.block(x, f"{prefix}transformer.resblocks.{i}", causal)
            states.append(x)
        return states

    def text_vectors(self, x, index, causal, deep):
        x = x + self.w["positional_embedding"][: x.shape[1]]
        last = self.layers(x, "", SIZES["text_layers"], causal, deep)[-1]
        pooled = self.norm(last, "ln_final")[torch.arange(len(last)), torch.as_tensor(index).long()]
        return pooled @ self.w["text_projection"]

    def learnt_states(self, ids, end, compat):
        states = []
        for k, (row, stop) in enumerate(zip(ids, end, strict=True)):
            vectors = []
            for e in range(PROMPTS):
                x = self.w["token_embedding.weight"][torch.as_tensor(row).long()].clone()
                x[1 : 1 + ROOM] = self.t["text/abnormal" if k else "text/normal"][e]
                index = stop if compat else stop + TEXT_TOKENS
                vectors.append(
                    self.text_vectors(x[None], [index], not compat, self.t["text/deep"])[0]
                )
            states.append(F.normalize(torch.stack(vectors).mean(0), dim=0))
        return torch.stack(states)

    def written_states(self):
        ids, end = self.inputs["written/ids"], self.inputs["written/end"]
        x = self.w["token_embedding.weight"][torch.as_tensor(ids).long()]
        vectors = F.normalize(self.text_vectors(x, end, True, None), dim=-1)
        owner = torch.as_tensor(self.inputs["written/owner"])
        means = [vectors[owner == k].mean(0) for k in range(int(owner.max()) + 1)]
        return F.normalize(torch.stack(means), dim=-1)

    def image_states(self, deep):
        """Raw patch states after every layer, and the class token's embedding."""
        pixels = torch.tensor(self.inputs["images"], dtype=torch.float64) / 255
        pixels = (pixels - torch.tensor(MEAN).double()) / torch.tensor(STD).double()
        patch = SIZES["patch"]
        x = F.conv2d(pixels.permute(0, 3, 1, 2), self.w["visual.conv1.weight"], stride=patch)
        side = x.shape[-1]
        x = x.flatten(2).transpose(1, 2)
        first = self.w["visual.class_embedding"].expand(len(x), 1, -1)
        x = torch.cat([first, x], dim=1) + self.positions(side)
        x = self.norm(x, "visual.ln_pre")
        states = self.layers(x, "visual.", SIZES["image_layers"], False, deep)
        image = self.norm(states[-1][:, 0], "visual.ln_post") @ self.w["visual.proj"]
        skip = 1 + (0 if deep is None else deep.shape[1])
        return [state[:, skip:] for state in states], image

    def positions(self, side):
        table, grid = self.w["visual.positional_embedding"], SIZES["image"] // SIZES["patch"]
        patches = table[1:].reshape(1, grid, grid, -1).permute(0, 3, 1, 2)
        patches = F.interpolate(patches, (side, side), mode="bicubic", align_corners=False)
        return torch.cat([table[:1], patches[0].flatten(1).T])

    def adapted(self, states, tap):
        kernel, bias = self.t[f"adapters/{tap}/kernel"], self.t[f"adapters/{tap}/bias"]
        return F.normalize(states[tap - 1] @ kernel + bias, dim=-1)


def enlarge(maps):
    """[B, N, K] to [B, SIZE, SIZE, K]."""
    batch, count, states = maps.shape
    side = round(count**0.5)
    maps = maps.transpose(1, 2).reshape(batch, states, side, side)
    maps = F.interpolate(maps, (SIZE, SIZE), mode="bilinear", align_corners=True)
    return maps.permute(0, 2, 3, 1)


def pair(states):
    return torch.stack([states[0], F.normalize(states[1:].mean(0), dim=0)])


def dapo(ref, states):
    taps, image = ref.image_states(ref.t["vision/deep"])
    maps = [
        enlarge(((ref.adapted(taps, tap) @ states.T) / DAPO_TEMPERATURE).softmax(-1))
        for tap in TAPS
    ]
    logits = F.normalize(image, dim=-1) @ pair(states).T / DAPO_TEMPERATURE
    types = torch.stack(maps).mean(0)
    yield from {f"tap{tap}": taps[tap - 1] for tap in TAPS}.items()
    yield "image", image
    yield from {f"map{tap}": m for tap, m in zip(TAPS, maps, strict=True)}.items()
    yield "image_logits", logits
    yield "anomaly", types[..., 1:].sum(-1)
    yield "image_score", logits.softmax(-1)[:, 1]


def multiads(ref, states):
    taps, image = ref.image_states(None)
    maps = [
        enlarge(ref.adapted(taps, tap) @ states.T / WRITTEN_TEMPERATURE).softmax(-1) for tap in TAPS
    ]
    types = torch.stack(maps).mean(0)
    image_types = (F.normalize(image, dim=-1) @ states.T / WRITTEN_TEMPERATURE).softmax(-1)
    anomaly = 1 - types[..., 0]
    yield "anomaly", anomaly
    yield "types", types
    yield "image_types", image_types
    yield "image_score", anomaly.amax((1, 2)) + 1 - image_types[:, 0]


def plain(ref, states):
    taps, image = ref.image_states(None)
    patches = F.normalize(ref.norm(taps[-1], "visual.ln_post") @ ref.w["visual.proj"], dim=-1)
    two = pair(states)
    yield "types", enlarge((patches @ states.T / WRITTEN_TEMPERATURE).softmax(-1))
    yield "anomaly", enlarge((patches @ two.T / WRITTEN_TEMPERATURE).softmax(-1))[..., 1]
    yield (
        "image_score",
        (F.normalize(image, dim=-1) @ two.T / WRITTEN_TEMPERATURE).softmax(-1)[:, 1],
    )


def outputs(inputs):
    """Everything that is compared, float64 arrays by name."""
    ref = Reference(inputs)
    states = ref.learnt_states(inputs["ids"], inputs["end"], compat=False)
    written = ref.written_states()
    found = {
        "states": states,
        "compat/states": ref.learnt_states(inputs["compat/ids"], inputs["compat/end"], True),
        "written/states": written,
        **{f"dapo/{name}": value for name, value in dapo(ref, states)},
        **{f"multiads/{name}": value for name, value in multiads(ref, written)},
        **{f"plain/{name}": value for name, value in plain(ref, written)},
    }
    return {name: value.numpy() for name, value in found.items()}


def main():
    inputs = draw(0)
    found = {f"out/{name}": np.float32(value) for name, value in outputs(inputs).items()}
    np.savez_compressed(pathlib.Path(__file__).with_name("dapo.npz"), **inputs, **found)


if __name__ == "__main__":
    main()
