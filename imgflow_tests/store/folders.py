"""Folders as sources: how tests make, list and enter them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from imgflow.store.folder.source_folder import FolderSource
from imgflow.store.location import parse_location
from imgflow.store.objects import Page

NOBODY = 65_534


def source_of(
    folder: Path, exclude: tuple[str, ...] = (), *, follow_links: bool = False
) -> FolderSource:
    location = parse_location(folder.as_uri(), setting="TEST")
    return FolderSource(location, exclude, follow_links=follow_links)


def pages_of(source: FolderSource, limit: int, start_after: str | None = None) -> Iterator[Page]:
    while True:
        page = source.list_page(start_after, limit)
        yield page
        start_after = page.resume_after
        if start_after is None:
            return


def keys_of(source: FolderSource, limit: int = 1_000, start_after: str | None = None) -> list[str]:
    return [o.key for page in pages_of(source, limit, start_after) for o in page.objects]


def put(folder: Path, key: str, body: bytes = b"x") -> bool:
    """Write a file; False where a file and a folder would need the same name."""
    path = folder / key
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    except (FileExistsError, IsADirectoryError, NotADirectoryError):
        return False
    return True


def by_bytes(keys: list[str]) -> list[str]:
    return sorted(keys, key=str.encode)


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Root may read everything, so tests of what may not be read give that up."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
