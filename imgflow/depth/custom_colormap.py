"""Colour maps that a caller writes down as JSON.

Either colours at equal distances, or each with its place from 0 to 1:

    ["#000000", "#b05731", "#ffffff"]
    [[0, "#000000"], [0.8, "#b05731"], [1, "#ffffff"]]

Between two of them sRGB values change in a straight line, as most programs do it, so that the
colours are those that the caller knows from there.
"""

import json
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgflow.errors import ImgflowError

COLORS = 256
LONGEST_TEXT = 8_000
_FEWEST, _MOST = 2, 256
_COLOR = re.compile(r"#[0-9a-fA-F]{6}")
_EXAMPLE = '["#000000", "#ffffff"] or [[0, "#000000"], [0.8, "#b05731"], [1, "#ffffff"]]'


class BadColormap(ImgflowError, ValueError):
    """A colour map in JSON that is none; the text says why and shows one."""


def is_custom(name: str) -> bool:
    """Whether this is a colour map rather than the name of one."""
    return name.lstrip().startswith("[")


def parse_colormap(text: str) -> NDArray[np.uint8]:
    """Make the table of a colour map in JSON.

    Returns:
        uint8 (256, 3); the first and the last colour are exact.

    Raises:
        BadColormap: it is not JSON of the form above.
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
