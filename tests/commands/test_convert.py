"""`convert`: whole files, there and back, and what it refuses."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from promptmad_jax.clip.config import (
    ClipConfig,
    ClipTextConfig,
    ClipVisionConfig,
    read_config,
)
from promptmad_jax.clip.loading import load_clip
from promptmad_jax.clip.weights import clip
from promptmad_jax.commands.convert import convert, describe_formats
from promptmad_jax.models.backbone.backbone import BackboneConfig, build_backbone
from promptmad_jax.models.backbone.efficientnet import EFFICIENTNET_B4
from promptmad_jax.models.backbone.efficientnet_backbone import layer_shapes
from promptmad_jax.models.backbone.weights import efficientnet
from promptmad_jax.models.functional import Network
from promptmad_jax.models.reconstruction.encoder import ReconstructorConfig
from promptmad_jax.models.reconstruction.onenip import OneNIP, RefinerConfig
from promptmad_jax.models.reconstruction.uniad import UniAD
from promptmad_jax.models.reconstruction.weights import onenip
from promptmad_jax.models.reconstruction.weights.model_file import BACKBONE, read_model
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.weights.files import read_tensors, write_tensors

SMALL = ReconstructorConfig(
    width=16, heads=2, encoder_layers=2, decoder_layers=3, mlp_width=24, neighbor_size=3
)
NETWORKS = {
    "onenip": Network.create(lambda rngs: OneNIP(SMALL, RefinerConfig(8), 272, (4, 4), rngs)),
    "uniad": Network.create(lambda rngs: UniAD(SMALL, 272, (4, 4), rngs)),
}
B4 = build_backbone(BackboneConfig())


def filled(shapes, seed=0):
    rng = np.random.default_rng(seed)
    return {key: rng.standard_normal(shape, np.float32) for key, shape in shapes.items()}


def checkpoint(name):
    """A file as the reference writes it: wrapped, with its backbone and what nobody reads."""
    params, stats = jax.eval_shape(NETWORKS[name].init, jax.random.key(0))
    shapes = {k: x.shape for k, x in onenip.join_params_stats(params, stats).items()}
    layers = layer_shapes(EFFICIENTNET_B4)
    backbone = filled(efficientnet.canonical_shapes(layers, folded=False), 1)
    written = efficientnet.write_format(backbone, layers, "efficientnet_pytorch")
    tensors = onenip.write_format(filled(shapes), name)
    tensors |= {f"module.backbone.{key}": value for key, value in written.items()}
    unused = {
        "module.backbone._fc.weight": np.zeros((10, 8), np.float32),
        "module.backbone._blocks.25._bn1.weight": np.zeros(3, np.float32),
        "module.backbone._bn0.num_batches_tracked": np.zeros((), np.int64),
    }
    return tensors, unused


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key].dtype == value.dtype, key
        np.testing.assert_array_equal(found[key], value, err_msg=key)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_checkpoint_there_and_back(tmp_path, name):
    tensors, unused = checkpoint(name)
    paths = [tmp_path / f"{i}.safetensors" for i in range(4)]
    write_tensors(paths[0], tensors | unused)
    said = convert(str(paths[0]), str(paths[1]), "auto", "promptmad")
    assert f"{name} to promptmad" in said
    convert(str(paths[1]), str(paths[2]), "promptmad", name)
    assert_equal(read_tensors(paths[2]), tensors)
    convert(str(paths[2]), str(paths[3]), name, "promptmad")
    ours = read_tensors(paths[1])
    assert_equal(read_tensors(paths[3]), ours)
    for path in paths[:2]:
        model, backbone = read_model(str(path), NETWORKS[name], B4)
        assert_equal(model | {BACKBONE + k: v for k, v in backbone.items()}, ours)


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    tensors, _ = checkpoint("uniad")
    write_tensors(tmp_path / "w.safetensors", tensors)
    with pytest.raises(UserError, match=r"set config\.model=uniad"):
        read_model(str(tmp_path / "w.safetensors"), NETWORKS["onenip"], B4)
    convert(str(tmp_path / "w.safetensors"), str(tmp_path / "o.safetensors"), "auto", "promptmad")
    with pytest.raises(UserError, match=r"o\.safetensors, read as.*missing.*unexpected"):
        read_model(str(tmp_path / "o.safetensors"), NETWORKS["onenip"], B4)


def test_backbone_through_every_format(tmp_path):
    layers = layer_shapes(EFFICIENTNET_B4)
    ours = filled(efficientnet.canonical_shapes(layers, folded=False))
    write_tensors(tmp_path / "ours.npz", ours)
    for format in ("efficientnet_pytorch", "timm", "torchvision", "transformers"):
        foreign, back = tmp_path / f"{format}.safetensors", tmp_path / f"{format}.npz"
        convert(str(tmp_path / "ours.npz"), str(foreign), "promptmad", format)
        convert(str(foreign), str(back), format, "promptmad")
        assert_equal(read_tensors(back), ours)


def clip_tensors():
    config = ClipConfig(
        ClipTextConfig(
            width=64, hidden=256, heads=1, layers=2, vocabulary=20, context=8, projection=32
        ),
        ClipVisionConfig(
            width=64, hidden=256, heads=1, layers=2, image=32, patch=16, projection=32
        ),
    )
    return filled(clip.clip_shapes(config))


def test_clip_between_the_formats(tmp_path):
    ours = clip_tensors()
    source = tmp_path / "ours.safetensors"
    write_tensors(source, ours)
    for format in ("openai", "promptmad", "transformers", "flax", "openai", "promptmad"):
        target = tmp_path / f"{format}.{'msgpack' if format == 'flax' else 'safetensors'}"
        convert(str(source), str(target), "auto", format)
        source = target
    assert_equal(read_tensors(source), ours)


def test_clip_gets_the_config_of_its_source(tmp_path):
    source, first, second = (tmp_path / name / "m.safetensors" for name in ("in", "a", "b"))
    write_tensors(source, clip_tensors())
    assert "says gelu" in convert(str(source), str(first), "auto", "openai", "gelu")
    tower = load_clip(first, first.with_name("config.json"))[0].text
    assert (tower.activation, tower.width, tower.layers) == ("gelu", 64, 2)
    assert "says gelu" in convert(str(first), str(second), "auto", "promptmad")
    assert read_config(second.with_name("config.json")).vision.activation == "gelu"
    with pytest.raises(UserError, match=r"b/config\.json exists and describes another model"):
        convert(str(source), str(second), "auto", "transformers", "quick_gelu")
    other = json.loads(second.with_name("config.json").read_text())
    other["text_config"]["num_hidden_layers"] = 3
    source.with_name("config.json").write_text(json.dumps(other))
    with pytest.raises(
        UserError, match=r"in/m\.safetensors, by .*config\.json.* missing: text/lay"
    ):
        convert(str(source), str(tmp_path / "c" / "m.safetensors"), "auto", "openai")


def test_a_pickle_by_the_command(tmp_path):
    torch = pytest.importorskip("torch")
    ours, folder = clip_tensors(), tmp_path / "out"
    write_tensors(tmp_path / "ours.safetensors", ours)
    convert(str(tmp_path / "ours.safetensors"), str(tmp_path / "w.safetensors"), "auto", "openai")
    theirs = read_tensors(tmp_path / "w.safetensors")
    pickle = {"state_dict": {f"module.{k}": torch.tensor(v) for k, v in theirs.items()}}
    (tmp_path / "in").mkdir()
    torch.save(pickle, tmp_path / "in" / "clip.pth")
    done = command(
        f"--input={tmp_path / 'in' / 'clip.pth'}",
        f"--output={folder / 'm.safetensors'}",
        "--activation=gelu",
    )
    assert done.returncode == 0, done.stderr
    assert "openai to promptmad" in done.stdout and "config.json says gelu" in done.stdout
    assert_equal(read_tensors(folder / "m.safetensors"), ours)


def test_refusals(tmp_path):
    layers = layer_shapes(EFFICIENTNET_B4)
    ours = tmp_path / "w.safetensors"
    write_tensors(ours, filled(efficientnet.canonical_shapes(layers, folded=False)))
    with pytest.raises(UserError, match="holds EfficientNet weights of format promptmad, not timm"):
        convert(str(ours), str(tmp_path / "o.npz"), "timm", "promptmad")
    with pytest.raises(UserError, match=r"--activation=gelu: .* holds EfficientNet, not CLIP"):
        convert(str(ours), str(tmp_path / "o.npz"), "auto", "timm", "gelu")
    with pytest.raises(UserError, match=r"--to=onenip: EfficientNet weights can become .*timm"):
        convert(str(ours), str(tmp_path / "o.npz"), "auto", "onenip")
    write_tensors(tmp_path / "x.npz", {"strange": np.ones(3)})
    with pytest.raises(UserError, match=r"no known format; its first keys are strange"):
        convert(str(tmp_path / "x.npz"), str(tmp_path / "o.npz"), "auto", "promptmad")
    tensors = read_tensors(ours)
    tensors.pop("block1a/depthwise/kernel")
    tensors["block1a/extra"] = np.ones(2, np.float32)
    tensors["stem/norm/mean"] = np.ones(2, np.float32)
    write_tensors(ours, tensors)
    with pytest.raises(UserError) as caught:
        convert(str(ours), str(tmp_path / "o.npz"), "auto", "timm")
    for part in ("1 missing: block1a/depthwise", "1 unexpected: block1a/extra", "(2,) instead of"):
        assert part in str(caught.value)
    assert not (tmp_path / "o.npz").exists()


def command(*args):
    """Runs convert and returns how it ended."""
    module = [sys.executable, "-m", "promptmad_jax.convert"]
    return subprocess.run([*module, *args], capture_output=True, text=True)


def test_the_command_lists_formats_and_says_what_is_missing():
    assert command("--list").stdout.strip() == describe_formats()
    nothing = command()
    assert nothing.returncode == 2 and "give --input and --output" in nothing.stderr
