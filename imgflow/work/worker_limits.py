"""How much processor time and memory the operating system lets a worker spend on one image.

Limits that are checked before decoding (bytes, pixels, frames) are in `images.formats.decoding`.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from math import ceil
from pathlib import Path

from imgflow.errors import Rejected


@contextmanager
def cpu_limit(seconds: float) -> Iterator[None]:
    """Let the operating system end this process if it computes for longer than this.

    It counts processor time, not wall time: a slow store or a busy machine must not get an image
    rejected, and a decoder that hangs does compute.
    """
    used = resource.getrusage(resource.RUSAGE_SELF)
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (ceil(used.ru_utime + used.ru_stime + seconds), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_CPU, (hard, hard))


@contextmanager
def memory_limit(size: int, *, beside: int = 0) -> Iterator[None]:
    """Let the operating system refuse memory beyond this, counted from the process's start.

    `RLIMIT_DATA` counts writable private memory only. `RLIMIT_AS` would also count what libraries
    merely reserve: 64 MiB of addresses for each thread of the store. Outside Linux there is no
    limit.

    Args:
        size: Bytes for one image.
        beside: Bytes for what else the process does at the same time.

    Raises:
        Rejected: `too_large`, with the limit in its reason.
    """
    taken = _bytes_at_start()
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if taken is not None:
        limit = taken + size + beside
        resource.setrlimit(
            resource.RLIMIT_DATA,
            (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard),
        )
    try:
        yield
    except MemoryError as error:
        limit_named = f" A worker may take {size // 2**20:,} MiB." if taken is not None else ""
        raise Rejected(
            "too_large", f"The file needs more memory than there is for it.{limit_named}"
        ) from error
    except Rejected as rejection:
        if rejection.code != "too_large" or taken is None:
            raise
        raise Rejected(
            "too_large", f"{rejection.reason} A worker may take {size // 2**20:,} MiB."
        ) from rejection
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


@cache
def _bytes_at_start() -> int | None:
    """Bytes that `RLIMIT_DATA` counts before the first image; None where that is unknown.

    Measured once, because the allocator keeps memory that earlier images freed and would hand it
    out without the limit noticing.
    """
    try:
        pages = Path("/proc/self/statm").read_text().split()[5]
    except (OSError, IndexError):
        return None
    return int(pages) * resource.getpagesize()
