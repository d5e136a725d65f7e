"""PostgreSQL's `COPY`: its binary format in both directions, and its text format for writing.

Binary is for large `bytea` values, such as chunks of depth arrays: in ordinary statements, the
driver transfers them as hexadecimal text, which takes ten times as long for megabytes of numbers.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import sqlalchemy as sa

_HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
_END = -1
_NULL = -1


def packed(rows: Sequence[Sequence[bytes | None]]) -> bytes:
    """Encode rows of encoded fields; None is NULL."""
    parts = [_HEADER]
    for fields in rows:
        parts.append(struct.pack(">h", len(fields)))
        for field in fields:
            if field is None:
                parts.append(struct.pack(">i", _NULL))
            else:
                parts += (struct.pack(">i", len(field)), field)
    parts.append(struct.pack(">h", _END))
    return b"".join(parts)


class CopiedRows:
    """A file for the driver's `copy_expert` to write into; iterating yields the rows."""

    def __init__(self) -> None:
        self._messages: list[bytes] = []

    def write(self, message: bytes) -> int:
        """Take the next bytes of the answer."""
        self._messages.append(message)
        return len(message)

    def __iter__(self) -> Iterator[tuple[memoryview | None, ...]]:
        """Yield rows of encoded fields as views, so nothing is copied twice."""
        for number, message in enumerate(self._messages):
            yield from _rows_in(message, is_first=number == 0)


class StreamedRows:
    """The same, but passes each row on as it arrives, so at most one is in memory."""

    def __init__(self, take: Callable[[tuple[memoryview | None, ...]], None]) -> None:
        self._take = take
        self._is_first = True

    def write(self, message: bytes) -> int:
        """Take the next bytes of the answer."""
        for fields in _rows_in(message, is_first=self._is_first):
            self._take(fields)
        self._is_first = False
        return len(message)


def _rows_in(message: bytes, *, is_first: bool) -> Iterator[tuple[memoryview | None, ...]]:
    """Yield the rows of a message.

    The protocol sends each row as its own message, and the header with the first row.
    """
    data = memoryview(message)
    at = len(_HEADER) if is_first else 0
    while at < len(data):
        (count,) = struct.unpack_from(">h", data, at)
        at += 2
        if count == _END:
            return
        fields: list[memoryview | None] = []
        for _ in range(count):
            (size,) = struct.unpack_from(">i", data, at)
            at += 4
            fields.append(None if size == _NULL else data[at : at + size])
            at += max(size, 0)
        yield tuple(fields)


# The text format, for rows of plain values in any table.


def copy_rows(
    connection: sa.Connection, table: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]
) -> None:
    """Copy rows into a table, in the transaction of a connection over psycopg2.

    A row has values in the order of `columns`: strings, or numbers and times that PostgreSQL can
    parse from their `str`; None is NULL.
    """
    lines = io.StringIO()
    for row in rows:
        lines.write(_line(row))
        lines.write("\n")
    if not lines.tell():
        return
    lines.seek(0)
    names = ", ".join(f'"{column}"' for column in columns)
    cursor: Any = connection.connection.cursor()
    with cursor:
        cursor.copy_expert(f"COPY {table} ({names}) FROM STDIN", lines)


def _line(row: Sequence[Any]) -> str:
    """Encode a row. Most rows have nothing to escape, so they are checked as one string."""
    line = "\t".join([_text(value) for value in row])
    nulls = sum(1 for value in row if value is None)
    if (
        line.count("\\") == nulls
        and line.count("\t") == len(row) - 1
        and "\n" not in line
        and "\r" not in line
    ):
        return line
    return "\t".join(map(_escaped, row))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else r"\N" if value is None else str(value)


def _escaped(value: Any) -> str:
    r"""Encode one value; `\N` is NULL."""
    if not isinstance(value, str):  # numbers and times contain none of these characters
        return _text(value)
    return (
        value.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
    )
