"""PostgreSQL's binary `COPY` format, both ways.

The driver sends and fetches `bytea` as hexadecimal text in ordinary statements, which takes ten
times as long for megabytes of numbers.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence

_HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
_END = -1
_NULL = -1


def packed(rows: Sequence[Sequence[bytes | None]]) -> bytes:
    """Write rows of encoded fields; None is NULL."""
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
    """What the driver's `copy_expert` writes into, and the rows that came."""

    def __init__(self) -> None:
        self._messages: list[bytes] = []

    def write(self, message: bytes) -> int:
        """Take the next bytes of the answer."""
        self._messages.append(message)
        return len(message)

    def __iter__(self) -> Iterator[tuple[memoryview | None, ...]]:
        """Rows of encoded fields; views, so nothing is copied twice."""
        for number, message in enumerate(self._messages):
            yield from _rows_in(message, is_first=number == 0)


class StreamedRows:
    """The same, with each row handed on when it comes, so that no more than one is in memory."""

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
    """Rows of a message.

    The protocol puts each row into a message of its own, the header into that of the first row.
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
