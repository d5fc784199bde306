import gzip
import json
import logging

import numpy as np
import pytest

from promptmad_jax.clip.tokenizer import (
    OPENAI_FILE,
    byte_tokenizer,
    load_tokenizer,
    save_tokenizer,
    tokenize,
)
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
OPENAI_MERGES = '"bpe_simple_vocab_16e6.txt#version: 0.2\na b\nab c</w>\n'


@pytest.fixture
def files(tmp_path):
    vocabulary, merges = tmp_path / "vocab.json", tmp_path / "merges.txt"
    vocabulary.write_text(json.dumps({word: i for i, word in enumerate(WORDS)}))
    merges.write_text(MERGES)
    return vocabulary, merges


@pytest.fixture
def openai_file(tmp_path):
    path = tmp_path / OPENAI_FILE
    path.write_bytes(gzip.compress(OPENAI_MERGES.encode()))
    return path


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


def test_openai_file_numbers_bytes_then_merges(openai_file):
    tokenizer = load_tokenizer(openai_file)
    # "!" is the first printable byte; ends of words follow the 256 bytes, then two merges.
    assert tokenizer.encode("! abc ab") == [256, 513, 64, 256 + 65]
    assert (tokenizer.start, tokenizer.end, len(tokenizer)) == (514, 515, 516)
    assert {tokenizer.vocabulary[s] for s in ("!", "~", "\u00a1", "\u0100")} == {0, 93, 94, 188}


def test_openai_file_in_hugging_face_form(openai_file, tmp_path):
    tokenizer = load_tokenizer(openai_file)
    save_tokenizer(tokenizer, tmp_path)
    saved = load_tokenizer(tmp_path / "vocab.json", tmp_path / "merges.txt")
    assert saved.vocabulary == tokenizer.vocabulary
    assert saved.merges == tokenizer.merges == [("a", "b"), ("ab", "c</w>")]


def test_only_the_merges_in_use_are_read(tmp_path):
    path = tmp_path / OPENAI_FILE
    symbols = [chr(0x4E00 + i) for i in range(250)]
    lines = ["#version: 0.2", *(f"{a} {b}" for a in symbols for b in symbols)]
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    assert len(load_tokenizer(path)) == 49408


def test_a_long_phrase_is_cut_and_named(files, caplog):
    with caplog.at_level(logging.WARNING, logger="absl"):
        ids = tokenize(load_tokenizer(*files), ("a b c a b c", "a"), 6)
    assert ids.tolist() == [[8, 3, 4, 5, 3, 9], [8, 3, 9, 9, 9, 9]]
    assert "a b c a b c" in caplog.text


def test_a_phrase_that_just_fits_is_not_cut(files, caplog):
    with caplog.at_level(logging.WARNING, logger="absl"):
        ids = tokenize(load_tokenizer(*files), ("a b c a",), 6)
    assert ids.tolist() == [[8, 3, 4, 5, 3, 9]]
    assert not caplog.text


def test_an_empty_phrase_is_start_and_end(files):
    assert tokenize(load_tokenizer(*files), ("", " \n"), 77)[:, :2].tolist() == [[8, 9]] * 2


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
        ("merges.txt", "b a\n"),
    ],
)
def test_damaged_files_are_named(files, tmp_path, name, content):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=r"vocab\.json with merges\.txt is not CLIP's tokenizer"):
        load_tokenizer(*files)


@pytest.mark.parametrize(
    "content",
    [b"a b\n", gzip.compress(b"a b\n")[:-9], gzip.compress(b"a\n")],
    ids=["not compressed", "truncated", "one word"],
)
def test_damaged_openai_file_is_named(openai_file, content):
    openai_file.write_bytes(content)
    with pytest.raises(UserError, match=OPENAI_FILE):
        load_tokenizer(openai_file)
