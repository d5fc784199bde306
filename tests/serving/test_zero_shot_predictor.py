"""Words from the command line, and the texts' vectors that are kept."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
from etils import epath

from promptmad_jax.models.zero_shot.prompts import PromptTokens
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.serving.zero_shot_predictor import cached_states, parse_defects

TOKENS = PromptTokens(np.arange(6).reshape(2, 3), np.asarray([2, 2]), None)


@dataclass
class Maker:
    """Counts how often texts are encoded."""

    tower: float = 1.0
    calls: list = field(default_factory=list)
    detector: object = field(default_factory=lambda: SimpleNamespace(config="c", clip="d"))

    @property
    def frozen(self):
        return SimpleNamespace(text={"w": np.float32(self.tower)})

    def states(self, params, tokens):
        self.calls.append(tokens)
        return np.full((2, 4), self.tower, np.float32)


def test_words():
    assert parse_defects("scratch, missing  cap,dent") == ("scratch", "missing cap", "dent")
    for text, message in (("", "commas"), ("a,,b", "commas"), ("a, a", "a defect is repeated")):
        with pytest.raises(UserError, match=message):
            parse_defects(text)


def test_texts_are_encoded_once(tmp_path):
    maker, cache = Maker(), epath.Path(tmp_path / "text_cache")
    first = cached_states(maker, {"adapters": 1}, TOKENS, cache)
    assert np.array_equal(cached_states(maker, {"adapters": 2}, TOKENS, cache), first)
    assert len(maker.calls) == 1
    cached_states(maker, {"adapters": 1}, TOKENS, None)
    assert len(maker.calls) == 2 and len(list(cache.iterdir())) == 1


@pytest.mark.parametrize("changed", ["tokens", "prompts", "tower", "settings"])
def test_what_the_vectors_depend_on(tmp_path, changed):
    cache, params, tokens, maker = epath.Path(tmp_path), {}, TOKENS, Maker()
    cached_states(maker, params, tokens, cache)
    if changed == "tokens":
        tokens = TOKENS._replace(ids=TOKENS.ids + 1)
    elif changed == "prompts":
        params = {"text": {"normal": np.ones(3)}}
    else:
        detector = SimpleNamespace(config="other" if changed == "settings" else "c", clip="d")
        maker = Maker(2.0 if changed == "tower" else 1.0, maker.calls, detector)
    cached_states(maker, params, tokens, cache)
    assert len(maker.calls) == 2


def test_a_damaged_file_is_told_and_made_again(tmp_path, capsys):
    maker, cache = Maker(), epath.Path(tmp_path)
    cached_states(maker, {}, TOKENS, cache)
    (file,) = cache.iterdir()
    file.write_bytes(b"\x93NUMPY broken")
    assert cached_states(maker, {}, TOKENS, cache).shape == (2, 4)
    assert "damaged cache of text states" in "".join(capsys.readouterr())
    assert len(maker.calls) == 2
