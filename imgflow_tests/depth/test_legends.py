import io
from decimal import Decimal
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from imgflow.depth.colormaps import UnknownColormap, get_colormap
from imgflow.depth.legends import depth_legend, ticks_between
from imgflow.depth.readers.missing import MISSING_COLOR

AXIS, BAR = slice(72, 76), 100  # columns of the ticks of depth, and one within the bar


def drawn(depths, *, height, value_range=(0, 255), **options):
    legend = depth_legend(np.array(depths), "viridis", value_range, height=height, **options)
    picture = Image.open(io.BytesIO(legend))
    assert picture.format == "PNG"
    return np.asarray(picture.convert("RGB"))


def tick_rows(pixels):
    return np.flatnonzero((pixels[:, AXIS] < 100).all(axis=(1, 2))).tolist()


@settings(max_examples=300, deadline=None)
@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9), st.integers(2, 30))
def test_ticks_are_round_evenly_spaced_and_within_the_ends(low, span, most):
    high = low + span
    ticks = ticks_between(low, high, most)
    assert 2 <= len(ticks) <= max(most, 2)
    assert Decimal(low) <= Decimal(high)
    assert all(low <= float(tick) <= high for tick in ticks)
    steps = {b - a for a, b in pairwise(ticks)}
    assert len(steps) == 1
    if len(ticks) > 2:
        (step,) = steps
        assert step.normalize().as_tuple().digits in ((1,), (2,), (5,))
        assert all(tick % step == 0 for tick in ticks)


def test_ticks_of_extreme_and_of_equal_ends():
    assert ticks_between(5, 5, 3) == [5]
    assert len(ticks_between(-1.7e308, 1.7e308, 4)) >= 2
    assert [str(tick) for tick in ticks_between(0.1, 0.3, 9)] == [
        "0.10",
        "0.15",
        "0.20",
        "0.25",
        "0.30",
    ]


def test_ticks_of_depth_stand_at_their_rows():
    depths = [float(f"{9000.1 + i * 0.1:.1f}") for i in range(500)]
    pixels = drawn(depths, height=500)
    assert pixels.shape == (500, 184, 3)
    # 9010.0 is row 99 of the frame, and so on; 9050.0 the last.
    assert tick_rows(pixels) == [99, 199, 299, 399, 499]
    assert tick_rows(drawn(depths, height=250)) == [99, 199]


def test_a_gap_moves_the_ticks_with_the_rows():
    depths = np.concatenate([np.arange(0, 100.0), np.arange(1_000, 1_100.0)])
    pixels = drawn(depths, height=200)
    # Three ticks at most: 0, 500 and 1000. The gap is the border of rows 99 and 100.
    assert tick_rows(pixels)[0] == 0
    assert all(row in (0, 99, 100) for row in tick_rows(pixels))


def test_the_bar_runs_through_the_colours_from_the_bottom_up():
    pixels = drawn([1.0, 2.0], height=256)
    np.testing.assert_array_equal(pixels[::-1, BAR], get_colormap("viridis"))


def test_a_label_and_the_colour_of_holes_get_strips_of_their_own():
    plain = drawn([1.0, 2.0, 3.0], height=100)
    assert drawn([1.0, 2.0, 3.0], height=100, label="m").shape[0] == 122
    both = drawn([1.0, 2.0, 3.0], height=100, label="m", has_missing=True)
    assert both.shape[0] == 144
    np.testing.assert_array_equal(both[22:122], plain)
    assert both[130, BAR].tolist() == list(MISSING_COLOR)


@pytest.mark.parametrize("value_range", [(0, 0), (-1e38, 1e38), (0.1, 0.1000001), (-1e-9, 1e-9)])
@pytest.mark.parametrize("depths", [[5.0], [7.0, 7.0], [-1e300, 1e300], [0.0, 1e-12]])
def test_any_depths_and_values_have_a_legend(depths, value_range):
    assert drawn(depths, height=64, value_range=value_range).shape == (64, 184, 3)


def test_a_legend_that_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="depth legend"):
        drawn([], height=100)
    with pytest.raises(ValueError, match="depth legend"):
        drawn([1.0], height=63)
    with pytest.raises(UnknownColormap):
        depth_legend(np.array([1.0]), "jet", (0, 1), height=100)
