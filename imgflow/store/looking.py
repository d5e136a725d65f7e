"""Asking a source for many objects at once, so that one that is refused costs itself only."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

from imgflow.errors import Trouble, Unreadable
from imgflow.store.objects import Source, SourceObject

THREADS = 16

# So many requests without an answer are no accident of single objects: the store is away, and each
# further one would wait for as long.
MOST_TROUBLES = 16


def look_at(
    source: Source, keys: Iterable[str], *, seconds: float | None = None
) -> tuple[dict[str, SourceObject | None], dict[str, str]]:
    """Ask for the present objects of keys.

    Args:
        source: is asked.
        keys: of the objects.
        seconds: after which no further ones are asked for.

    Returns:
        What each key has, and why for those that could not be asked for. After some trouble no
        further ones are asked for; objects that may not be read are no such trouble.
    """
    until = None if seconds is None else time.monotonic() + seconds
    refused: dict[str, str] = {}
    troubled: dict[str, str] = {}
    lock = threading.Lock()

    def look(key: str) -> SourceObject | None:
        with lock:
            is_late = until is not None and time.monotonic() > until
            if len(troubled) >= MOST_TROUBLES or is_late:
                troubled[key] = next(iter(troubled.values()), "there was no time left for it")
                return None
        try:
            return source.stat(key)
        except Trouble as trouble:
            with lock:
                (refused if isinstance(trouble, Unreadable) else troubled)[key] = str(trouble)
            return None

    keys = list(keys)
    if not keys:
        return {}, {}
    with ThreadPoolExecutor(min(THREADS, len(keys))) as threads:
        found = dict(zip(keys, threads.map(look, keys), strict=True))
    unknown = {**refused, **troubled}
    return {key: upload for key, upload in found.items() if key not in unknown}, unknown
