import io
import json
import subprocess
import sys
from importlib.metadata import EntryPoint

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from imgflow.catalog.records import kind_of
from imgflow.depth.readers import raster, registry
from imgflow.depth.readers.reading import read_depth_rows
from imgflow.depth.readers.registry import BUILT_IN, reader_of
from imgflow.depth.readers.rows import DepthLimits, DepthRows
from imgflow.errors import Rejected
from imgflow_tests.depth.tables import cut, whole

DEPTHS = np.array([float(f"{9000.1 + i * 0.1:.1f}") for i in range(40)])
PIXELS = np.random.default_rng(2).integers(0, 65_536, (40, 7)).astype(np.uint16)


def npy(table):
    out = io.BytesIO()
    np.save(out, table)
    return out.getvalue()


def picture(pixels, format_, **options):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format_, **options)
    return out.getvalue()


def rejection(data, name, limits=None):
    with pytest.raises(Rejected) as caught:
        whole(data, name=name, limits=limits)
    return caught.value


@pytest.mark.parametrize("part", [1, 100, 10**6])
@pytest.mark.parametrize("kind", ["<f8", ">f8", "<f4", "<i4", ">u2"])
def test_an_npy_table_gives_its_numbers_in_blocks(kind, part):
    table = np.column_stack([np.arange(40), PIXELS // 2]).astype(kind)
    limits = DepthLimits(block_bytes=300)
    batches = list(read_depth_rows(cut(npy(table), part), "a.npy", limits))
    assert len(batches) > 1
    depths, pixels = (
        np.concatenate([getattr(b, n) for b in batches]) for n in ("depths", "pixels")
    )
    assert (depths.dtype, pixels.dtype) == (np.float64, np.float32)
    np.testing.assert_array_equal(depths, table[:, 0].astype(np.float64))
    np.testing.assert_array_equal(pixels, table[:, 1:].astype(np.float32))


def test_empty_rows_of_a_table_are_dropped_and_counted_and_bad_cells_are_named():
    table = np.column_stack([DEPTHS, PIXELS])
    table[3] = np.nan
    (batch,) = read_depth_rows([npy(table)], "A.NPY")
    assert (len(batch), batch.empty_rows) == (39, 1)
    for cell, value, code in (
        ((9, 0), np.nan, "empty_depth"),
        ((9, 2), -np.inf, "infinite_value"),
        ((9, 2), 1e39, "infinite_value"),
        ((9, 0), np.inf, "infinite_value"),
    ):
        bad = table.copy()
        bad[cell] = value
        error = rejection(npy(bad), "a.npy", DepthLimits(block_bytes=200))
        assert error.code == code
        assert f"line 10, column {cell[1] + 1}:" in error.reason


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "corrupt_npy"),
        (b"depth,a\n1,2\n", "corrupt_npy"),
        (npy(np.zeros((3, 4)))[:-1], "truncated"),
        (npy(np.zeros((3, 4)))[:-32], "truncated"),
        (npy(np.zeros((3, 4))) + bytes(32), "truncated"),
        (npy(np.zeros((3, 4, 5))), "not_a_table"),
        (npy(np.zeros((3, 0))), "not_a_table"),
        (npy(np.asfortranarray(np.ones((3, 4)))), "not_a_table"),
        (npy(np.zeros((3, 4), complex)), "not_a_number"),
        (npy(np.zeros((3, 4), "U3")), "not_a_number"),
        (npy(np.zeros((3, 1))), "no_pixel_columns"),
        (npy(np.zeros((0, 4))), "no_rows"),
        (npy(np.full((3, 4), np.nan)), "no_rows"),
        (npy(np.zeros((3, 20_000))), "too_many_columns"),
    ],
)
def test_what_is_no_table_is_named_by_its_code(data, code):
    assert rejection(data, "a.npy").code == code


@pytest.mark.parametrize("format_", ["PNG", "TIFF"])
def test_a_sixteen_bit_depth_map_keeps_its_values_and_its_rows_are_depths(format_):
    name = f"maps/a.depth.{format_.lower()}"
    depths, pixels = whole(picture(PIXELS, format_), name=name)
    assert depths.tolist() == list(range(40))
    np.testing.assert_array_equal(pixels, PIXELS)


def test_a_depth_map_may_say_where_its_rows_are_in_exact_decimals():
    scale = json.dumps({"depth_first": 9000.1, "depth_step": 0.1})
    chunk = PngImagePlugin.PngInfo()
    chunk.add_text("Description", scale)
    files = {
        "a.depth.png": picture(PIXELS, "PNG", pnginfo=chunk),
        "a.depth.tiff": picture(PIXELS, "TIFF", description=scale),
    }
    for name, data in files.items():
        assert whole(data, name=name)[0].tolist() == DEPTHS.tolist()
    for wrong in (
        '{"depth_step": 1}',
        '{"depth_step": "x", "depth_first": 0}',
        '"depth_step"',
        '{"depth_step": 1e999, "depth_first": 0}',
    ):
        data = picture(PIXELS, "TIFF", description=wrong)
        assert rejection(data, "a.depth.tif").code == "bad_depth_scale"


def test_floats_of_a_tiff_are_kept_and_an_infinite_one_is_named():
    values = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32)
    np.testing.assert_array_equal(whole(picture(values, "TIFF"), name="a.depth.tif")[1], values)
    values[7, 2] = np.inf
    error = rejection(picture(values, "TIFF"), "a.depth.tif")
    assert (error.code, "line 8, column 4" in error.reason) == ("infinite_value", True)


def test_depth_maps_that_are_none_are_rejected(monkeypatch):
    png = picture(PIXELS, "PNG")
    assert rejection(b"depth,a\n1,2\n", "a.depth.png").code == "not_a_depth_map"
    assert rejection(png, "a.depth.tiff").code == "not_a_depth_map"
    assert rejection(png[: len(png) // 2], "a.depth.png").code == "corrupt_depth_map"
    colours = picture(np.zeros((4, 5, 3), np.uint8), "PNG")
    assert rejection(colours, "a.depth.png").code == "not_one_channel"
    for limits, code in (
        (DepthLimits(max_rows=39), "too_many_rows"),
        (DepthLimits(max_columns=7), "too_many_columns"),
        (DepthLimits(max_bytes=100), "too_many_bytes"),
    ):
        assert rejection(png, "a.depth.png", limits).code == code
    monkeypatch.setattr(raster, "MOST_PIXELS", 100)
    assert rejection(png, "a.depth.png").code == "too_many_pixels"


def test_the_key_alone_says_what_is_a_depth_image():
    for key in ("a.csv", "A.CSV", "x/y.csv.gz", "t.TSV", "a.npy", "a.depth.png", "b.Depth.TIFF"):
        assert kind_of(key) == "depth"
    for key in ("a.png", "depth.png", "a.tiff", "a.csv.jpg", "csv", "a.gz", "a.npz"):
        assert kind_of(key) == "photo"


def test_telling_the_kinds_apart_imports_no_reader():
    code = (
        "import sys; from imgflow.catalog.records import kind_of\n"
        "assert kind_of('a.csv') == 'depth'\n"
        "print(sorted({'numpy', 'pandas', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_built_in_suffix_has_a_reader():
    for suffix in BUILT_IN:
        reader = reader_of(f"name{suffix}")
        assert "/" in reader.media_type


class LasReader:
    media_type = "application/x-las"

    def read(self, stream, _limits):
        numbers = np.frombuffer(b"".join(stream), dtype=np.float32)
        yield DepthRows(np.array([1.0]), numbers[None], 1)


def test_a_package_adds_a_format_by_an_entry_point_and_takes_none_over(monkeypatch):
    points = [
        EntryPoint(name, f"{__name__}:LasReader", registry.ENTRY_POINTS) for name in ("las", "csv")
    ]
    asked = []
    monkeypatch.setattr(registry, "entry_points", lambda *, group: asked.append(group) or points)
    registry.readers.cache_clear()
    try:
        assert kind_of("well/7.LAS") == "depth"
        payload = np.array([1, 2, 3], np.float32).tobytes()
        assert whole(payload, name="well/7.LAS")[1].tolist() == [[1, 2, 3]]
        assert reader_of("a.csv").media_type == "text/csv"
    finally:
        registry.readers.cache_clear()
    assert asked == ["imgflow.depth_readers"]
    monkeypatch.undo()
    assert kind_of("well/7.LAS") == "photo"
