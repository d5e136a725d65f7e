"""Parses the header line of a depth CSV: its separator, column names and depth column.

The rows are parsed in `csv_fast` and `csv_careful`.
"""

import csv
import re
from dataclasses import dataclass

from imgflow.depth.readers.rows import DepthLimits
from imgflow.errors import Rejected

SEPARATORS = (",", ";", "\t")
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_NUMBER = re.compile(r"[+-]?([0-9]+([.,][0-9]*)?|[.,][0-9]+)([eE][+-]?[0-9]+)?")


@dataclass(frozen=True)
class Header:
    """What the header line says.

    Attributes:
        separator: One byte: comma, semicolon or tab.
        names: All column names, trimmed, in file order.
        depth_column: Index of the depth column in `names`, from 0.
        lines: Number of lines up to the header's end, including blank ones before it.
    """

    separator: bytes
    names: tuple[str, ...]
    depth_column: int
    lines: int

    @property
    def columns(self) -> int:
        """How many cells each row must have."""
        return len(self.names)


def parse_header(block: bytes, limits: DepthLimits) -> tuple[Header, bytes]:
    r"""Split a file's first block into its header and the rows after it.

    Args:
        block: Start of the file, with `\n` line ends; empty for an empty file.
        limits: Only `max_columns` is checked.

    Raises:
        Rejected: See the table in `imgflow.depth.readers.reading`.
    """
    if block.startswith(_UTF16_MARKS):
        raise Rejected("not_utf8", "the file is UTF-16 text; UTF-8 is needed")
    body = block.removeprefix(_BYTE_ORDER_MARK)
    stripped = body.lstrip(b"\n ")
    blank_lines = body[: len(body) - len(stripped)].count(b"\n")
    if not stripped:
        raise Rejected("empty_file", "the file is empty")
    raw, _, rows = stripped.partition(b"\n")
    line = blank_lines + 1
    if b"\0" in raw:
        raise Rejected("nul_bytes", f"line {line} holds NUL bytes: this is not UTF-8 text")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Rejected("not_utf8", f"line {line} is not UTF-8 text: {error.reason}") from error
    separator = max(SEPARATORS, key=text.count)
    names = _split(text, separator, line)
    depth_column = _check(names, line, limits)
    return Header(separator.encode(), names, depth_column, line), rows


def _split(text: str, separator: str, line: int) -> tuple[str, ...]:
    if text.count('"') % 2:
        raise Rejected("quoted_newline", f"line {line}: a quoted column name does not end")
    try:
        cells = next(csv.reader([text], delimiter=separator, skipinitialspace=True))
    except csv.Error as error:
        raise Rejected("no_header", f"line {line} cannot be read as a header: {error}") from error
    return tuple(cell.strip() for cell in cells)


def _check(names: tuple[str, ...], line: int, limits: DepthLimits) -> int:
    """Return the position of the depth column, or reject the header."""
    if len(names) > limits.max_columns:
        raise Rejected(
            "too_many_columns", f"{len(names)} columns, and {limits.max_columns} are the limit"
        )
    lowered = [name.lower() for name in names]
    if "depth" not in lowered:
        if all(_NUMBER.fullmatch(name) for name in names):
            raise Rejected("no_header", f"line {line} holds numbers where the column names belong")
        shown = ", ".join(repr(name[:20]) for name in names[:3])
        raise Rejected(
            "no_depth_column", f"line {line}: none of the columns is named 'depth' ({shown} …)"
        )
    if "" in names:
        raise Rejected(
            "unnamed_column",
            f"line {line}: column {names.index('') + 1} of {len(names)} has no name",
        )
    seen: set[str] = set()
    for name in (low if low == "depth" else own for low, own in zip(lowered, names, strict=True)):
        if name in seen:
            raise Rejected("duplicate_columns", f"line {line}: two columns are named {name[:40]!r}")
        seen.add(name)
    if len(names) == 1:
        raise Rejected("no_pixel_columns", "there is a depth column and no pixel column")
    return lowered.index("depth")
