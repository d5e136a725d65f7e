"""Whether the disks that imgflow writes to have room: the home, a source folder, an output folder.

S3 buckets have no such limit.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from imgflow.store.location import Location

# PostgreSQL writes its log in files of 16 MiB: with less room than that, its next transaction may
# be the one that stops it. On a disk that is small itself, 5% is enough.
ROOM_BYTES = 16 << 20
ROOM_SHARE = 0.05

NOTHING_WRITTEN = {
    "home": "nothing can be announced or processed, since the database lies there",
    "outputs": "no output can be written",
    "source": "no upload can be stored",
}


def places(home: Path, source: Location, outputs: Location) -> dict[str, Path]:
    """Folders that need room: the home, if the database is in it, and local stores."""
    found = {"home": home} if (home / "postgres").is_dir() else {}
    for part, location in (("source", source), ("outputs", outputs)):
        if location.scheme == "file":
            found[part] = location.folder
    return found


def full_disks(folders: Mapping[str, Path]) -> dict[str, str]:
    """Find the folders without room, each with a message that says what this stops.

    Args:
        folders: Paths by `home` (only if the database is in it), `outputs` and `source`. A folder
            that does not exist is not full.
    """
    found: dict[str, str] = {}
    seen: set[int] = set()
    for part, folder in folders.items():
        try:
            device = folder.stat().st_dev
            disk = os.statvfs(folder)
        except OSError:
            continue
        if device in seen:  # report each disk once
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
