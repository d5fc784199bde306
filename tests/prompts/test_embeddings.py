import json
from dataclasses import replace

import numpy as np
import pytest

from promptmad_jax.prompts import phrase_vectors as vectors_module
from promptmad_jax.prompts.config import TextConfig
from promptmad_jax.prompts.embeddings import encode_classes
from promptmad_jax.runtime.errors import UserError

WORDS = {
    "cup": {
        "name": "cup",
        "normal": ["n1", "n2"],
        "defects": {"chip": ["c1"], "stain": ["s1", "s2"]},
    },
    "jar": {"name": "jar", "normal": ["j1"], "defects": {}},
}
SMALL = TextConfig(source="random", width=16, layers=1)
VECTORS = {
    "n1": [2, 0, 0],
    "n2": [0, 3, 0],
    "c1": [0, 0, 5],
    "s1": [1, 0, 0],
    "s2": [1, 0, 0],
    "j1": [0, 1, 1],
}


def write_vectors(path, table):
    vectors = np.array(list(table.values()), np.float32)
    np.savez(path, phrases=np.array(list(table)), vectors=vectors)
    return str(path)


@pytest.fixture
def vectors_config(tmp_path):
    (tmp_path / "words.json").write_text(json.dumps(WORDS))
    weights = write_vectors(tmp_path / "vectors.npz", VECTORS)

    def make(**changes):
        return TextConfig(
            **{
                "source": "vectors",
                "weights": weights,
                "vocabulary": str(tmp_path / "words.json"),
                **changes,
            }
        )

    return make


def test_tokens_by_hand(vectors_config):
    text = encode_classes(vectors_config(), ("jar", "cup"), None)
    half = np.sqrt(0.5)
    expected = [[[0, half, half], [0, 0, 0], [0, 0, 0]], [[half, half, 0], [0, 0, 1], [1, 0, 0]]]
    np.testing.assert_allclose(text.tokens, expected, atol=1e-6)
    np.testing.assert_array_equal(text.mask, [[True, False, False], [True, True, True]])
    assert text.tokens.dtype == np.float32
    assert text.names == (("normal",), ("normal", "chip", "stain"))
    assert text.sources == ("user", "user")


def test_missing_phrase_is_named(vectors_config, tmp_path):
    weights = write_vectors(tmp_path / "few.npz", {"n1": [1, 0], "n2": [1, 1]})
    with pytest.raises(UserError, match=r"few\.npz: .* 3 of 5 phrases: 'c1'; 's1'; 's2'\."):
        encode_classes(vectors_config(weights=weights), ("cup",), None)


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"phrases": np.array(["n1"])}, "has no array vectors"),
        ({"phrases": np.array(["n1"]), "vectors": np.ones((2, 3))}, "it needs `phrases`"),
        ({"phrases": np.array([1]), "vectors": np.ones((1, 3))}, "it needs `phrases`"),
        ({"phrases": np.array(list(VECTORS)), "vectors": np.zeros((6, 3))}, "'n1' is zero"),
        ({"phrases": np.array(list(VECTORS)), "vectors": np.full((6, 3), np.nan)}, "not finite"),
    ],
)
def test_malformed_vectors(vectors_config, tmp_path, arrays, reason):
    path = tmp_path / "bad.npz"
    np.savez(path, **arrays)
    with pytest.raises(UserError, match=reason):
        encode_classes(vectors_config(weights=str(path)), ("cup",), None)


def test_vectors_need_an_npz(vectors_config):
    with pytest.raises(UserError, match=r"needs an \.npz"):
        encode_classes(vectors_config(weights="openai/clip-vit-base-patch32"), ("cup",), None)


def test_random_tower_gives_unit_tokens_for_shipped_classes():
    text = encode_classes(SMALL, ("screw", "01", "gadget"), None)
    assert text.tokens.shape == (3, 6, 16)
    assert text.mask.sum(1).tolist() == [6, 2, 2]
    assert text.sources == ("shipped", "shipped", "generic")
    norms = np.linalg.norm(text.tokens, axis=-1)
    np.testing.assert_allclose(norms, text.mask, atol=1e-6)
    similar = text.tokens[text.mask] @ text.tokens[text.mask].T
    assert (similar - np.eye(10)).max() < 0.9999


def test_seed_makes_another_random_tower():
    first, again, other = (
        encode_classes(replace(SMALL, seed=seed), ("screw",), None).tokens for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other, atol=0.1)


def test_clip_folder_from_words_to_tokens(clip_folder, tmp_path):
    # Words of the letters that the narrow tokenizer knows.
    words = {
        "hook": {"name": "hook", "normal": ["a clean hook"], "defects": {"chip": ["chipped hook"]}},
        "disc": {"name": "disc", "normal": ["a good disc"], "defects": {"crack": ["cracked disc"]}},
    }
    (tmp_path / "words.json").write_text(json.dumps(words))
    config = TextConfig(weights=str(clip_folder()), vocabulary=str(tmp_path / "words.json"))
    text = encode_classes(config, ("hook", "disc"), None)
    assert text.tokens.shape == (2, 2, 6)
    assert text.names == (("normal", "chip"), ("normal", "crack"))


def test_shuffled_moves_every_vector_and_keeps_the_set():
    plain, mixed = (
        encode_classes(replace(SMALL, control=control), ("screw", "bottle", "01"), None)
        for control in ("none", "shuffled")
    )
    np.testing.assert_array_equal(plain.mask, mixed.mask)
    assert plain.names == mixed.names
    before, after = plain.tokens[plain.mask], mixed.tokens[mixed.mask]
    assert (np.abs(before - after).max(1) > 1e-3).all()
    np.testing.assert_array_equal(np.sort(before, axis=0), np.sort(after, axis=0))
    classes = np.repeat(np.arange(3), plain.mask.sum(1))
    origin = [int(np.argmin(np.abs(before - vector).sum(1))) for vector in after]
    assert (classes[origin] != classes).all()


def test_one_token_cannot_be_shuffled(vectors_config):
    with pytest.raises(UserError, match="describe a defect of jar"):
        encode_classes(vectors_config(control="shuffled"), ("jar",), None)


@pytest.fixture
def counted(monkeypatch):
    """A random encoder that counts how often it is asked."""
    calls = []
    build = vectors_module.random_encoder

    def counting(config):
        encoder = build(config)

        def encode(phrases):
            calls.append(len(phrases))
            return encoder.encode(phrases)

        return type(encoder)(encoder.fingerprint, encode)

    monkeypatch.setattr(vectors_module, "random_encoder", counting)
    return calls


def test_cache_is_by_content(counted, tmp_path):
    config = SMALL
    first = encode_classes(config, ("screw",), tmp_path)
    again = encode_classes(config, ("screw",), tmp_path)
    np.testing.assert_array_equal(first.tokens, again.tokens)
    assert len(counted) == 1
    encode_classes(config, ("bottle",), tmp_path)
    encode_classes(replace(SMALL, seed=1), ("screw",), tmp_path)
    assert len(counted) == 3
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 half a file"])
def test_damaged_cache_is_computed_again(counted, tmp_path, caplog, damage):
    config = SMALL
    first = encode_classes(config, ("screw",), tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(damage)
    again = encode_classes(config, ("screw",), tmp_path)
    np.testing.assert_array_equal(first.tokens, again.tokens)
    assert "damaged cache" in caplog.text
    assert len(counted) == 2
    encode_classes(config, ("screw",), tmp_path)
    assert len(counted) == 2
