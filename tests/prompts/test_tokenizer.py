import json
import logging

import numpy as np
import pytest

from promptmad_jax.prompts.tokenizer import byte_tokenizer, load_tokenizer, tokenize
from promptmad_jax.runtime.errors import UserError

WORDS = [
    "a",
    "b",
    "c",
    "a</w>",
    "b</w>",
    "c</w>",
    "ab",
    "abc</w>",
    "<|startoftext|>",
    "<|endoftext|>",
]
MERGES = "#version: 0.2\na b\nab c</w>\n"


@pytest.fixture
def files(tmp_path):
    vocabulary, merges = tmp_path / "vocab.json", tmp_path / "merges.txt"
    vocabulary.write_text(json.dumps({word: i for i, word in enumerate(WORDS)}))
    merges.write_text(MERGES)
    return vocabulary, merges


def test_merges_by_hand(files):
    ids = tokenize(load_tokenizer(*files), ("ABC  ab", "c"), 77)
    assert ids.dtype == np.int32
    assert ids.shape == (2, 16)
    # "ab" ends in b</w>, for which there is no merge.
    assert ids[0].tolist() == [8, 7, 0, 4] + [9] * 12
    assert ids[1].tolist() == [8, 5] + [9] * 14


@pytest.mark.parametrize("pairs", [["a b", "ab c</w>"], [["a", "b"], ["ab", "c</w>"]]])
def test_tokenizer_json_gives_the_same(files, tmp_path, pairs):
    path = tmp_path / "tokenizer.json"
    model = {"vocab": {word: i for i, word in enumerate(WORDS)}, "merges": pairs}
    path.write_text(json.dumps({"model": model}))
    phrases = ("abc cab", "b")
    np.testing.assert_array_equal(
        tokenize(load_tokenizer(path), phrases, 77), tokenize(load_tokenizer(*files), phrases, 77)
    )


def test_a_long_phrase_is_cut_and_named(files, caplog):
    with caplog.at_level(logging.WARNING, logger="absl"):
        ids = tokenize(load_tokenizer(*files), ("a b c a b c", "a"), 6)
    assert ids.tolist() == [[8, 3, 4, 5, 3, 9], [8, 3, 9, 9, 9, 9]]
    assert "a b c a b c" in caplog.text


def test_bytes_tell_every_text_apart():
    tokenizer = byte_tokenizer()
    assert len(tokenizer) == 514
    rows = tokenize(tokenizer, ("ab", "ba", "a b", "Ü", "u", "鉄"), 256)
    assert len({tuple(row) for row in rows}) == 6
    assert (rows[:, 0] == 512).all()
    assert (rows == 513).any(1).all()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("vocab.json", "{"),
        ("vocab.json", "[]"),
        ("vocab.json", '{"a": 0}'),
        ("merges.txt", "a b c\n"),
    ],
)
def test_damaged_files_are_named(files, tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match="tokenizer"):
        load_tokenizer(*files)
