import io
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage.transform import resize

from imgflow.depth.colormaps import COLORMAPS, get_colormap
from imgflow.depth.depth_recipe import DepthRecipe
from imgflow.depth.frames import render_frame
from imgflow.depth.ordering import ResizedDepth
from imgflow.depth.preview import PreviewBuilder
from imgflow.depth.readers.missing import MISSING_COLOR
from imgflow.depth.readers.rows import DepthLimits
from imgflow.depth.resampling import resize_width
from imgflow.depth.statistics import NoPixels, statistics
from imgflow.errors import Rejected
from imgflow_tests.depth.tables import cut, table_text, whole
from imgflow_tests.depth.test_colormaps import as_seen_with, lab

NAN = np.nan


def with_holes(rows, columns, *, share=0.3, seed=0):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (rows, columns)).astype(np.float32)
    pixels[rng.random(pixels.shape) < share] = NAN
    return pixels


def oracle(pixels, width, order, *, anti_aliasing=True):
    """The whole image by scikit-image: zeros for holes, over the mask; and the mask itself."""
    present = np.isfinite(pixels).astype(np.float64)
    options = {
        "order": order,
        "anti_aliasing": anti_aliasing,
        "preserve_range": True,
        "clip": False,
    }
    shape = (len(pixels), width)
    values = resize(np.nan_to_num(pixels).astype(np.float64), shape, **options)
    share = resize(present, shape, **options)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(share >= 0.5 - 1e-9, values / share, NAN)


def spelled(value):
    return "" if np.isnan(value) else str(int(value))


@pytest.mark.parametrize(
    "hole", ["", "nan", "NaN", "NAN", " ", "nAn", '""', "-nan", '"NaN"', " nan "]
)
@pytest.mark.parametrize("value", ["5", "5.25", "5e0", '"5"', "-5"])
def test_an_empty_cell_or_nan_is_a_missing_pixel(hole, value):
    text = f"depth,a,b\n1,{hole},{value}\n2,{value},{hole}\n3,{hole},{hole}\n4,{value},{value}\n"
    number = float(value.strip('"'))
    for part, limits in ((1, None), (1000, DepthLimits(block_bytes=30))):
        depths, pixels = whole(text.encode(), part=part, limits=limits)
        assert depths.tolist() == [1, 2, 3, 4]
        wanted = [[NAN, number], [number, NAN], [NAN, NAN], [number, number]]
        np.testing.assert_array_equal(pixels, np.array(wanted, np.float32))


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 60),
    columns=st.integers(1, 9),
    share=st.sampled_from([0.02, 0.5, 0.95]),
    separator=st.sampled_from([",", ";", "\t"]),
    block=st.sampled_from([200, 100_000]),
    seed=st.integers(0, 99),
)
def test_holes_are_where_the_file_has_them_however_it_is_cut(
    *, rows, columns, share, separator, block, seed
):
    pixels = with_holes(rows, columns, share=share, seed=seed)
    data = table_text(np.arange(rows), pixels, spell=spelled, separator=separator)
    depths, found = whole(data, part=77, limits=DepthLimits(block_bytes=block))
    assert depths.tolist() == list(range(rows))
    np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("1,2,\n2,3\n", "ragged_row"),
        ("1,,2,3\n2,3,4\n", "ragged_row"),
        ("1,,2,3\n2,3\n", "ragged_row"),
        ("1,,\n,2,\n", "empty_depth"),
        ("nan,,2\n", "empty_depth"),
        ("1,,inf\n", "infinite_value"),
        ("1,,n/a\n", "not_a_number"),
        ("1,,NA\n", "not_a_number"),
        ("1,,null\n", "not_a_number"),
        ("1,,True\n", "not_a_number"),
        ("1,2,3\n2,3,", "truncated"),
        ("1,2,3\n2,, ", "truncated"),
    ],
)
def test_a_hole_excuses_nothing_else(text, code):
    with pytest.raises(Rejected) as caught:
        whole(b"depth,a,b\n" + text.encode())
    assert caught.value.code == code


def test_holes_of_tables_and_pictures_are_kept_as_well():
    pixels = with_holes(30, 5)
    table, picture = io.BytesIO(), io.BytesIO()
    np.save(table, np.column_stack([np.arange(30), pixels]))
    Image.fromarray(pixels).save(picture, "TIFF")
    for name, file in (("a.npy", table), ("a.depth.tif", picture)):
        np.testing.assert_array_equal(whole(file.getvalue(), name=name)[1], pixels)


@settings(max_examples=150, deadline=None)
@given(
    rows=st.integers(1, 12),
    columns=st.integers(1, 60),
    width=st.integers(1, 60),
    order=st.integers(0, 5),
    anti_aliasing=st.booleans(),
    share=st.sampled_from([0.01, 0.2, 0.6, 1]),
    step=st.integers(1, 12),
    seed=st.integers(0, 20),
)
def test_resizing_weighs_present_pixels_only_as_scikit_image_does_on_the_whole_image(
    *, rows, columns, width, order, anti_aliasing, share, step, seed
):
    pixels = with_holes(rows, columns, share=share, seed=seed)
    found = np.concatenate(
        [
            resize_width(pixels[i : i + step], width, order=order, anti_aliasing=anti_aliasing)
            for i in range(0, rows, step)
        ]
    )
    if columns == width:
        wanted = pixels
    else:
        wanted = oracle(pixels, width, order, anti_aliasing=anti_aliasing)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6 * 255 * 4)


def test_a_hole_spreads_no_further_than_half_a_kernel_and_shrinks_no_value():
    pixels = np.full((1, 200), 100, np.float32)
    pixels[0, 60:80] = NAN
    found = resize_width(pixels, 150)[0]
    np.testing.assert_allclose(found[np.isfinite(found)], 100, rtol=1e-6)
    assert np.flatnonzero(np.isnan(found)).tolist() == list(range(45, 60))
    lone = np.full((1, 200), 7, np.float32)
    lone[0, 100] = NAN
    assert np.isnan(resize_width(lone, 150)).sum() <= 1
    assert np.isnan(resize_width(lone, 400)).sum() == 2


def test_rows_without_holes_are_what_they_are_beside_rows_with_some():
    pixels = with_holes(40, 200, share=0.1)
    pixels[::2] = np.arange(200)
    np.testing.assert_array_equal(resize_width(pixels, 150)[::2], resize_width(pixels[::2], 150))


def image_of(pixels, **recipe):
    data = table_text(np.arange(len(pixels)), pixels, spell=spelled)
    return ResizedDepth(lambda: cut(data, 500), "a.csv", DepthRecipe(**recipe))


@pytest.mark.parametrize("order", [1, 3])
def test_an_image_with_holes_keeps_its_range_and_says_what_is_missing(order):
    pixels = with_holes(700, 20, share=0)
    pixels[5, 3:9] = NAN
    pixels[400] = NAN
    image = image_of(pixels, width=12, order=order)
    found = np.concatenate([chunk.pixels for chunk in image])
    wanted = oracle(pixels, 12, order)
    np.testing.assert_allclose(found, np.clip(wanted, 0, 255), rtol=0, atol=2.6e-4)
    facts = image.facts
    assert (facts.missing_pixels, facts.rows_with_missing) == (26, 2)
    assert (facts.missing_lines, facts.first_lines) == ((7, 402), {"missing_pixel": 7})
    assert (facts.value_min, facts.value_max, facts.values_are_whole) == (0, 255, True)
    assert facts.notes == ("Missing pixels, kept as holes: 26 in 2 rows, in lines 7, 402.",)


def test_only_the_first_ten_lines_with_holes_are_named():
    image = image_of(with_holes(2_000, 9, share=0.5), width=4)
    list(image)
    assert len(image.facts.missing_lines) == 10
    assert image.facts.notes[0].endswith(" ….")
    assert json.dumps(image.facts.missing_lines)


def test_an_image_of_nothing_but_holes_is_rejected():
    with pytest.raises(Rejected, match="every pixel of the 3 rows is missing") as caught:
        list(image_of(np.full((3, 4), NAN)))
    assert caught.value.code == "no_pixels"


@pytest.mark.parametrize("colormap", ["strata", "gray", "viridis_r"])
@pytest.mark.parametrize("value_range", [(0, 255), (-3, 300.5)])
def test_holes_are_transparent_in_png_and_all_other_pixels_as_without_them(colormap, value_range):
    pixels = with_holes(20, 30)
    frame = render_frame(pixels, colormap, value_range, "png")
    found = np.asarray(Image.open(io.BytesIO(frame.data)).convert("RGBA"))
    missing = np.isnan(pixels)
    assert (found[..., 3] == np.where(missing, 0, 255)).all()
    whole_frame = render_frame(np.nan_to_num(pixels), colormap, value_range, "png")
    plain = np.asarray(Image.open(io.BytesIO(whole_frame.data)).convert("RGB"))
    np.testing.assert_array_equal(found[~missing][:, :3], plain[~missing])


def test_holes_have_the_documented_colour_in_jpeg_and_stay_nan_in_npy():
    pixels = np.full((64, 64), 40, np.float32)
    pixels[:, 32:] = NAN
    for colormap in ("gray", "strata"):
        jpeg = render_frame(pixels, colormap, (0, 255), quality=100)
        found = np.asarray(Image.open(io.BytesIO(jpeg.data)).convert("RGB")).astype(int)
        assert np.abs(found[:, 36:] - MISSING_COLOR).max() <= 4
        assert np.abs(found[:, :28] - get_colormap(colormap)[40]).max() <= 4
    webp = render_frame(pixels, "strata", (0, 255), "webp")
    alpha = np.asarray(Image.open(io.BytesIO(webp.data)).convert("RGBA"))[..., 3]
    assert (alpha[:, 36:] == 0).all()
    assert (alpha[:, :28] == 255).all()
    npy = np.load(io.BytesIO(render_frame(pixels, "strata", (0, 255), "npy").data))
    np.testing.assert_array_equal(npy, pixels)


@pytest.mark.parametrize("name", COLORMAPS)
def test_the_colour_of_holes_is_far_from_every_built_in_colour_for_all_but_rare_eyes(name):
    color = np.array([MISSING_COLOR], np.uint8)
    table = get_colormap(name)
    kinds = (None, "protan", "deutan", *(("tritan",) if "strata" in name else ()))
    for kind in kinds:
        seen, hole = (
            (table, color)
            if kind is None
            else (
                as_seen_with(table, kind),
                as_seen_with(color, kind),
            )
        )
        assert np.linalg.norm(lab(seen) - lab(hole), axis=1).min() > 0.16, kind


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 300),
    share=st.sampled_from([0.01, 0.4, 0.9]),
    step=st.integers(1, 100),
    seed=st.integers(0, 9),
)
def test_a_preview_averages_the_present_pixels(rows, share, step, seed):
    pixels = with_holes(rows, 3, share=share, seed=seed)
    builder = PreviewBuilder((3, 16))
    for start in range(0, rows, step):
        builder.add(pixels[start : start + step])
    found = builder.means()
    height = min(rows, 16)
    # Each row counts by its share of each of the equal stretches.
    edges = np.linspace(0, rows, height + 1)
    numbers = np.arange(rows)
    part = np.clip(
        np.minimum(edges[1:, None], numbers + 1) - np.maximum(edges[:-1, None], numbers), 0, None
    )
    weight = part @ np.isfinite(pixels) / (rows / height)
    with np.errstate(divide="ignore", invalid="ignore"):
        means = part @ np.nan_to_num(pixels) / (rows / height) / weight
    is_sure = np.abs(weight - 0.5) > 0.05
    if rows & (rows - 1) == 0:  # bins of whole rows
        np.testing.assert_allclose(
            found[is_sure], np.where(weight >= 0.5, means, NAN)[is_sure], rtol=0, atol=1e-3
        )
    assert not ((found < 0) | (found > 255)).any()


def test_statistics_leave_holes_out_and_count_them():
    pixels = with_holes(40, 7)
    found = statistics(pixels, bins=9)
    values = pixels[np.isfinite(pixels)].astype(np.float64)
    assert (found.count, found.missing) == (values.size, pixels.size - values.size)
    assert (found.min, found.max) == (values.min(), values.max())
    assert found.mean == pytest.approx(np.nanmean(pixels.astype(np.float64)))
    assert found.std == pytest.approx(values.std())
    assert found.percentiles[95] == pytest.approx(np.nanpercentile(pixels.astype(np.float64), 95))
    assert found.histogram == tuple(np.histogram(values, 9)[0])
    with pytest.raises(NoPixels, match="no pixel of 6"):
        statistics(np.full((2, 3), NAN, np.float32))
