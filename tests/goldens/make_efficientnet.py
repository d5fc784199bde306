"""Writes efficientnet.npz: taps of narrow EfficientNets of four torch libraries, random weights.

Run from the repository: `python tests/goldens/make_efficientnet.py`. Made with torch 2.13.0,
transformers 5.23.0, timm 1.0.31, torchvision 0.28.0 and efficientnet-pytorch 0.7.1, which all get
the same weights and are run in float64.

Arrays: `images`; for versions 1 and 2, `weights/VERSION`, all kept tensors in the order of a state
dict; `taps/PADDING/i` of version 1 and `taps/version2/i`; `layouts`, JSON of each origin's whole
state dict: origin -> [[key, shape], ...].
"""

import functools
import itertools
import json
import pathlib

import numpy as np
import torch
from efficientnet_pytorch import EfficientNet
from efficientnet_pytorch.utils import BlockArgs, GlobalParams
from timm.models import efficientnet as timm
from timm.models._efficientnet_builder import decode_arch_def
from torchvision.models import efficientnet as torchvision
from transformers import EfficientNetConfig, EfficientNetModel

STEM = 16
# Expansion, kernel, stride, inputs, outputs, repeats; the last stage is behind the last tap.
STAGES = (
    (1, 3, 1, 16, 8, 2),
    (2, 3, 2, 8, 8, 2),
    (2, 5, 2, 8, 16, 2),
    (2, 3, 2, 16, 8, 2),
    (3, 5, 1, 8, 16, 2),
    (3, 5, 2, 16, 8, 1),
)
STATIC = 4  # the block whose padding a static 380-pixel image changes
TAPPED = (1, 3, 5, 9)
VERSION2 = (
    "cn_r1_k3_s1_e1_c4_skip",
    "er_r2_k3_s2_e2_c8",
    "er_r1_k3_s2_e2_c16",
    "ir_r1_k3_s2_e2_c16_se0.25",
    "ir_r2_k3_s1_e3_c8_se0.25",
    "ir_r1_k3_s2_e3_c8_se0.25",
)
TAPPED2 = (0, 2, 3, 6)
# Two of the libraries fix the stem at 32 channels and the head at 1280 before scaling.
WIDTH = STEM / 32


def scaled(column):
    return [round(stage[column] / WIDTH) for stage in STAGES]


def of_transformers(square):
    config = EfficientNetConfig(
        width_coefficient=WIDTH,
        depth_coefficient=1.0,
        expand_ratios=[stage[0] for stage in STAGES],
        kernel_sizes=[stage[1] for stage in STAGES],
        strides=[stage[2] for stage in STAGES],
        in_channels=scaled(3),
        out_channels=scaled(4),
        num_block_repeats=[stage[5] for stage in STAGES],
        depthwise_padding=square,
        hidden_dim=round(1280 * WIDTH),
    )
    model = EfficientNetModel(config)
    return model, model.encoder.blocks


def of_timm(strings, padding, epsilon):
    model = timm.EfficientNet(
        decode_arch_def([[string] for string in strings]),
        stem_size=STEM,
        num_features=16,
        round_chs_fn=round,
        pad_type=padding,
        act_layer=torch.nn.SiLU,
        norm_layer=functools.partial(torch.nn.BatchNorm2d, eps=epsilon),
    )
    return model, list(itertools.chain(*model.blocks))


def timm_strings():
    kinds = [("ds" if stage[0] == 1 else "ir", *stage) for stage in STAGES]
    return [f"{k}_r{r}_k{kernel}_s{s}_e{e}_c{c}_se0.25" for k, e, kernel, s, _, c, r in kinds]


def of_torchvision():
    model = torchvision.EfficientNet([torchvision.MBConvConfig(*stage) for stage in STAGES], 0.0)
    return model, list(itertools.chain(*model.features[1:-1]))


def of_efficientnet_pytorch(image_size):
    rows = [
        BlockArgs(r, k, s, e, round(i / WIDTH), round(o / WIDTH), 0.25, True)
        for e, k, s, i, o, r in STAGES
    ]
    sizes = GlobalParams(WIDTH, 1.0, image_size, 0.0, 10, 0.99, 1e-3, 0.0, 8, None, True)
    model = EfficientNet(rows, sizes)
    return model, model._blocks


def kept(model, blocks, last):
    """State of the part up to the block `last`, without counters: a state dict has it first."""
    later = {value.data_ptr() for value in blocks[last + 1].state_dict().values()}
    state = {k: v for k, v in model.state_dict().items() if not k.endswith("num_batches_tracked")}
    return dict(itertools.takewhile(lambda item: item[1].data_ptr() not in later, state.items()))


def draw(state, seed):
    """Values that half precision holds; variances down to 1e-3, where an epsilon shows."""
    rng, values = np.random.default_rng(seed), {}
    for key, tensor in state.items():
        z = rng.standard_normal(tensor.shape)
        leaf = key.rsplit(".", 1)[1]
        if tensor.ndim == 4:
            values[key] = 1.4 * z / np.sqrt(np.prod(tensor.shape[1:]))
        elif leaf == "running_var":
            values[key] = 10 ** rng.uniform(-3, 0, tensor.shape)
        else:
            values[key] = 1 + 0.1 * z if leaf == "weight" else 0.1 * z
    for key in values:
        variance = key.replace(".weight", ".running_var")
        if key.endswith(".weight") and variance in values:
            values[key] = values[key] * np.sqrt(values[variance])
    return np.concatenate([value.ravel() for value in values.values()]).astype(np.float16)


def taps(model, blocks, tapped, vector, images):
    """Fills the kept part from the vector, and runs."""
    state, offset, found = kept(model, blocks, tapped[-1]), 0, {}
    for tensor in state.values():
        part = vector[offset : offset + tensor.numel()].reshape(tensor.shape)
        tensor.copy_(torch.from_numpy(part.astype(np.float32)))
        offset += tensor.numel()
    assert offset == len(vector)
    for number in tapped:
        keep = lambda _, __, output, number=number: found.__setitem__(number, output)
        blocks[number].register_forward_hook(keep)
    x = torch.from_numpy(images / 64.0 - 2).permute(0, 3, 1, 2)
    model.double().eval()(x)
    return [found[number].permute(0, 2, 3, 1).numpy() for number in tapped]


def layout(model):
    return [[key, list(value.shape)] for key, value in model.state_dict().items()]


@torch.no_grad()
def main():
    torch.manual_seed(0)
    images = np.random.default_rng(1).integers(0, 256, (1, 32, 32, 3), np.uint8)
    vector = draw(kept(*of_transformers([]), TAPPED[-1]), 2)
    runs = {
        "same": [
            of_transformers([]),
            of_timm(timm_strings(), "same", 1e-3),
            of_efficientnet_pytorch(None),
        ],
        "onenip_static380": [of_transformers([STATIC]), of_efficientnet_pytorch(380)],
        "symmetric": [of_timm(timm_strings(), "", 1e-5), of_torchvision()],
    }
    arrays = {"images": images, "weights/1": vector}
    for padding, models in runs.items():
        found, *others = [taps(*model, TAPPED, vector, images) for model in models]
        for other in others:
            for one, two in zip(found, other, strict=True):
                np.testing.assert_allclose(one, two, rtol=1e-9, atol=1e-9)
        arrays |= {f"taps/{padding}/{i}": tap.astype(np.float32) for i, tap in enumerate(found)}
    second = of_timm(VERSION2, "same", 1e-3)
    arrays["weights/2"] = draw(kept(*second, TAPPED2[-1]), 3)
    found = taps(*second, TAPPED2, arrays["weights/2"], images)
    arrays |= {f"taps/version2/{i}": tap.astype(np.float32) for i, tap in enumerate(found)}
    layouts = {
        "transformers": layout(runs["same"][0][0]),
        "timm": layout(runs["same"][1][0]),
        "efficientnet_pytorch": layout(runs["same"][2][0]),
        "torchvision": layout(runs["symmetric"][1][0]),
        "timm_version2": layout(second[0]),
    }
    path = pathlib.Path(__file__).with_name("efficientnet.npz")
    np.savez_compressed(path, layouts=json.dumps(layouts), **arrays)


if __name__ == "__main__":
    main()
