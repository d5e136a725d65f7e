"""Reads depth images as `.npy`: a table of numbers with the depths in its first column.

It is read in blocks, like text, so the array may be larger than memory. Lines in reasons are rows
of the table, counted from 1. The rules for values are in `missing.checked_rows`.
"""

import io
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from imgflow.depth.readers.missing import checked_rows
from imgflow.depth.readers.rows import DepthLimits, DepthRows
from imgflow.depth.readers.streams import peek
from imgflow.errors import Rejected

_HEADER_BYTES = 65_536
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_TABLE_DIMENSIONS = 2
_SHOWN_CHARACTERS = 100


class NpyDepthReader:
    """Reads a two-dimensional array of integers or floats, in C order."""

    media_type = "application/x-npy"

    def read(self, stream: Iterable[bytes], limits: DepthLimits) -> Iterator[DepthRows]:
        """Read a `.npy` file; see `imgflow.depth.readers.rows.DepthReader.read`."""
        head, source = peek(stream, _HEADER_BYTES)
        rows, columns, kind, offset = _header(head)
        if columns > limits.max_columns:
            raise Rejected(
                "too_many_columns", f"{columns:,} columns, and {limits.max_columns} are the limit"
            )
        if columns == 1:
            raise Rejected("no_pixel_columns", "there is a depth column and no pixel column")
        limits.check_rows(rows)
        limits.check_bytes(rows * columns * kind.itemsize)
        done = filled = 0
        for table in _tables(source, offset, columns, kind, limits.block_bytes):
            if done + len(table) > rows:
                break
            batch = checked_rows(table, first_row=done + 1)
            done += len(table)
            filled += len(batch)
            yield batch
        if done != rows:
            raise Rejected("truncated", f"the header says {rows} rows, and the data are of others")
        if not filled:
            raise Rejected("no_rows", "there is no row with values")


def _header(head: bytes) -> tuple[int, int, np.dtype[Any], int]:
    """Rows, columns, type, and the offset of the first number in bytes."""
    file = io.BytesIO(head)
    try:
        read_header = _HEADERS[npy.read_magic(file)]
        shape, is_fortran, kind = read_header(file)
    # numpy hands the header to Python's parser, which may raise SyntaxError, tokenize.TokenError,
    # RecursionError, and MemoryError for deeply nested brackets.
    except Exception as error:
        raise Rejected(
            "corrupt_npy", f"this is no .npy file: its header cannot be read ({_shown(error)})"
        ) from error
    if kind.kind not in "iuf" or kind.itemsize > np.dtype(np.float64).itemsize:
        raise Rejected("not_a_number", f"the array is of {kind}, and numbers are needed")
    is_table = (
        len(shape) == _TABLE_DIMENSIONS
        and all(type(side) is int for side in shape)  # numpy accepts True and False too
        and shape[0] >= 0
        and shape[1] > 0
        and not is_fortran
    )
    if not is_table:
        order = "Fortran" if is_fortran else "C"
        raise Rejected(
            "not_a_table",
            f"an array of rows by columns in C order is needed, depths in its first column; "
            f"this one is {str(shape)[:_SHOWN_CHARACTERS]} in {order} order",
        )
    return shape[0], shape[1], kind, file.tell()


def _shown(error: Exception) -> str:
    """An error's type and message, cut short, since numpy repeats the header."""
    return f"{type(error).__name__}: {error}"[:_SHOWN_CHARACTERS]


def _tables(
    stream: Iterable[bytes], offset: int, columns: int, kind: np.dtype[Any], block_bytes: int
) -> Iterator[NDArray[Any]]:
    """Cut what follows the header into tables of complete rows; an incomplete row is an error."""
    row_bytes = columns * kind.itemsize
    wanted = max(row_bytes, block_bytes // row_bytes * row_bytes)
    held = bytearray()
    for part in stream:
        held += part[offset:]
        offset = max(0, offset - len(part))
        while len(held) >= wanted:
            yield np.frombuffer(bytes(held[:wanted]), kind).reshape(-1, columns)
            del held[:wanted]
    if len(held) % row_bytes:
        raise Rejected("truncated", "the data end in the middle of a row")
    if held:
        yield np.frombuffer(bytes(held), kind).reshape(-1, columns)
