import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptmad_jax.clip.byte_pairs import _WORDS, END, START, Tokenizer, byte_symbols
from promptmad_jax.clip.cleaning import clean
from promptmad_jax.runtime.errors import UserError
from tests.clip import reference_bpe
from tests.clip.narrow import GOLDENS

CORPUS = """
a photo of a cracked bottle. a photo of the broken large capsule, with a faulty imprint.
the bottle's rim can't be seen; they're scratched, we've bent it, I'll cut 'em, he'd poke 12 holes.
die große straße ist naß. поцарапанная крышка бутылки.
царапина. 鉄の表面に傷がある。鉄の傷。 한국어 표면 긁힘
éclat fêlé, pièce fissurée, pièce fêlée 🔧🔧 🔩🔩 ... --- !!! ((a)) [[b]] #1
#2 3.14 8mm 8mm 1234567890
"""
MERGES = reference_bpe.learn(CORPUS.lower(), 200)
HARD = (
    "",
    "crack " * 300,
    "x" * 500,
    "'s's 's 'S !'s ''s don''t '\u017f 'rest 'lll it's",
    "a<|startoftext|>b<|endoftext|> !<|endoftext|> <|STARTOFTEXT|> <|endoftext|",
    "\uff11\uff12 ½² Ⅷ ٣٤ 10⁻³ 1st 2nd",
    "e\u0301 \u0301 a\u0308\u0323 क्षि ไทย \u200d\u200b",
    "👩\u200d🔧 🇩🇪 👍🏽 🔧🔧🔧",
    "鉄の表面に傷 汉字 한국어 긁힘",
    "&lt;b&gt; caf&eacute; &amp;amp; &#39;s",
    "tab\tnew\nline\r\n\u3000wide\u00a0hard",
    "a\u0345b \u0345 \u0345\u0301 \u00cd\x85",
)


def vocabulary():
    symbols = sorted(reference_bpe.BYTES.values())
    symbols += [f"{symbol}</w>" for symbol in symbols]
    symbols += ["".join(pair) for pair in MERGES] + [START, END]
    return {symbol: i for i, symbol in enumerate(symbols)}


VOCABULARY = vocabulary()
TOKENIZER = Tokenizer(VOCABULARY, MERGES)


def reference(text):
    return [VOCABULARY[symbol] for symbol in reference_bpe.encode(clean(text), MERGES)]


def test_learnt_merges_are_worth_testing_with():
    lengths = [len("".join(pair).removesuffix("</w>")) for pair in MERGES]
    assert max(lengths) >= 6
    assert len(TOKENIZER.encode("a photo of the broken bottle")) < 12


def test_bytes_have_distinct_printable_symbols():
    assert byte_symbols() == tuple(reference_bpe.BYTES[byte] for byte in range(256))
    assert len(set(byte_symbols())) == 256


@pytest.mark.parametrize("text", [*HARD, CORPUS])
def test_hard_texts_as_the_reference(text):
    assert TOKENIZER.encode(text) == reference(text)


PIECES = st.sampled_from([*HARD[3:], *CORPUS.split(), "'", " ", "<|", "1", "ß"])


# Letters that are newer than Python's own tables are letters to the product alone.
KNOWN = st.text(st.characters(exclude_categories=("Cs", "Cn")), max_size=6)


@given(st.lists(st.one_of(PIECES, KNOWN), max_size=8).map("".join))
def test_any_text_as_the_reference(text):
    assert TOKENIZER.encode(text) == reference(text)


@given(st.text(max_size=30))
def test_symbols_spell_the_text(text):
    names = {i: symbol for symbol, i in VOCABULARY.items()}
    spelt = "".join(names[i].removesuffix("</w>") for i in TOKENIZER.encode(text))
    kept = "".join(clean(text).replace(reference_bpe.LOST, "").split())
    assert spelt == "".join(byte_symbols()[b] for b in kept.encode())


def test_one_character_alone_is_lost():
    every = map(chr, (*range(0xD800), *range(0xE000, sys.maxunicode + 1)))
    lost = [c for c in every if not c.isspace() and not _WORDS.findall(c)]
    assert lost == [reference_bpe.LOST]


def test_plain_english_as_transformers():
    transformers = pytest.importorskip("transformers")
    theirs = transformers.CLIPTokenizer(vocab=VOCABULARY, merges=MERGES)
    shipped = json.loads((GOLDENS / "clip_cleaning.json").read_text())
    texts = [
        line for line in (*CORPUS.split("."), *(clean for _, clean in shipped)) if "|" not in line
    ]
    for text in texts:
        ids = theirs(clean(text), add_special_tokens=False)["input_ids"]
        assert TOKENIZER.encode(text) == ids


def test_unknown_symbols_are_named():
    letters = Tokenizer({"a": 0, "a</w>": 1, START: 2, END: 3}, [])
    assert letters.encode("aa a") == [0, 1, 1]
    with pytest.raises(UserError, match=r"no symbol 'b</w>', which 'ab' needs"):
        letters.encode("ab")


@pytest.mark.parametrize("missing", [START, END, "ab"])
def test_incomplete_vocabulary(missing):
    table = {
        symbol: i for i, symbol in enumerate(("a", "b", "ab", START, END)) if symbol != missing
    }
    with pytest.raises(ValueError, match=r"no id for"):
        Tokenizer(table, [("a", "b")])
