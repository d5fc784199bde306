"""Heat colours and overlays on a fixed scale."""

import numpy as np
import pytest

from promptmad_jax.reporting.overlay import colorize, diverging, overlay


def test_ends_of_the_scale():
    colours = colorize(np.array([[-1.0, 0.0, 2.0, 5.0]]), 0.0, 2.0)
    assert colours.dtype == np.uint8
    assert colours[0].tolist() == [[0, 0, 4], [0, 0, 4], [252, 255, 164], [252, 255, 164]]


def test_colours_stay_close_to_the_published_map():
    colormaps = pytest.importorskip("matplotlib").colormaps
    values = np.linspace(0, 1, 256)[None]
    expected = colormaps["inferno"](values)[..., :3] * 255
    assert np.abs(colorize(values, 0, 1) - expected).max() < 2


def test_overlay_keeps_the_image_where_nothing_was_found():
    image = np.full((1, 2, 3), 100, np.uint8)
    result = overlay(image, np.array([[0.2, 1.0]]), 0.2, 1.0)
    assert result[0, 0].tolist() == [100, 100, 100]
    assert result[0, 1].tolist() == [214, 216, 148]


def test_the_scale_is_the_callers():
    image = np.full((1, 1, 3), 100, np.uint8)
    values = np.array([[0.5]])
    assert (overlay(image, values, 0.0, 1.0) != overlay(image, values, 0.0, 9.0)).any()
    with pytest.raises(ValueError, match="scale is empty"):
        colorize(values, 1.0, 1.0)


def test_signed_maps_are_black_at_zero():
    colours = diverging(np.array([[0.0, 1.0, -1.0, 0.5, 9.0]]), 1.0)[0]
    assert colours[0].tolist() == [0, 0, 0]
    assert colours[1].argmax() == 0 and colours[2].argmax() == 2
    np.testing.assert_allclose(colours[3], colours[1] / 2, atol=1)
    assert (colours[4] == colours[1]).all()
