"""Fixtures of the tests of data."""

import pytest
import tensorflow_datasets as tfds

from tests.data.image_trees import write_class


@pytest.fixture(autouse=True)
def _no_bars():
    tfds.disable_progress_bar()


@pytest.fixture
def tree(tmp_path):
    write_class(tmp_path / "images", "widget")
    return tmp_path / "images"
