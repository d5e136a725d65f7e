import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.transform import resize

from imgflow.depth.depth_recipe import CHUNK_ROWS, DepthRecipe
from imgflow.depth.ordering import OutOfOrder, ResizedDepth
from imgflow.depth.readers.rows import DepthLimits
from imgflow.errors import Rejected
from imgflow.service.samples import write_sample_depth_csv
from imgflow_tests.depth.corpus import corpus_file
from imgflow_tests.depth.tables import cut, table_text

TINY_BLOCKS = DepthLimits(block_bytes=4_096)


def image_of(data, tmp_path=None, limits=None, **recipe):
    return ResizedDepth(lambda: cut(data, 3_000), "a.csv", DepthRecipe(**recipe), limits, tmp_path)


def collected(image):
    """Chunks as a consumer takes them; also whether it had to start again."""
    restarted = False
    try:
        chunks = list(image)
    except OutOfOrder:
        restarted = True
        chunks = list(image)
    for number, chunk in enumerate(chunks):
        assert chunk.index == number
        assert chunk.first_row == number * CHUNK_ROWS
        is_last = number == len(chunks) - 1
        assert len(chunk.depths) == CHUNK_ROWS or (is_last and 0 < len(chunk.depths) < CHUNK_ROWS)
        assert chunk.depths.dtype == np.float64
        assert chunk.pixels.dtype == np.float32
        assert chunk.pixels.flags.c_contiguous
    depths = np.concatenate([chunk.depths for chunk in chunks])
    return depths, np.concatenate([chunk.pixels for chunk in chunks]), restarted


def expected(depths, pixels, *, width=150, order=1, anti_aliasing=True):
    """The whole image at once: sorted, then resized by scikit-image."""
    by_depth = np.argsort(depths, kind="stable")
    image = pixels[by_depth].astype(np.float64)
    resized = resize(
        image,
        (len(image), width),
        order=order,
        anti_aliasing=anti_aliasing,
        preserve_range=True,
    )
    return depths[by_depth], resized


def random_image(rows, columns=20, seed=0):
    rng = np.random.default_rng(seed)
    return np.round(9000.1 + np.arange(rows) * 0.1, 1), rng.integers(0, 256, (rows, columns))


def test_the_full_size_image_equals_numpy_and_scikit_image_on_the_whole():
    file = io.BytesIO()
    write_sample_depth_csv(file)
    lines = file.getvalue().decode().splitlines()[1:-1]
    table = np.array([[float(cell) for cell in line.split(",")] for line in lines])
    image = image_of(file.getvalue())
    depths, pixels, restarted = collected(image)
    assert not restarted
    np.testing.assert_array_equal(depths, table[:, 0])
    np.testing.assert_allclose(pixels, expected(table[:, 0], table[:, 1:])[1], rtol=0, atol=1e-5)
    facts = image.facts
    assert (facts.rows, facts.columns, facts.width) == (5_460, 200, 150)
    assert (facts.depth_min, facts.depth_max) == (9000.1, 9546.0)
    assert (facts.value_min, facts.value_max, facts.values_are_whole) == (13, 237, True)
    assert facts.value_range == (0, 255)
    assert (facts.empty_rows_dropped, facts.duplicates, facts.gaps) == (1, 0, 0)
    assert (facts.was_sorted, facts.step_median) == ("ascending", 0.1)
    assert facts.notes == ("Entirely empty rows, dropped: 1, the first in line 5462.",)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 1_300),
    columns=st.integers(1, 12),
    width=st.integers(1, 12),
    order=st.integers(0, 5),
    arrangement=st.sampled_from(["ascending", "descending", "shuffled", "late", "equal"]),
    seed=st.integers(0, 5),
)
def test_any_order_of_rows_comes_out_sorted_by_depth_and_ties_by_place(
    *, rows, columns, width, order, arrangement, seed
):
    rng = np.random.default_rng(seed)
    depths, pixels = random_image(rows, columns, seed)
    if arrangement == "descending":
        depths = depths[::-1]
    elif arrangement == "shuffled":
        depths = rng.choice(depths, rows)
    elif arrangement == "late":
        depths = np.append(depths[1:], depths[0])
    elif arrangement == "equal":
        depths = np.full(rows, 9000.1)
    image = image_of(table_text(depths, pixels), limits=TINY_BLOCKS, width=width, order=order)
    found_depths, found_pixels, _ = collected(image)
    wanted_depths, wanted_pixels = expected(depths, pixels, width=width, order=order)
    np.testing.assert_array_equal(found_depths, wanted_depths)
    np.testing.assert_allclose(found_pixels, wanted_pixels, rtol=0, atol=2.6e-4)
    assert image.facts.rows == rows
    assert image.facts.duplicates == rows - len(np.unique(depths))


def test_an_ascending_file_streams_and_touches_no_disk(tmp_path):
    depths, pixels = random_image(2_000)
    opened = []

    def stream():
        for part in cut(table_text(depths, pixels), 3_000):
            opened.append(len(part))
            yield part

    missing = tmp_path / "missing"
    chunks = iter(ResizedDepth(stream, "a.csv", DepthRecipe(), TINY_BLOCKS, missing))
    next(chunks)
    assert sum(opened) < len(table_text(depths, pixels)) / 2
    assert len(list(chunks)) == -(-2_000 // CHUNK_ROWS) - 1


def test_a_descending_file_is_sorted_without_a_restart_and_leaves_no_file_behind(tmp_path):
    depths, pixels = random_image(1_500)
    image = image_of(table_text(depths[::-1], pixels[::-1]), tmp_path, TINY_BLOCKS)
    found_depths, found_pixels, restarted = collected(image)
    assert not restarted
    np.testing.assert_array_equal(found_depths, depths)
    np.testing.assert_allclose(found_pixels, expected(depths, pixels)[1], rtol=0, atol=1e-4)
    assert image.facts.was_sorted == "descending"
    assert list(tmp_path.iterdir()) == []


def test_late_disorder_asks_for_one_restart_and_then_comes_out_sorted(tmp_path):
    depths, pixels = random_image(3_000)
    shuffled = depths.copy()
    shuffled[[2_500, 2_600]] = shuffled[[2_600, 2_500]]
    image = image_of(table_text(shuffled, pixels), tmp_path, TINY_BLOCKS)
    handed_out = []
    with pytest.raises(OutOfOrder):
        handed_out.extend(image)
    assert handed_out
    with pytest.raises(RuntimeError):
        _ = image.facts
    found_depths, _, restarted = collected(image)
    assert not restarted
    np.testing.assert_array_equal(found_depths, depths)
    assert image.facts.was_sorted == "unsorted"


def test_disorder_between_two_blocks_is_seen_as_well():
    depths, pixels = random_image(120)
    for start_again_at in range(1, 120):
        rows = np.append(depths[:start_again_at], depths[: 120 - start_again_at])
        image = image_of(table_text(rows, pixels), limits=DepthLimits(block_bytes=1_024))
        found, _, _ = collected(image)
        np.testing.assert_array_equal(found, np.sort(rows))


def test_rows_of_equal_depth_and_of_equal_pixels_are_all_kept():
    depths = np.array([1.0, 1.0, 2.0, 2.0, 2.0, 3.0])
    pixels = np.array([[1, 1], [1, 1], [2, 2], [9, 9], [2, 2], [2, 2]])
    image = image_of(table_text(depths, pixels), width=2)
    found_depths, found_pixels, _ = collected(image)
    assert found_depths.tolist() == depths.tolist()
    assert found_pixels.tolist() == pixels.tolist()
    assert image.facts.duplicates == 3
    assert image.facts.step_median == 1.0


@pytest.mark.parametrize(
    ("name", "order", "duplicates", "gaps", "rows"),
    [
        ("depth-small.csv", "ascending", 0, 0, 40),
        ("depth-shuffled.csv", "unsorted", 0, 0, 40),
        ("depth-duplicate.csv", "ascending", 1, 0, 41),
        ("depth-duplicate-conflict.csv", "ascending", 1, 0, 41),
        ("depth-gap.csv", "ascending", 0, 1, 30),
    ],
)
def test_the_facts_of_the_corpus(name, order, duplicates, gaps, rows):
    data = corpus_file(name).read_bytes()
    image = image_of(data)
    collected(image)
    facts = image.facts
    assert (facts.was_sorted, facts.duplicates, facts.gaps, facts.rows) == (
        order,
        duplicates,
        gaps,
        rows,
    )
    assert facts.step_median == 0.1
    assert bool(facts.notes) == (name != "depth-small.csv")


@pytest.mark.parametrize(
    ("name", "low", "high", "whole"),
    [
        ("bad-pixel-256.csv", None, 256, True),
        ("bad-pixel-negative.csv", -1, None, True),
        ("bad-pixel-fraction.csv", None, None, False),
    ],
)
def test_pixels_outside_eight_bits_are_data_and_reported(name, low, high, whole):
    image = image_of(corpus_file(name).read_bytes())
    collected(image)
    facts = image.facts
    assert facts.values_are_whole is whole
    if low is not None:
        assert facts.value_min == low
    if high is not None:
        assert facts.value_max == high
    assert facts.value_range == (facts.value_min, facts.value_max)


def test_a_spline_that_overshoots_is_clipped_to_the_range_of_the_whole_image():
    depths, pixels = random_image(700, 40)
    pixels = np.where(pixels > 128, 255, 0)
    found = collected(image_of(table_text(depths, pixels), limits=TINY_BLOCKS, width=90, order=3))[
        1
    ]
    assert found.min() == 0
    assert found.max() == 255
    wanted = expected(depths, pixels, width=90, order=3)[1]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2.6e-4)


def test_a_bad_row_late_in_the_file_rejects_it_after_some_chunks():
    depths, pixels = random_image(3_000)
    data = table_text(depths, pixels) + b"10000,1\n"
    with pytest.raises(Rejected, match="line 3002"):
        list(image_of(data, limits=TINY_BLOCKS))


@pytest.mark.parametrize(
    ("text", "lines", "words"),
    [
        ("1,5\n2,5\n", {}, ""),
        ("1,5\n,\n2,5\n\n3,5\n", {"empty_row": 3}, "dropped: 2, the first in line 3"),
        (",\n1,5\n2,5\n", {"empty_row": 2}, "dropped: 1, the first in line 2"),
        ("1,5.25\n2,5e0\n,\n\n", {"empty_row": 4}, "dropped: 2, the first in line 4"),
        ("1,5\n,\n3,5\n2,5\n", {"empty_row": 3, "order": 5}, "from line 5 on"),
        ('1,5\n"",""\n2,5\n', {"empty_row": 3}, "dropped: 1, the first in line 3"),
        ("3,5\n2,5\n1,5\n", {"order": 3}, "descend"),
        ("1,5\n,\n2,5\n2,6\n", {"empty_row": 3, "duplicate": 5}, "kept: 1, the first in line 5"),
        ("2,5\n1,5\n2,6\n", {"order": 3}, "kept: 1."),
    ],
)
@pytest.mark.parametrize("limits", [None, DepthLimits(block_bytes=10)])
def test_facts_name_the_first_line_of_each_irregularity(text, lines, words, limits):
    image = image_of(b"depth,a\n" + text.encode(), limits=limits, width=1)
    collected(image)
    assert image.facts.first_lines == lines
    assert words in " ".join(image.facts.notes)
