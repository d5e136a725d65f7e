"""What the operating system lets a worker process spend on one image."""

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
    """Let the operating system end this process when a decoder computes for longer than that.

    Processor time rather than time on the clock: a slow store or a busy machine must not turn into
    a verdict about an image, and a decoder that hangs computes.
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
    """Let the operating system refuse memory beyond that many bytes above its own start.

    `RLIMIT_DATA` counts writable private memory only. `RLIMIT_AS` would also count what libraries
    merely reserve: 64 MiB of addresses for each thread of the store. Where memory is not counted
    so (elsewhere than on Linux), there is no limit.

    Args:
        size: for one image.
        beside: for what else the process does meanwhile.

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
    """What `RLIMIT_DATA` counts of this process before its first image; None where not known.

    Taken once, as the allocator keeps what earlier images freed, and would hand it out unseen.
    """
    try:
        pages = Path("/proc/self/statm").read_text().split()[5]
    except (OSError, IndexError):
        return None
    return int(pages) * resource.getpagesize()
