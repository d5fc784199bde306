"""Checkpoints of OneNIP and UniAD: names, both ways to the bit, mistakes."""

import jax
import numpy as np
import pytest

from promptmad_jax.models.functional import Network
from promptmad_jax.models.reconstruction.encoder import ReconstructorConfig
from promptmad_jax.models.reconstruction.onenip import OneNIP, RefinerConfig
from promptmad_jax.models.reconstruction.uniad import UniAD
from promptmad_jax.models.reconstruction.weights.onenip import (
    FORMATS,
    detect,
    join_params_stats,
    key_rows,
    read_canonical,
    split_params_stats,
    write_format,
)
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.weights.key_table import to_theirs

# Names and shapes as the released files have them, at 224 px; and how many there are.
LITERAL = {
    "onenip": {
        "pos_embed.row_embed.weight": (14, 128),
        "input_proj.weight": (256, 272),
        "transformer.encoder.layers.3.self_attn.in_proj_weight": (768, 256),
        "transformer.encoder.layers.0.linear1.weight": (1024, 256),
        "transformer.decoder.layers.3.cross_attn_image_to_prompt.in_proj_bias": (768,),
        "transformer.decoder.layers.0.cross_attn_prompt_to_image.out_proj.weight": (256, 256),
        "transformer.decoder.layers.2.mlp.lin2.weight": (256, 1024),
        "transformer.decoder.layers.1.norm3.bias": (256,),
        "transformer.decoder.final_attn_token_to_image.in_proj_weight": (768, 256),
        "transformer.decoder.norm.weight": (256,),
        "seghead.upconv1.0.weight": (128, 272, 3, 3),
        "seghead.upconv1.1.running_var": (128,),
        "seghead.upconv2.3.weight": (128, 128, 2, 2),
        "seghead.predictor.weight": (1, 128, 1, 1),
    },
    "uniad": {
        "pos_embed.col_embed.weight": (14, 128),
        "transformer.decoder.layers.0.learned_embed.weight": (196, 256),
        "transformer.decoder.layers.3.self_attn.out_proj.bias": (256,),
        "transformer.decoder.layers.0.multihead_attn.in_proj_weight": (768, 256),
        "transformer.decoder.layers.1.linear2.weight": (256, 1024),
        "output_proj.weight": (272, 256),
    },
}
ENTRIES = {"onenip": 148, "uniad": 132}
SCALARS = {"onenip": 8_372_625 + 4 * 128, "uniad": 7_717_392}


def shapes_of(name, size=224):
    """Shapes of all our paths at full size."""
    config, grid = ReconstructorConfig(), (size // 16, size // 16)
    build = {
        "onenip": lambda rngs: OneNIP(config, RefinerConfig(), 272, grid, rngs),
        "uniad": lambda rngs: UniAD(config, 272, grid, rngs),
    }[name]
    trees = jax.eval_shape(Network.create(build).init, jax.random.key(0))
    return {path: leaf.shape for path, leaf in join_params_stats(*trees).items()}


SHAPES = {name: shapes_of(name) for name in FORMATS}


def random_bits(shapes, dtype=np.float32):
    """Arrays of any bits at all, NaN and infinity among them."""
    rng = np.random.default_rng(0)
    size = np.dtype(dtype).itemsize
    return {
        key: np.frombuffer(rng.bytes(int(np.prod(shape)) * size), dtype).reshape(shape)
        for key, shape in shapes.items()
    }


def bits(tensors):
    return {key: (value.shape, value.dtype, value.tobytes()) for key, value in tensors.items()}


@pytest.mark.parametrize("name", FORMATS)
def test_names_and_shapes_are_those_of_the_released_files(name):
    written = write_format(random_bits(SHAPES[name]), name)
    for key, shape in LITERAL[name].items():
        assert written[f"module.reconstruction.{key}"].shape == shape
    assert len(written) == ENTRIES[name]
    assert sum(value.size for value in written.values()) == SCALARS[name]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_ours_to_theirs_and_back_to_the_bit(name, dtype):
    ours = random_bits(SHAPES[name], dtype)
    theirs = write_format(ours, name)
    assert detect(theirs) == name
    assert bits(read_canonical(theirs, SHAPES[name], "the test")) == bits(ours)


@pytest.mark.parametrize("name", FORMATS)
def test_theirs_to_ours_and_back_to_the_bit(name):
    zeros = {path: np.broadcast_to(np.float32(0), shape) for path, shape in SHAPES[name].items()}
    rows = to_theirs(key_rows(name), zeros, "the test")
    theirs = random_bits({f"module.{key}": value.shape for key, value in rows.items()})
    ours = read_canonical(theirs, SHAPES[name], "the test")
    assert bits(write_format(ours, name)) == bits(theirs)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_backbone_and_counters_stand_beside(name, prefix):
    ours = random_bits(SHAPES[name])
    theirs = {
        key.replace("module.", prefix): value for key, value in write_format(ours, name).items()
    }
    theirs |= {
        f"{prefix}backbone._conv_stem.weight": np.zeros((48, 3, 3, 3), np.float32),
        f"{prefix}backbone._bn0.num_batches_tracked": np.array(0),
        f"{prefix}reconstruction.seghead.upconv1.1.num_batches_tracked": np.array(7),
    }
    assert bits(read_canonical(theirs, SHAPES[name], "the test")) == bits(ours)


def test_split_and_join():
    ours = random_bits(SHAPES["onenip"])
    params, stats = split_params_stats(ours)
    assert set(params) == {"reconstructor", "refiner"} and set(stats) == {"refiner"}
    assert set(stats["refiner"]["up1"]["norm"]) == {"mean", "var"}
    assert bits(join_params_stats(params, stats)) == bits(ours)


def test_a_checkpoint_of_another_size_is_refused_by_name():
    theirs = write_format(random_bits(shapes_of("uniad", 256)), "uniad")
    with pytest.raises(UserError) as error:
        read_canonical(theirs, SHAPES["uniad"], "ckpt.pkl")
    for part in ("ckpt.pkl", "6 of another shape", r"row_embed.weight (16, 128) instead of (14, "):
        assert part in str(error.value)


def test_missing_and_unexpected_keys_are_listed():
    theirs = write_format(random_bits(SHAPES["onenip"]), "onenip")
    theirs["module.reconstruction.new.weight"] = theirs.pop(
        "module.reconstruction.transformer.decoder.norm.bias"
    )
    message = r"1 missing: \S*decoder.norm.bias; 1 unexpected: reconstruction.new.weight"
    with pytest.raises(UserError, match=message):
        read_canonical(theirs, SHAPES["onenip"], "ckpt.pkl")


def test_a_checkpoint_of_the_other_model_or_of_none():
    theirs = write_format(random_bits(SHAPES["uniad"]), "uniad")
    with pytest.raises(UserError, match=r"checkpoint of uniad.*config.model=uniad"):
        read_canonical(theirs, SHAPES["onenip"], "ckpt.pkl")
    with pytest.raises(UserError, match=r"neither OneNIP nor UniAD.*conv.weight"):
        read_canonical({"conv.weight": np.zeros(1)}, SHAPES["onenip"], "ckpt.pkl")


def test_writing_something_else():
    ours = random_bits(SHAPES["onenip"])
    ours["segmentor/bias"] = ours.pop("refiner/predictor/bias")
    with pytest.raises(UserError, match=r"missing: refiner/predictor/bias; .*segmentor/bias"):
        write_format(ours, "onenip")
