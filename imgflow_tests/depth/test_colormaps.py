import io

import numpy as np
import pytest
from PIL import Image

from imgflow.depth.colormaps import (
    COLORMAPS,
    BadColormap,
    UnknownColormap,
    get_colormap,
    parse_colormap,
)
from imgflow.depth.legends import legend
from imgflow.errors import ImgflowError

# Ends and middle as matplotlib's own documentation and code give them.
KNOWN = {
    "viridis": ("440154", "21918c", "fde725"),
    "magma": ("000004", "b73779", "fcfdbf"),
    "inferno": ("000004", "bc3754", "fcffa4"),
    "plasma": ("0d0887", "cc4778", "f0f921"),
    "cividis": ("00224e", "7d7c78", "fee838"),
    "gray": ("000000", "808080", "ffffff"),
}

STRATA = ["0c091f", "622346", "b05731", "deab55", "f9f6e3"]


def lab(table):
    """OKLab of sRGB bytes, (n, 3)."""
    share = table.astype(float) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    lms = linear @ np.array(
        [
            [0.4122214708, 0.2119034982, 0.0883024619],
            [0.5363325363, 0.6806995451, 0.2817188376],
            [0.0514459929, 0.1073969566, 0.6299787005],
        ]
    )
    return np.cbrt(lms) @ np.array(
        [
            [0.2104542553, 1.9779984951, 0.0259040371],
            [0.7936177850, -2.4285922050, 0.7827717662],
            [-0.0040720468, 0.4505937099, -0.8086757660],
        ]
    )


def as_seen_with(table, kind):
    """Simulated dichromacy, bytes to bytes.

    After Viénot, Brettel and Mollon (1999), who leave tritanopes out; these after Machado, Oliveira
    and Fernandes (2009).
    """
    linear = (table.astype(float) / 255) ** 2.2
    matrix = {
        "protan": [[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]],
        "deutan": [[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]],
        "tritan": [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ],
    }[kind]
    seen = np.clip(linear @ np.array(matrix).T, 0, 1)
    return np.rint(255 * seen ** (1 / 2.2)).astype(np.uint8)


@pytest.mark.parametrize("name", COLORMAPS)
def test_every_colour_map_is_256_distinct_colours_of_monotonic_lightness(name):
    table = get_colormap(name)
    assert table.shape == (256, 3)
    assert table.dtype == np.uint8
    assert not table.flags.writeable
    assert len(np.unique(table, axis=0)) >= 250
    steps = np.diff(lab(table)[:, 0])
    direction = -1 if name.endswith("_r") else 1
    # One byte up or down moves the lightness by up to 0.003, also in the published tables.
    assert (steps * direction > -0.003).all()
    assert steps.sum() * direction > 0.5


@pytest.mark.parametrize(("name", "colors"), KNOWN.items())
def test_the_scientific_colour_maps_have_their_published_colours(name, colors):
    table = get_colormap(name)
    assert tuple(bytes(table[place]).hex() for place in (0, 128, 255)) == colors


def test_a_reversed_colour_map_is_the_other_one_backwards():
    assert len(COLORMAPS) == 14
    for name in KNOWN:
        np.testing.assert_array_equal(COLORMAPS[name + "_r"], COLORMAPS[name][::-1])


def test_strata_is_the_first_and_its_steps_are_even():
    assert next(iter(COLORMAPS)) == "strata"
    path = lab(get_colormap("strata"))
    assert (np.diff(path[:, 0]) > 0).all()
    # Over eight colours, so that rounding to bytes does not count.
    steps = np.linalg.norm(path[8::8] - path[:-8:8], axis=1)
    assert steps.max() / steps.min() < 1.25


@pytest.mark.parametrize("kind", ["protan", "deutan", "tritan"])
def test_strata_keeps_its_order_for_the_colour_blind(kind):
    seen = lab(as_seen_with(get_colormap("strata"), kind))
    assert (np.diff(seen[::4, 0]) > 0).all()
    assert np.linalg.norm(np.diff(seen[::8], axis=0), axis=1).min() > 0.01


def test_strata_is_frozen():
    table = get_colormap("strata")
    assert [bytes(table[place]).hex() for place in (0, 64, 128, 192, 255)] == STRATA


@pytest.mark.parametrize("name", ["jet", "", "viridis_r_r", "_r", "VIRIDIS"])
def test_an_unknown_name_is_an_error_that_lists_the_known_ones(name):
    assert name not in COLORMAPS
    with pytest.raises(UnknownColormap, match=r"strata, viridis.*gray.*_r") as caught:
        get_colormap(name)
    assert isinstance(caught.value, ImgflowError)
    with pytest.raises(UnknownColormap):
        legend(name, 0, 1)


def test_a_legend_is_a_png_whose_bar_runs_through_the_colour_map():
    picture = Image.open(io.BytesIO(legend("viridis", 0, 255, width=308, ticks=3, label="API")))
    assert picture.format == "PNG"
    assert picture.width == 308
    pixels = np.asarray(picture.convert("RGB"))
    row = pixels[30, 26:-26]
    np.testing.assert_array_equal(row, get_colormap("viridis"))
    assert (pixels[48:] < 128).any()
    assert (pixels[0] == 255).all()


def test_a_legend_writes_other_values_for_another_range():
    assert legend("gray", 0, 1) != legend("gray", 0, 2)
    assert legend("gray", 5, 5)
    for wrong in ({"width": 10}, {"ticks": 1}):
        with pytest.raises(ValueError, match="legend"):
            legend("gray", 0, 1, **wrong)
    with pytest.raises(ValueError, match="finite"):
        legend("gray", 0, float("inf"))


def test_colours_written_as_json_make_a_table_through_them():
    grey = get_colormap('["#000000", "#ffffff"]')
    np.testing.assert_array_equal(grey, get_colormap("gray"))
    assert not grey.flags.writeable
    table = parse_colormap('[[0, "#ff0000"], [0.2, "#00FF00"], [1, "#0000ff"]]')
    assert [table[place].tolist() for place in (0, 51, 255)] == [
        [255, 0, 0],
        [0, 255, 0],
        [0, 0, 255],
    ]
    assert table[25].tolist() == [130, 125, 0]


@pytest.mark.parametrize(
    "text",
    [
        "[",
        "[]",
        '["#000000"]',
        '["#000", "#ffffff"]',
        '["red", "blue"]',
        "[1, 2]",
        '[[0, "#000000"], "#ffffff"]',
        '[[0, "#000000"], [0.5, "#ffffff"]]',
        '[[0, "#000000"], [0, "#00ff00"], [1, "#ffffff"]]',
        '[[0, "#000000"], [1.5, "#00ff00"], [1, "#ffffff"]]',
        '[[NaN, "#000000"], [1, "#ffffff"]]',
        '[[true, "#000000"], [1, "#ffffff"]]',
        '[[0, "#000000", 1], [1, "#ffffff"]]',
        "[" * 5_000,
        '["#000000"' + ', "#000000"' * 256 + "]",
        "[" + " " * 10_000 + "]",
    ],
)
def test_json_that_is_no_colour_map_is_refused_with_an_example(text):
    with pytest.raises(BadColormap, match="colour map") as caught:
        get_colormap(text)
    assert len(str(caught.value)) < 300
