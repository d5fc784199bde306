import json

import pytest

from promptmad_jax.clip.config import (
    LEGACY_EOS,
    ClipConfig,
    ClipTextConfig,
    ClipVisionConfig,
    read_config,
    to_document,
)
from promptmad_jax.runtime.errors import UserError

LARGE_TEXT = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
LARGE_VISION = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "image_size": 336,
    "patch_size": 14,
}


@pytest.fixture
def read(tmp_path):
    def write_and_read(document):
        path = tmp_path / "config.json"
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return read_config(path)

    return write_and_read


def test_absent_keys_are_those_of_base_32(read):
    assert read({"model_type": "clip"}) == ClipConfig(ClipTextConfig(), ClipVisionConfig())


def test_defaults_are_those_of_transformers(read):
    transformers = pytest.importorskip("transformers")
    written = transformers.CLIPConfig().to_dict()
    assert read({**written, "model_type": "clip"}) == read({"model_type": "clip"})
    for kind in (transformers.CLIPTextConfig, transformers.CLIPVisionConfig):
        written = {**kind().to_dict(), "model_type": kind.model_type}
        assert read(written) == read({"model_type": kind.model_type})


def test_large_14_336(read):
    config = read(
        {
            "model_type": "clip",
            "projection_dim": 768,
            "text_config": {**LARGE_TEXT, "eos_token_id": 2, "projection_dim": 512},
            "vision_config": LARGE_VISION,
        }
    )
    assert config.text == ClipTextConfig(
        width=768, hidden=3072, heads=12, projection=768, eos_id=LEGACY_EOS
    )
    assert config.vision == ClipVisionConfig(
        width=1024, hidden=4096, heads=16, layers=24, projection=768, image=336, patch=14
    )
    assert config.vision.grid == 24


def test_sections_of_old_files_win(read):
    config = read(
        {
            "model_type": "clip",
            "text_config": {"hidden_act": "quick_gelu", "num_hidden_layers": 3},
            "text_config_dict": {"hidden_act": "gelu"},
            "vision_config": {"patch_size": 16},
            "vision_config_dict": None,
        }
    )
    assert config.text == ClipTextConfig(activation="gelu")
    assert config.vision == ClipVisionConfig(patch=16)


@pytest.mark.parametrize("side", ["text", "vision"])
def test_one_tower_with_and_without_projection(read, side):
    document = {"model_type": f"clip_{side}_model", "projection_dim": 64}
    for architecture, projection in (("", None), ("WithProjection", 64)):
        name = f"CLIP{side.capitalize()}Model{architecture}"
        config = read({**document, "architectures": [name]})
        assert getattr(config, side).projection == projection
        assert {"text": config.vision, "vision": config.text}[side] is None


WRITTEN = [
    ClipConfig(
        ClipTextConfig(width=32, hidden=64, heads=4, layers=2, projection=16, activation="gelu"),
        ClipVisionConfig(width=48, hidden=64, heads=3, image=64, patch=16, projection=16),
    ),
    ClipConfig(text=ClipTextConfig(eos_id=LEGACY_EOS, projection=16)),
    ClipConfig(text=ClipTextConfig(projection=None)),
    ClipConfig(vision=ClipVisionConfig(epsilon=1e-6, projection=None)),
]


@pytest.mark.parametrize("config", WRITTEN)
def test_what_is_written_is_read(read, config):
    assert read(to_document(config)) == config


def test_transformers_reads_what_is_written():
    transformers = pytest.importorskip("transformers")
    theirs = transformers.CLIPConfig.from_dict(to_document(WRITTEN[0]))
    assert theirs.projection_dim == 16 and theirs.text_config.hidden_act == "gelu"
    assert (theirs.text_config.hidden_size, theirs.vision_config.patch_size) == (32, 16)


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ("{", "cannot be read as JSON"),
        ({"model_type": "bert"}, "type 'bert'"),
        ([1], "type None"),
        (
            {"model_type": "clip", "text_config": {"hidden_act": "relu"}},
            "must be 'quick_gelu' or 'gelu'",
        ),
        ({"model_type": "clip", "text_config": {"num_attention_heads": 7}}, "do not divide"),
        (
            {"model_type": "clip", "text_config": {"num_attention_heads": 0}},
            "heads is 0; it must be",
        ),
        ({"model_type": "clip", "text_config": {"eos_token_id": [1, 2]}}, "text.eos_id is"),
        ({"model_type": "clip", "vision_config": {"patch_size": [16, 16]}}, "vision.patch is"),
        ({"model_type": "clip", "vision_config": {"num_channels": 4}}, "num_channels is 4"),
    ],
)
def test_errors_name_the_file(read, document, reason):
    with pytest.raises(UserError, match=reason) as caught:
        read(document)
    assert "config.json" in str(caught.value)
