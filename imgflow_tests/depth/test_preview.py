import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from imgflow.depth.colormaps import get_colormap
from imgflow.depth.preview import PreviewBuilder


def built(pixels, size, step):
    builder = PreviewBuilder(size)
    for start in range(0, len(pixels), step):
        builder.add(pixels[start : start + step])
    return builder


def area_means(pixels, height):
    """Means over `height` equal stretches of the rows, parts of rows counted by their share."""
    edges = np.linspace(0, len(pixels), height + 1)
    sums = np.concatenate([np.zeros((1, pixels.shape[1])), pixels.cumsum(axis=0, dtype=float)])
    whole = np.minimum(edges.astype(int), len(pixels) - 1)
    at_edges = sums[whole] + (edges - whole)[:, None] * pixels[whole]
    return np.diff(at_edges, axis=0) / (len(pixels) / height)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 900),
    width=st.integers(1, 12),
    max_height=st.integers(1, 50),
    step=st.integers(1, 300),
)
def test_a_preview_has_the_size_and_the_range_of_its_image(rows, width, max_height, step):
    pixels = np.random.default_rng(rows).uniform(13, 237, (rows, width)).astype(np.float32)
    means = built(pixels, (8, max_height), step).means()
    assert means.shape == (min(rows, max_height), min(width, 8))
    assert means.dtype == np.float32
    assert means.min() >= pixels.min() - 1e-3
    assert means.max() <= pixels.max() + 1e-3


@settings(max_examples=40, deadline=None)
@given(factor=st.sampled_from([1, 2, 4, 8, 32]), step=st.integers(1, 300))
def test_bins_of_whole_rows_are_exact_means_however_the_rows_come(factor, step):
    pixels = np.random.default_rng(3).uniform(0, 255, (16 * factor, 5)).astype(np.float32)
    means = built(pixels, (5, 16), step).means()
    np.testing.assert_allclose(means, area_means(pixels, 16), rtol=0, atol=1e-4)


@pytest.mark.parametrize("rows", [1_025, 3_000, 5_460, 100_001])
def test_a_long_image_is_averaged_evenly_from_its_first_row_to_its_last(rows):
    ramp = np.linspace(0, 255, rows, dtype=np.float32)[:, None].repeat(3, axis=1)
    means = built(ramp, (512, 1_024), 512).means()
    assert means.shape == (1_024, 3)
    np.testing.assert_allclose(means, area_means(ramp, 1_024), rtol=0, atol=0.25)


@pytest.mark.parametrize(("rows", "height"), [(17, 8), (33, 8), (65, 16), (41, 16)])
def test_the_last_bin_counts_by_the_rows_in_it(rows, height):
    ramp = np.linspace(0, 255, rows, dtype=np.float32)[:, None]
    means = built(ramp, (1, height), 5).means()
    # A ramp is its own mirror image, and so is its preview, up to a row's step.
    np.testing.assert_allclose(means, 255 - means[::-1], rtol=0, atol=255 / (rows - 1) + 1e-3)


def test_a_short_image_is_shown_row_by_row_with_the_colours_of_the_map():
    pixels = np.arange(256, dtype=np.float32).reshape(64, 4)
    frame = built(pixels, (512, 1_024), 10).render("strata", (0, 255), "png")
    assert (frame.media_type, frame.width, frame.height) == ("image/png", 4, 64)
    found = np.asarray(Image.open(io.BytesIO(frame.data)).convert("RGB"))
    np.testing.assert_array_equal(found, get_colormap("strata")[pixels.astype(int)])


def test_a_jpeg_preview_is_bounded_in_both_directions():
    pixels = np.full((5_000, 900), 100, dtype=np.float32)
    frame = built(pixels, (512, 1_024), 512).render("gray", (0, 255))
    picture = Image.open(io.BytesIO(frame.data))
    assert (picture.format, picture.size) == ("JPEG", (512, 1_024))
    assert abs(int(np.asarray(picture.convert("L")).mean()) - 100) <= 1


def test_a_preview_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one row"):
        PreviewBuilder((5, 5)).means()
