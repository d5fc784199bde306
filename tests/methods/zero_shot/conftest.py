"""A small synthetic data set of two products, for all tests here."""

import pytest

from tests.running import run


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data")
    run(
        "prepare",
        "--dataset=synthetic_mvtec",
        f"--data_dir={directory}",
        "--image_size=64",
        "--train_per_class=1",
        "--test_good_per_class=3",
        "--test_per_defect=2",
        "--class_names=wood_board,hex_bolt",
    )
    return directory
