import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from imgflow.depth.colormaps import UnknownColormap, get_colormap
from imgflow.depth.frames import FRAME_FORMATS, FrameTooTall, color_indices, render_frame

RAMP = np.arange(256, dtype=np.float32).reshape(16, 16)


def decoded(frame, mode="RGB"):
    return np.asarray(Image.open(io.BytesIO(frame.data)).convert(mode))


@pytest.mark.parametrize("colormap", ["strata", "viridis", "gray", "magma_r"])
def test_a_png_frame_has_exactly_the_colours_of_the_map(colormap):
    frame = render_frame(RAMP, colormap, (0, 255), "png")
    assert (frame.media_type, frame.width, frame.height) == ("image/png", 16, 16)
    np.testing.assert_array_equal(
        decoded(frame), get_colormap(colormap)[np.arange(256)].reshape(16, 16, 3)
    )


@settings(max_examples=100, deadline=None)
@given(
    pixels=arrays(
        np.float32,
        st.tuples(st.integers(1, 9), st.integers(1, 9)),
        elements=st.floats(-1e6, 1e6, width=32),
    ),
    low=st.floats(-1e5, 1e5),
    span=st.floats(1e-3, 1e6),
)
def test_indices_are_the_rounded_share_of_the_range(pixels, low, span):
    high = low + span
    share = np.clip((pixels.astype(np.float64) - low) / (high - low), 0, 1) * 255
    found = color_indices(pixels, (low, high))
    assert found.dtype == np.uint8
    # Half a step, as scaling in another order may round a tie the other way.
    assert np.abs(found - share).max() <= 0.5 + 1e-6


def test_values_outside_the_range_take_the_outermost_colours():
    pixels = np.array([[-1e38, -1, 0, 255, 256, 3e38]], dtype=np.float32)
    assert color_indices(pixels, (0, 255)).tolist() == [[0, 0, 0, 255, 255, 255]]
    assert color_indices(pixels, (-3.4e38, 3.4e38))[0, 0] < 128
    assert color_indices(pixels, (0, 0)).tolist() == [[0, 0, 0, 255, 255, 255]]


def test_the_pixels_of_the_caller_are_left_alone():
    for value_range in [(0, 255), (10, 20)]:
        pixels = RAMP + np.float32(0.4)
        render_frame(pixels, "strata", value_range)
        np.testing.assert_array_equal(pixels, RAMP + np.float32(0.4))


@pytest.mark.parametrize(("format_", "distance"), [("jpeg", 12), ("webp", 12)])
@pytest.mark.parametrize("colormap", ["strata", "gray"])
def test_a_lossy_frame_is_close_to_the_colours(format_, distance, colormap):
    smooth = np.linspace(0, 255, 120 * 90, dtype=np.float32).reshape(120, 90)
    frame = render_frame(smooth, colormap, (0, 255), format_, quality=95)
    found = decoded(frame).astype(int)
    wanted = decoded(render_frame(smooth, colormap, (0, 255), "png")).astype(int)
    assert found.shape == (120, 90, 3)
    assert np.abs(found - wanted).mean() < distance / 4
    assert frame.media_type == f"image/{format_}"


def test_quality_changes_the_size_of_a_jpeg():
    noise = np.random.default_rng(0).uniform(0, 255, (100, 150)).astype(np.float32)
    sizes = [len(render_frame(noise, "strata", (0, 255), quality=q).data) for q in (20, 60, 95)]
    assert sizes == sorted(sizes)
    assert sizes[0] < sizes[2] / 2


def test_npy_holds_the_very_numbers():
    pixels = RAMP[::2] * np.float32(0.1)
    frame = render_frame(pixels, "strata", (0, 1), "npy")
    back = np.load(io.BytesIO(frame.data), allow_pickle=False)
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back, pixels)
    assert (frame.width, frame.height) == (16, 8)


@pytest.mark.parametrize(("format_", "limit"), [("jpeg", 65_500), ("webp", 16_383)])
def test_a_frame_at_the_limit_of_its_format_is_drawn_and_one_above_is_refused(format_, limit):
    pixels = np.zeros((limit + 1, 1), dtype=np.float32)
    frame = render_frame(pixels[:limit], "gray", (0, 255), format_)
    assert decoded(frame).shape[:2] == (limit, 1)
    with pytest.raises(FrameTooTall, match=str(limit)):
        render_frame(pixels, "gray", (0, 255), format_)


def test_png_and_npy_have_no_limit():
    pixels = np.zeros((70_000, 2), dtype=np.float32)
    for format_ in ("png", "npy"):
        assert render_frame(pixels, "gray", (0, 255), format_).height == 70_000


def test_one_pixel_is_a_frame_in_every_format():
    for format_ in FRAME_FORMATS:
        frame = render_frame(np.ones((1, 1), dtype=np.float32), "strata", (0, 255), format_)
        assert (frame.width, frame.height) == (1, 1)


def test_what_cannot_be_drawn_is_refused():
    for wrong in [(1, 0), (0, float("inf")), (float("nan"), 1)]:
        with pytest.raises(ValueError, match="range"):
            render_frame(RAMP, "strata", wrong)
    with pytest.raises(ValueError, match="at least one"):
        render_frame(RAMP[:0], "strata", (0, 255))
    with pytest.raises(ValueError, match="gif"):
        render_frame(RAMP, "strata", (0, 255), "gif")
    with pytest.raises(ValueError, match="quality 0"):
        render_frame(RAMP, "strata", (0, 255), quality=0)
    with pytest.raises(UnknownColormap):
        render_frame(RAMP, "jet", (0, 255))
