import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptmad_jax.clip.cleaning import clean
from tests.clip.narrow import GOLDENS

PAIRS = json.loads((GOLDENS / "clip_cleaning.json").read_text())


@pytest.mark.parametrize(("text", "expected"), PAIRS)
def test_as_the_original_cleans(text, expected):
    assert clean(text) == expected


def test_wrongly_decoded_text_is_repaired():
    assert clean("dÃ©faut") == "défaut"


@given(st.text(st.characters(codec="ascii", exclude_characters="&"), max_size=40))
def test_plain_text_only_loses_case_and_spaces(text):
    printable = "".join(c if c.isprintable() else " " for c in text)
    assert clean(printable) == " ".join(printable.split()).lower()


@given(st.text(max_size=40))
def test_one_line_without_control_characters(text):
    cleaned = clean(text)
    assert cleaned == " ".join(cleaned.split())
    assert not any(unicodedata.category(c) == "Cs" or c < " " for c in cleaned)
