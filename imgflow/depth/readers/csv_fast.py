"""Parses a block of CSV rows at once, or gives up without saying what is wrong.

A parser returns None unless a block has only plain finite numbers, and empty cells if it supports
them, in the right number of columns. `csv_careful` then reads the same block cell by cell and
accepts or rejects it. So a parser here may support less than `csv_careful`, but must never accept
more.

Measured on blocks of 200 columns, in megabytes of text per second on one core: numbers with a fixed
number of decimals (whole numbers included) 350 to 400 here, 170 with pandas; all others 300 to 400
with pandas, 100 with `numpy.loadtxt`; with holes, 150 with pandas.
"""

import io
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from imgflow.depth.readers.csv_header import Header
from imgflow.depth.readers.rows import Float32, Float64

_COMMA, _LINE_FEED, _DOT, _ZERO, _BLANK = b",\n.0 "
_PIECE_BYTES = 2**18  # positions and digits of a piece stay in the L2 cache
_EXACT_DIGITS = 15  # integers of 15 digits, and powers of ten below 10**22, are exact in float64
_KINDS: dict[int, type[np.unsignedinteger[Any]]] = {  # by the number of digits that always fit
    4: np.uint16,
    9: np.uint32,
    _EXACT_DIGITS: np.uint64,
}
_LARGEST_DIGIT = 9
_NUMERIC_BYTES = b"0123456789+-.eE, \n"
# What pandas accepts and `csv_careful` does not: other white space than blanks, quotes around
# anything, and anything after a NUL. One search for each costs a fifth of checking every byte.
_ONLY_FOR_PANDAS = (b"\t", b"\v", b"\f", b"\0", b'"')
_FIRST_EXACT_PANDAS = 3
_HOLE_SPELLINGS = ("", "nan", "NaN", "NAN")
_QUOTED_CELL = re.compile(rb'(?<![^,\n])"([^",\n]*)"(?![^,\n])')


def without_empty_rows(block: bytes, separator: bytes) -> tuple[bytes, NDArray[np.int64]]:
    r"""Drop rows that have nothing but separators and blanks.

    Args:
        block: Complete lines, each ending in `\n`.
        separator: One byte.

    Returns:
        The remaining rows, and their numbers in `block`, from 0.
    """
    text = np.frombuffer(block, dtype=np.uint8)
    ends = np.flatnonzero(text == _LINE_FEED) + 1
    is_blank = (text == _LINE_FEED) | (text == _BLANK) | (text == separator[0])
    has_values = np.logical_or.reduceat(~is_blank, np.concatenate([[0], ends[:-1]]))
    lengths = np.diff(ends, prepend=0)
    return text[np.repeat(has_values, lengths)].tobytes(), np.flatnonzero(has_values)


def with_commas(block: bytes, separator: bytes) -> bytes:
    """Rewrite a block with commas as separators and decimal points.

    Decimal commas are only allowed if the separator is a semicolon.
    """
    if separator == b",":
        return block
    if separator == b";":
        return block.translate(bytes.maketrans(b";,", b",."))
    # A comma between tabs must not become a separator; `;` is not part of a number either.
    return block.translate(bytes.maketrans(b"\t,", b",;"))


def parse_fixed_point(block: bytes, header: Header) -> tuple[Float64, Float32] | None:
    r"""Parse rows whose pixels are unsigned and all have the same number of decimals.

    Args:
        block: Complete non-empty rows with comma and decimal point, each ending in `\n`.
        header: Gives the number of columns and the position of the depths.

    Returns:
        Depths float64 (n,) and pixels float32 (n, N), or None.
    """
    depths: list[Float64] = []
    pixels: list[Float32] = []
    for piece in _pieces(block):
        parsed = _parse_piece(piece, header)
        if parsed is None:
            return None
        depths.append(parsed[0])
        pixels.append(parsed[1])
    return np.concatenate(depths), np.concatenate(pixels)


def may_have_holes(block: bytes) -> bool:
    """Whether cells may be empty or NaN; also true for blanks, quotes or signs after a comma.

    Searching for pairs of bytes that start with a comma would take ten times as long.
    """
    if b"n" in block or b"N" in block:
        return True
    is_separator = np.frombuffer(block, dtype=np.uint8) <= _COMMA
    return bool((is_separator[1:] & is_separator[:-1]).any())


def parse_with_pandas(
    block: bytes, header: Header, *, with_holes: bool = False
) -> tuple[Float64, Float32] | None:
    r"""Parse rows of any finite numbers, with the same result as `parse_fixed_point`.

    Args:
        block: Complete rows with comma and decimal point, each ending in `\n`.
        header: Gives the number of columns and the position of the depths.
        with_holes: Whether empty or NaN pixels become NaN, instead of making the result None.
    """
    import pandas as pd

    text = _QUOTED_CELL.sub(rb"\1", block) if b'"' in block else block
    if any(mark in text for mark in _ONLY_FOR_PANDAS):
        return None
    try:
        # Without `dtype`: asked for float64, pandas takes half as long again.
        frame = pd.read_csv(
            io.BytesIO(text),
            header=None,
            na_filter=with_holes,
            keep_default_na=False,
            na_values=_HOLE_SPELLINGS if with_holes else None,
            skip_blank_lines=False,
            low_memory=False,  # the block is small already, and pandas' chunks cost time
        )
    except ValueError:
        return None
    if any(kind.kind not in "iuf" for kind in frame.dtypes):
        return None
    table = frame.to_numpy(dtype=np.float64)
    # `bytes.count` takes eight times as long.
    marks = np.frombuffer(text, dtype=np.uint8)
    lines = np.count_nonzero(marks == _LINE_FEED)
    # pandas pads short rows with NaN.
    is_ragged = with_holes and not _has_rows_of(marks, header.columns)
    if is_ragged or table.shape != (lines, header.columns):
        return None
    at = header.depth_column
    pixels = _as_float32(_without_column(table, at))
    depths: Float64 | None = table[:, at].copy()  # a view would keep the entire table alive
    if int(pd.__version__.partition(".")[0]) < _FIRST_EXACT_PANDAS:
        # Older versions may get the last bit wrong, and a depth must be exact.
        depths = _column_of_numbers(text, at)
    if depths is None or not np.isfinite(depths).all():
        return None
    is_right = ~np.isinf(pixels) if with_holes else np.isfinite(pixels)
    return (depths, pixels) if is_right.all() else None


def _has_rows_of(marks: NDArray[np.uint8], columns: int) -> bool:
    """Whether each line has this many cells; quotes must have been removed."""
    separators = marks[(marks == _COMMA) | (marks == _LINE_FEED)]
    if len(separators) % columns:
        return False
    is_end = separators.reshape(-1, columns) == _LINE_FEED
    return bool(is_end[:, -1].all() and not is_end[:, :-1].any())


def _column_of_numbers(text: bytes, column: int) -> Float64 | None:
    starts = np.flatnonzero(np.frombuffer(text, dtype=np.uint8) == _LINE_FEED) + 1
    rows = zip([0, *starts[:-1].tolist()], starts.tolist(), strict=True)
    try:
        if column == 0:
            numbers = np.array([float(text[start : text.index(b",", start)]) for start, _ in rows])
        else:
            cells = (text[start:end].split(b",", column + 1)[column] for start, end in rows)
            numbers = np.array([float(cell) for cell in cells])
    except (ValueError, IndexError):
        return None
    return numbers


def _without_column(table: NDArray[Any], column: int) -> NDArray[Any]:
    return table[:, 1:] if column == 0 else np.delete(table, column, axis=1)


def _as_float32(values: NDArray[Any]) -> Float32:
    with np.errstate(over="ignore"):  # infinity is checked later, and rejected with its line
        return np.ascontiguousarray(values, dtype=np.float32)


def _pieces(block: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(block):
        end = block.rfind(b"\n", start, start + _PIECE_BYTES) + 1
        if not end:
            end = block.index(b"\n", start) + 1
        yield block[start:end]
        start = end


def _parse_piece(piece: bytes, header: Header) -> tuple[Float64, Float32] | None:
    text = np.frombuffer(piece, dtype=np.uint8)
    separators = np.flatnonzero(text <= _COMMA)
    rows, commas = (np.count_nonzero(text == mark) for mark in (_LINE_FEED, _COMMA))
    # Blanks and quotes are below the comma too; if there are any, these counts differ.
    if not len(separators) == rows * header.columns == rows + commas:
        return None
    ends = separators.reshape(rows, header.columns)
    lengths = (np.diff(separators, prepend=-1) - 1).reshape(ends.shape)
    if not (text[ends[:, -1]] == _LINE_FEED).all():
        return None
    at = header.depth_column
    depths: NDArray[Any] | None = _fixed_point(text, ends[:, at], lengths[:, at])
    if depths is None:
        depths = _any_numbers(piece, ends[:, at], lengths[:, at])
    if depths is None:
        return None
    values = _fixed_point(text, _without_column(ends, at), _without_column(lengths, at))
    if values is None:
        return None
    return depths.astype(np.float64, copy=False), _as_float32(values)


def _fixed_point(
    text: NDArray[np.uint8], ends: NDArray[np.int64], lengths: NDArray[np.int64]
) -> NDArray[Any] | None:
    """Numbers by the positions after their last digits and by their lengths in characters.

    The digits make an exact integer, which a single division rounds correctly; whole numbers stay
    integers.
    """
    longest, shortest = int(lengths.max()), int(lengths.min())
    end = int(ends.flat[0])
    first = text[end - int(lengths.flat[0]) : end]
    dots = np.flatnonzero(first == _DOT)
    decimals = len(first) - 1 - int(dots[0]) if len(dots) else 0
    has_dot = len(dots) == 1
    if shortest <= decimals or longest - has_dot > _EXACT_DIGITS or len(dots) > 1:
        return None
    if has_dot and not decimals:
        return None
    digits = longest - has_dot
    kind = next(kind for most, kind in _KINDS.items() if digits <= most)
    number = np.zeros(ends.shape, dtype=kind)
    place = 1
    for back in range(1, longest + 1):
        found = text.take(ends - back, mode="clip")
        if has_dot and back == decimals + 1:
            if not (found == _DOT).all():
                return None
            continue
        found = found - np.uint8(_ZERO)
        if back > shortest:
            found *= lengths >= back
        if found.max() > _LARGEST_DIGIT:
            return None
        number += np.multiply(found, place, dtype=kind)
        place *= 10
    return number / np.float64(10**decimals) if decimals else number


def _any_numbers(
    piece: bytes, ends: NDArray[np.int64], lengths: NDArray[np.int64]
) -> Float64 | None:
    starts = ends - lengths
    cells = [piece[a:b] for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]
    if b"".join(cells).translate(None, _NUMERIC_BYTES):
        return None
    try:
        numbers = np.array([float(cell) for cell in cells])
    except ValueError:
        return None
    return numbers if np.isfinite(numbers).all() else None
