"""Colour maps, tables of 256 RGB colours: the built-in ones by name, and callers' own as JSON.

`strata`, the default, is our own: a path through OKLab from a near-black indigo over rust and ochre
to pale sand, the colours in which borehole images are commonly printed. Its lightness rises
throughout, so it works in grey and for every kind of colour blindness, and neighbouring colours are
equally far apart in OKLab. The others are the well-known scientific ones and plain grey; `_r`
reverses each. Pictures of colour maps are in `imgflow.depth.legends`.
"""

import base64
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgflow.depth.colormap_data import DEFAULT_COLORMAP, PACKED_TABLES
from imgflow.errors import ImgflowError

# Callers' own colour maps as JSON: colours at equal distances, or each with its place from 0 to 1.
#
#     ["#000000", "#b05731", "#ffffff"]
#     [[0, "#000000"], [0.8, "#b05731"], [1, "#ffffff"]]
#
# sRGB values are interpolated linearly between colours, as in most programs, so that callers get
# the colours they know from there.


COLORS = 256
LONGEST_TEXT = 8_000
_FEWEST, _MOST = 2, 256
_COLOR = re.compile(r"#[0-9a-fA-F]{6}")
_EXAMPLE = '["#000000", "#ffffff"] or [[0, "#000000"], [0.8, "#b05731"], [1, "#ffffff"]]'


class BadColormap(ImgflowError, ValueError):
    """The JSON is not a colour map; the message says why and shows an example."""


def is_custom(name: str) -> bool:
    """Whether this is a colour map in JSON rather than the name of one."""
    return name.lstrip().startswith("[")


def parse_colormap(text: str) -> NDArray[np.uint8]:
    """Make the table of a colour map in JSON.

    Returns:
        Read-only uint8 (256, 3); the first and the last colour are exact.

    Raises:
        BadColormap: The text is not JSON of the form above.
    """
    if len(text) > LONGEST_TEXT:
        raise BadColormap(f"a colour map has at most {LONGEST_TEXT} characters")
    try:
        stops = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _bad(f"it is not JSON: {error}") from error
    if not isinstance(stops, list) or not _FEWEST <= len(stops) <= _MOST:
        raise _bad(f"it must list {_FEWEST} to {_MOST} colours")
    if all(isinstance(stop, str) for stop in stops):
        places = np.linspace(0, 1, len(stops))
        colors = [_color(stop) for stop in stops]
    else:
        pairs = [_pair(stop) for stop in stops]
        places = np.array([place for place, _ in pairs])
        colors = [color for _, color in pairs]
        if places[0] != 0 or places[-1] != 1 or not (np.diff(places) > 0).all():
            raise _bad("the places must rise from 0 to 1")
    channels = np.array(colors, dtype=np.float64).T
    along = np.linspace(0, 1, COLORS)
    table = np.stack([np.interp(along, places, channel) for channel in channels], axis=1)
    made: NDArray[np.uint8] = np.rint(table).astype(np.uint8)
    made.flags.writeable = False
    return made


def _pair(stop: Any) -> tuple[float, tuple[int, ...]]:
    if not isinstance(stop, list) or len(stop) != 2:  # noqa: PLR2004 - place and colour
        raise _bad(f"{json.dumps(stop)[:40]} is not a place and a colour")
    place, color = stop
    if isinstance(place, bool) or not isinstance(place, (int, float)) or not 0 <= place <= 1:
        raise _bad(f"{json.dumps(place)[:40]} is not a place from 0 to 1")
    return float(place), _color(color)


def _color(text: Any) -> tuple[int, ...]:
    if not isinstance(text, str) or not _COLOR.fullmatch(text):
        raise _bad(f"{json.dumps(text)[:40]} is not a colour such as #b05731")
    return tuple(bytes.fromhex(text[1:]))


def _bad(why: str) -> BadColormap:
    return BadColormap(f"this is not a colour map: {why}; write {_EXAMPLE}")


# Built-in colour maps.

ColorTable = NDArray[np.uint8]

_REVERSED = "_r"
_NAMES = (DEFAULT_COLORMAP, *PACKED_TABLES, "gray")

# The path of `strata` in OKLCh: lightness 0 to 1, chroma, hue in degrees.
_STRATA_PATH = (
    (0.16, 0.045, 285.0),
    (0.30, 0.085, 325.0),
    (0.46, 0.118, 384.0),
    (0.62, 0.128, 412.0),
    (0.78, 0.118, 440.0),
    (0.90, 0.070, 452.0),
    (0.97, 0.025, 458.0),
)
_PATH_STEPS = 8_192
_SRGB_LINEAR_UP_TO = 0.0031308


class UnknownColormap(ImgflowError, LookupError):
    """No colour map has this name; the message lists those that exist."""


def get_colormap(name: str) -> ColorTable:
    """Look up a colour map by name, or parse it.

    Args:
        name: One of `COLORMAPS`, or a colour map in JSON, see `parse_colormap`.

    Returns:
        Read-only uint8 (256, 3): red, green and blue, from the lowest value to the highest.

    Raises:
        UnknownColormap: No colour map has this name.
        BadColormap: `name` starts like JSON, but is not a colour map.
    """
    if is_custom(name):
        return parse_colormap(name)
    base = name.removesuffix(_REVERSED)
    if base not in _NAMES:
        raise UnknownColormap(f"no colour map is named {name[:40]!r}; there are {_listed()}")
    table = _base_table(base)
    return table if base == name else table[::-1]


class _Registry(Mapping[str, ColorTable]):
    """Every name with its table; a table is made on first use."""

    def __getitem__(self, name: str) -> ColorTable:
        return get_colormap(name)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.removesuffix(_REVERSED) in _NAMES

    def __iter__(self) -> Iterator[str]:
        for name in _NAMES:
            yield name
            yield name + _REVERSED

    def __len__(self) -> int:
        return 2 * len(_NAMES)


COLORMAPS: Mapping[str, ColorTable] = _Registry()
"""All colour maps by name, the default first; an unknown name raises `UnknownColormap`."""


def _listed() -> str:
    return ", ".join(_NAMES) + f", each also with {_REVERSED}"


@cache
def _base_table(name: str) -> ColorTable:
    if name == DEFAULT_COLORMAP:
        table = _strata()
    elif name == "gray":
        table = np.repeat(np.arange(COLORS, dtype=np.uint8), 3).reshape(COLORS, 3)
    else:
        steps = np.frombuffer(zlib.decompress(base64.b85decode(PACKED_TABLES[name])), np.uint8)
        table = np.cumsum(steps.reshape(3, COLORS), axis=1, dtype=np.uint8).T.copy()
    table.flags.writeable = False
    return table


def _strata() -> ColorTable:
    points = np.array(_STRATA_PATH)
    knots = np.linspace(0, 1, len(points))
    along = np.linspace(0, 1, _PATH_STEPS)
    lightness, chroma, hue = (_smooth(along, knots, points[:, i]) for i in range(3))
    angle = np.radians(hue)
    path = np.stack([lightness, chroma * np.cos(angle), chroma * np.sin(angle)], axis=1)
    # Equal distances along the path keep neighbouring colours equally far apart.
    length = np.concatenate([[0.0], np.linalg.norm(np.diff(path, axis=0), axis=1).cumsum()])
    places = np.linspace(0, length[-1], COLORS)
    lab = np.stack([np.interp(places, length, path[:, i]) for i in range(3)], axis=1)
    return np.rint(255 * _oklab_to_srgb(lab)).astype(np.uint8)


def _smooth(x: NDArray[np.float64], knots: NDArray[np.float64], y: NDArray[np.float64]) -> Any:
    """Catmull-Rom curve through evenly spaced knots, ends extended in a straight line."""
    ends = np.concatenate([[2 * y[0] - y[1]], y, [2 * y[-1] - y[-2]]])
    scaled = x * (len(knots) - 1)
    i = np.minimum(scaled.astype(int), len(knots) - 2)
    t = scaled - i
    before, here, there, after = (ends[i + k] for k in range(4))
    return here + 0.5 * t * (
        there
        - before
        + t * (2 * before - 5 * here + 4 * there - after)
        + t * t * (3 * (here - there) + after - before)
    )


def _oklab_to_srgb(lab: NDArray[np.float64]) -> NDArray[np.float64]:
    """OKLab (n, 3) to sRGB 0 to 1, clipped; constants are from Björn Ottosson's definition."""
    to_lms = np.array(
        [
            [1.0, 0.3963377774, 0.2158037573],
            [1.0, -0.1055613458, -0.0638541728],
            [1.0, -0.0894841775, -1.2914855480],
        ]
    )
    to_linear = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = np.clip((lab @ to_lms.T) ** 3 @ to_linear.T, 0, 1)
    encoded: NDArray[np.float64] = np.where(
        linear <= _SRGB_LINEAR_UP_TO, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055
    )
    return encoded
