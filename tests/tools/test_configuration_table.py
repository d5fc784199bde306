"""The table of settings is current and complete."""

import dataclasses
import typing

import pytest

from promptmad_jax.config import Config
from tools.make_configuration_table import PATH, document, meanings

GROUPS = [kind for kind in typing.get_type_hints(Config).values() if dataclasses.is_dataclass(kind)]


def test_the_document_is_current():
    assert PATH.read_text() == document(), "run python -m tools.make_configuration_table"


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.__name__)
def test_every_setting_has_a_meaning_and_every_meaning_a_setting(group):
    assert list(meanings(group)) == [field.name for field in dataclasses.fields(group)]
