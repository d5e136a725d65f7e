"""Object keys as partition keys, for code that uses Dagster and code that links to its UI.

A partition key is the object key below the source prefix, except for the few characters that
Dagster's UI or a terminal would misread. The encoding is reversible and leaves ordinary keys
unchanged. The partitions definitions are in `orchestration.families`.
"""

from __future__ import annotations

import re

# In this order: a percent sign that would read as an escape, the UI's range separator, and
# invisible characters.
UNSAFE = re.compile(r"%(?=[0-9A-Fa-f]{2})|(?<=\.\.)\.+|[\x00-\x1f\x7f-\x9f\u2028\u2029]|^\s+|\s+$")
ESCAPE = re.compile(r"(?:%[0-9A-F]{2})+")


def partition_key(object_key: str) -> str:
    """The partition key of an object key."""
    return UNSAFE.sub(
        lambda match: "".join(f"%{byte:02X}" for byte in match.group().encode()), object_key
    )


def object_key(partition: str) -> str:
    """The object key of a partition key; the inverse of `partition_key`."""
    return ESCAPE.sub(
        lambda match: bytes.fromhex(match.group().replace("%", "")).decode(errors="replace"),
        partition,
    )
