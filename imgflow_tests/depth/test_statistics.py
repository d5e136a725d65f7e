import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from imgflow.depth.statistics import PERCENTILES, statistics


@settings(max_examples=60, deadline=None)
@given(
    arrays(
        np.float32,
        st.tuples(st.integers(1, 20), st.integers(1, 20)),
        elements=st.floats(-1000, 1000, width=32),
    ),
    st.integers(1, 80),
)
def test_statistics_are_those_of_numpy_in_float64(pixels, bins):
    found = statistics(pixels, bins=bins)
    values = pixels.astype(np.float64)
    assert (found.count, found.min, found.max) == (values.size, values.min(), values.max())
    assert found.mean == pytest.approx(values.mean(), abs=1e-9)
    assert found.std == pytest.approx(values.std(), abs=1e-9)
    assert list(found.percentiles) == list(PERCENTILES)
    assert found.percentiles[50] == pytest.approx(np.median(values), abs=1e-9)
    assert len(found.histogram) == bins
    assert len(found.bin_edges) == bins + 1
    assert sum(found.histogram) == values.size


def test_pixels_outside_the_histogram_count_in_its_outermost_bins():
    pixels = np.array([[-5, 0, 1, 2, 3, 99]], dtype=np.float32)
    found = statistics(pixels, bins=4, value_range=(0, 4))
    assert found.histogram == (2, 1, 1, 2)
    assert found.bin_edges == (0, 1, 2, 3, 4)
    assert (found.min, found.max) == (-5, 99)


def test_statistics_of_nothing_are_refused():
    with pytest.raises(ValueError, match="no pixel"):
        statistics(np.empty((0, 5), dtype=np.float32))
