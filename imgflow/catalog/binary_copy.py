"""PostgreSQL's binary `COPY` format, both ways.

The driver sends and fetches `bytea` as hexadecimal text in ordinary statements, which takes ten
times as long for megabytes of numbers.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

_HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
_END = -1
_NULL = -1


def packed(rows: Sequence[Sequence[bytes]]) -> bytes:
    """Write rows of encoded fields; none of them NULL."""
    parts = [_HEADER]
    for fields in rows:
        parts.append(struct.pack(">h", len(fields)))
        for field in fields:
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
        """Rows of encoded fields; views, so nothing is copied twice.

        The protocol puts each row into a message of its own, the header into that of the first row.
        """
        for number, message in enumerate(self._messages):
            data = memoryview(message)
            at = len(_HEADER) if number == 0 else 0
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
