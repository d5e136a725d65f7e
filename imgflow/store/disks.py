"""Whether the disks that imgflow writes to have room."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from imgflow.store.location import Location

# PostgreSQL takes its log in files of 16 MiB: with less than that, its next transaction may be the
# one that ends it. Of a disk that is small itself, a twentieth.
ROOM_BYTES = 16 << 20
ROOM_SHARE = 0.05

NOTHING_WRITTEN = {
    "home": "nothing can be announced or processed, since the database lies there",
    "outputs": "no output can be written",
    "source": "no upload can be stored",
}


def places(home: Path, source: Location, outputs: Location) -> dict[str, Path]:
    """The folders that need room: the home where the database lies in it, and local buckets."""
    found = {"home": home} if (home / "postgres").is_dir() else {}
    for part, location in (("source", source), ("outputs", outputs)):
        if location.scheme == "file":
            found[part] = location.folder
    return found


def full_disks(folders: Mapping[str, Path]) -> dict[str, str]:
    """Which of these folders have no room, and what that means, in words.

    Args:
        folders: by `home` (only where the database lies in it), `outputs` and `source`. One that
            is not there is not full.
    """
    found: dict[str, str] = {}
    seen: set[int] = set()
    for part, folder in folders.items():
        try:
            device = folder.stat().st_dev
            disk = os.statvfs(folder)
        except OSError:
            continue
        if device in seen:  # one disk is said to be full once
            continue
        seen.add(device)
        free = disk.f_bavail * disk.f_frsize
        is_full = free < min(ROOM_BYTES, ROOM_SHARE * disk.f_blocks * disk.f_frsize)
        if is_full or (disk.f_files and not disk.f_favail):
            room = f"{free / 1e6:.1f} MB" if is_full else "room for no further file"
            found[part] = (
                f"The disk of {folder} is full ({room} left): {NOTHING_WRITTEN[part]}. "
                "Make room; what waits goes on by itself."
            )
    return found
