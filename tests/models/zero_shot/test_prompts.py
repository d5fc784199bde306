"""Words to token ids."""

import numpy as np
import pytest

from promptmad_jax.clip.tokenizer import byte_tokenizer
from promptmad_jax.models.zero_shot.config import DAPO, MULTIADS, DapoConfig
from promptmad_jax.models.zero_shot.prompts import prompt_tokens
from promptmad_jax.prompts.hand_written import written_phrases
from promptmad_jax.runtime.errors import UserError

TOKENIZER = byte_tokenizer()
DEFECTS = ("hole", "missing cap")


def test_learnt_prompts_leave_room_behind_the_start_token():
    tokens = prompt_tokens(DAPO, TOKENIZER, 77, DEFECTS, "object")
    texts = ("flawless object", "hole anomaly object", "missing cap anomaly object")
    room = TOKENIZER.encode("x") * 5
    for ids, end, text in zip(tokens.ids, tokens.end, texts, strict=True):
        expected = [TOKENIZER.start, *room, *TOKENIZER.encode(text), TOKENIZER.end]
        assert ids[: end + 1].tolist() == expected
        assert (ids[end:] == TOKENIZER.end).all()
    assert tokens.ids.shape == (3, 32)
    assert tokens.ids.dtype == tokens.end.dtype == np.int32
    assert tokens.shares is None


def test_compat_pads_with_zeros_to_the_full_context():
    tokens = prompt_tokens(DapoConfig(compat=True), TOKENIZER, 77, DEFECTS, "object")
    assert tokens.ids.shape == (3, 77)
    for ids, end in zip(tokens.ids, tokens.end, strict=True):
        assert ids[end] == TOKENIZER.end
        assert not ids[end + 1 :].any()


def test_words_of_the_prompts_are_settings():
    config = DapoConfig(normal_words="good {object}", defect_words="{object} has {defect}")
    tokens = prompt_tokens(config, TOKENIZER, 77, ("rust",), "gear")
    words = [ids[6:end].tolist() for ids, end in zip(tokens.ids, tokens.end, strict=True)]
    assert words == [TOKENIZER.encode("good gear"), TOKENIZER.encode("gear has rust")]


def test_written_phrases_are_shared_out_to_their_states():
    tokens = prompt_tokens(MULTIADS, TOKENIZER, 128, DEFECTS, "gear")
    assert tokens.shares.shape == (3, 80 + 2 * 48) == (3, len(tokens.ids))
    np.testing.assert_allclose(tokens.shares.sum(1), 1, rtol=1e-5)
    assert ((tokens.shares > 0).sum(0) == 1).all()
    first = TOKENIZER.encode("a photo of the gear with hole")
    row = np.flatnonzero(tokens.shares[1])[0]
    assert tokens.ids[row, 1 : tokens.end[row]].tolist() == first
    assert (tokens.ids[np.arange(len(tokens.ids)), tokens.end] == TOKENIZER.end).all()


def test_written_phrases_name_object_and_defect():
    normal, hole = written_phrases(("hole",), "gear")
    assert len(set(normal)) == len(normal) == 80
    assert len(set(hole)) == len(hole) == 48
    assert all("gear" in phrase for phrase in (*normal, *hole))
    assert all("hole" in phrase for phrase in hole)
    assert not any("{" in phrase for phrase in (*normal, *hole))


@pytest.mark.parametrize("config", [DAPO, MULTIADS], ids=["learnt", "written"])
@pytest.mark.parametrize(
    ("defects", "message"),
    [((), "no defect types"), (("hole", " "), "2 of 2 is empty"), (("a", "a"), "'a' stands twice")],
)
def test_words_that_make_no_vocabulary(config, defects, message):
    with pytest.raises(UserError, match=message):
        prompt_tokens(config, TOKENIZER, 77, defects, "object")


def test_a_prompt_that_is_too_long_names_it():
    with pytest.raises(UserError, match=r"reads 23 tokens .* 'hole anomaly object' has 24"):
        prompt_tokens(DAPO, TOKENIZER, 23, ("hole",), "object")
