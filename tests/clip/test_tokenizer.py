import gzip
import json
import logging

import numpy as np
import pytest
from tokenizers.pre_tokenizers import ByteLevel

from promptmad_jax.clip.tokenizer import (
    END,
    OPENAI_FILE,
    START,
    Tokenizer,
    byte_tokenizer,
    from_merges,
    load_tokenizer,
    tokenize,
)
from promptmad_jax.runtime.errors import UserError
from tests.clip.narrow import GOLDENS

WORDS = ["a", "b", "c", "a</w>", "b</w>", "c</w>", "ab", "abc</w>", START, END]
MERGES = "#version: 0.2\na b\nab c</w>\n"


@pytest.fixture
def files(tmp_path):
    vocabulary, merges = tmp_path / "vocab.json", tmp_path / "merges.txt"
    vocabulary.write_text(json.dumps({word: i for i, word in enumerate(WORDS)}))
    merges.write_text(MERGES)
    return vocabulary, merges


@pytest.fixture
def openai_file(tmp_path):
    path = tmp_path / OPENAI_FILE
    path.write_bytes(gzip.compress(f'"bpe_simple_vocab_16e6.txt{MERGES}'.encode()))
    return path


def test_ids_are_those_of_the_golden():
    golden = json.loads((GOLDENS / "clip_ids.json").read_text())
    tokenizer = from_merges([tuple(pair) for pair in golden["merges"]])
    assert {phrase: tokenizer.encode(phrase) for phrase in golden["ids"]} == golden["ids"]


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


def test_openai_file_numbers_bytes_then_merges(openai_file, tmp_path):
    tokenizer = load_tokenizer(openai_file)
    tokenizer.backend.save_pretrained(tmp_path)
    for same in (tokenizer, load_tokenizer(tmp_path / "tokenizer.json")):
        # "!" is the first printable byte; ends of words follow the 256 bytes, then two merges.
        assert same.encode("! abc ab ~ \u00a1") == [256, 513, 64, 256 + 65, 256 + 93, 126, 256 + 94]
        assert (same.start, same.end, len(same)) == (514, 515, 516)


def test_only_the_merges_in_use_are_read(tmp_path):
    path = tmp_path / OPENAI_FILE
    symbols = sorted(ByteLevel.alphabet())
    lines = ["#version: 0.2", *(f"{a} {b}" for a in symbols for b in symbols)]
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    assert len(load_tokenizer(path)) == 49408


def test_a_long_phrase_is_cut_and_named(files, caplog):
    with caplog.at_level(logging.WARNING, logger="absl"):
        ids = tokenize(load_tokenizer(*files), ("a b c a b c", "a b c a"), 6)
    assert ids.tolist() == [[8, 3, 4, 5, 3, 9]] * 2
    assert "a b c a b c" in caplog.text and len(caplog.records) == 1


def test_an_empty_phrase_is_start_and_end(files):
    assert tokenize(load_tokenizer(*files), ("", " \n"), 77)[:, :2].tolist() == [[8, 9]] * 2


def test_bytes_tell_every_text_apart():
    tokenizer = byte_tokenizer()
    assert len(tokenizer) == 514
    rows = tokenize(tokenizer, ("ab", "ba", "a b", "Ü", "u", "鉄"), 256)
    assert len({tuple(row) for row in rows}) == 6
    assert (rows[:, 0] == 512).all()
    assert (rows == 513).any(1).all()


def test_text_that_the_vocabulary_cannot_spell_is_named():
    letters = Tokenizer({"a": 0, "a</w>": 1, START: 2, END: 3}, [])
    assert letters.encode("aa a") == [0, 1, 1]
    for text in ("ab", "\ud83d"):
        with pytest.raises(UserError, match="cannot spell"):
            letters.encode(text)


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
