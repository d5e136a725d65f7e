"""Reads CSV rows cell by cell: decides what is accepted, and says which line and column is wrong.

A hundred times slower than `csv_fast`, so it only reads the blocks that `csv_fast` gives up on.
"""

import csv
import math
import re
from array import array

import numpy as np
from numpy.typing import NDArray

from imgflow.depth.readers.csv_header import Header
from imgflow.depth.readers.rows import Float32, Float64
from imgflow.errors import Rejected

_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_LARGEST = float(np.finfo(np.float32).max)
_NOT_A_NUMBER = ("nan", "+nan", "-nan")
_INFINITE = ("inf", "+inf", "-inf", "infinity", "+infinity", "-infinity")
_SHOWN_CHARACTERS = 20


def parse_rows(
    block: bytes, header: Header, first_line: int
) -> tuple[Float64, Float32, NDArray[np.int64]]:
    r"""Read rows one cell at a time.

    Args:
        block: Complete lines; only the last line of a file may lack its `\n`.
        header: Gives the separator and the columns.
        first_line: Line of the file where the block starts, counted from 1.

    Returns:
        Depths float64 (n,), pixels float32 (n, N), NaN where missing, and lines int64 (n,), all
        without entirely empty rows.

    Raises:
        Rejected: A row breaks a rule; the reason names the line, and the column if there is one.
    """
    lines = block.split(b"\n")
    ends_in_line_feed = not lines[-1]
    if ends_in_line_feed:
        lines.pop()
    kept = array("q")
    numbers = array("d")  # 8 bytes a number instead of a list's 32
    for offset, raw in enumerate(lines):
        line = first_line + offset
        cells = _cells(raw, header, line)
        if not any(cells):
            continue
        if len(cells) != header.columns:
            is_cut_off = offset == len(lines) - 1 and not ends_in_line_feed
            raise _wrong_count(len(cells), header.columns, line, is_cut_off=is_cut_off)
        if ends_in_separator(raw, header) and not ends_in_line_feed and offset == len(lines) - 1:
            # It may be a hole, or the start of a longer row.
            raise Rejected(
                "truncated", f"line {line}, the last, ends behind a separator, without a line end"
            )
        kept.append(line)
        numbers.extend(_number(cell, header, column, line) for column, cell in enumerate(cells))
    table = np.array(numbers).reshape(-1, header.columns)
    at = header.depth_column
    pixels = np.delete(table, at, axis=1).astype(np.float32)
    return table[:, at].copy(), pixels, np.array(kept, dtype=np.int64)


def ends_in_separator(block: bytes, header: Header) -> bool:
    """Whether only blanks follow the last separator."""
    return block.rstrip(b" ").endswith(header.separator)


def _cells(raw: bytes, header: Header, line: int) -> list[str]:
    if b"\0" in raw:
        raise Rejected("nul_bytes", f"line {line} holds NUL bytes")
    separator = header.separator.decode()
    text = raw.decode("utf-8", errors="replace")
    if '"' not in text:
        return [cell.strip(" ") for cell in text.split(separator)]
    if text.count('"') % 2:
        raise Rejected(
            "quoted_newline", f"line {line}: a quoted cell does not end on the line it begins on"
        )
    try:
        cells = next(csv.reader([text], delimiter=separator, skipinitialspace=True))
    except csv.Error as error:
        raise Rejected(
            "not_a_number", f"line {line} cannot be split into cells: {error}"
        ) from error
    return [cell.strip(" ") for cell in cells]


def _wrong_count(found: int, wanted: int, line: int, *, is_cut_off: bool) -> Rejected:
    if is_cut_off and found < wanted:
        return Rejected(
            "truncated", f"line {line}, the last, breaks off after {found} of {wanted} cells"
        )
    return Rejected("ragged_row", f"line {line} has {found} cells where the header has {wanted}")


def _number(cell: str, header: Header, column: int, line: int) -> float:
    text = cell.replace(",", ".") if header.separator == b";" else cell
    is_depth = column == header.depth_column
    if not is_depth and (not text or text.lower() in _NOT_A_NUMBER):
        return math.nan
    if _NUMBER.fullmatch(text):
        value = float(text)
        if math.isfinite(value) and (is_depth or abs(value) <= _LARGEST):
            return value
    place = f"line {line}, column {header.names[column][:40]!r}"
    shown = cell[:_SHOWN_CHARACTERS] + ("…" if len(cell) > _SHOWN_CHARACTERS else "")
    if not text or text.lower() in _NOT_A_NUMBER:
        what = f"holds {shown!r}" if text else "is empty"
        raise Rejected("empty_depth", f"{place}: the cell {what} in a row that has pixels")
    if text.lower() in _INFINITE:
        raise Rejected("infinite_value", f"{place}: {shown!r} is not finite")
    if _NUMBER.fullmatch(text):
        kind = "float64" if is_depth else "float32"
        raise Rejected("infinite_value", f"{place}: {shown!r} is larger than {kind} holds")
    raise Rejected("not_a_number", f"{place}: {shown!r} is not a number")
