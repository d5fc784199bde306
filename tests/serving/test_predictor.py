"""Class names as people ask for them."""

import pytest

from promptmad_jax.runtime.errors import UserError
from promptmad_jax.serving.predictor import ClassPredictor


@pytest.fixture
def predictor():
    return ClassPredictor(None, ("auto", "bracket", "Gehäuse"), None, "calibrated", 16)


@pytest.mark.parametrize("name", ["bracket", "Bracket", "class:auto", "nearest", "geha\u0308use"])
def test_names_that_are_understood(predictor, name):
    predictor.check_class(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("auto", "has a class called 'auto', which is also .* give class:auto or nearest"),
        ("braket", "no class 'braket'; it has auto, bracket, Gehäuse .did you mean bracket"),
        ("", "no class ''"),
    ],
)
def test_others_are_refused_with_the_way_out(predictor, name, message):
    with pytest.raises(UserError, match=message):
        predictor.check_class(name)
