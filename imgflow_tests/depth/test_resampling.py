import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.transform import resize

from imgflow.depth import resampling
from imgflow.depth.resampling import resize_width


def picture(rows, columns, seed=0, low=13.0, high=237.0):
    rng = np.random.default_rng(seed)
    return rng.uniform(low, high, (rows, columns)).astype(np.float32)


def whole_image(pixels, width, order, anti_aliasing, *, clip):
    return resize(
        pixels.astype(np.float64),
        (len(pixels), width),
        order=order,
        anti_aliasing=anti_aliasing,
        preserve_range=True,
        clip=clip,
    )


@settings(max_examples=120, deadline=None)
@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 90),
    width=st.integers(1, 60),
    order=st.integers(0, 5),
    anti_aliasing=st.booleans(),
    step=st.integers(1, 40),
    seed=st.integers(0, 10),
)
def test_chunks_are_what_scikit_image_makes_of_the_whole_image(
    *, rows, columns, width, order, anti_aliasing, step, seed
):
    pixels = picture(rows, columns, seed)
    expected = whole_image(pixels, width, order, anti_aliasing, clip=False)
    parts = [
        resize_width(pixels[start : start + step], width, order=order, anti_aliasing=anti_aliasing)
        for start in range(0, rows, step)
    ]
    found = np.concatenate(parts)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * 224)


@pytest.mark.parametrize("order", range(6))
def test_a_row_does_not_depend_on_its_neighbours_at_any_order(order):
    pixels = picture(50, 200)
    changed = pixels.copy()
    changed[np.arange(50) != 20] = picture(49, 200, seed=9, low=-1e4, high=1e4)
    kept = resize_width(pixels, 150, order=order)[20]
    np.testing.assert_array_equal(resize_width(changed, 150, order=order)[20], kept)


def test_wide_rows_past_the_matrix_give_the_same(monkeypatch):
    pixels = picture(9, 300)
    by_matrix = resize_width(pixels, 150)
    monkeypatch.setattr(resampling, "_WIDEST_MATRIX", 100)
    np.testing.assert_allclose(resize_width(pixels, 150), by_matrix, rtol=0, atol=1e-5)


def test_a_row_of_one_value_keeps_it_exactly():
    pixels = np.full((3, 200), 224, dtype=np.float32)
    np.testing.assert_array_equal(resize_width(pixels, 150), np.full((3, 150), 224))


def test_rows_of_the_right_width_are_returned_as_they_are():
    pixels = picture(5, 150)
    assert resize_width(pixels, 150, order=3) is pixels


def test_the_largest_float32_does_not_become_infinite():
    top = np.finfo(np.float32).max
    pixels = np.full((2, 200), top, dtype=np.float32)
    pixels[0, :100] = -top
    for order in range(6):
        resized = resize_width(pixels, 470, order=order, anti_aliasing=False)
        assert np.isfinite(resized).all()
        assert resized.max() == top


def test_no_rows_become_no_rows():
    assert resize_width(np.empty((0, 200), dtype=np.float32), 150).shape == (0, 150)
