"""Whether a file in a folder is whole, or somebody is still writing it.

The kernel knows: on a local file system it grants a read lease only while nobody has the file open
for writing. Elsewhere (network and FUSE file systems, files of other users, other systems than
Linux) a file counts as whole once it was left alone for `QUIET_SECONDS`.

Asking costs twice as much as looking at a file, so only files changed in the last `RECENT_SECONDS`
are asked about. A writer that pauses for longer than that is taken for done; what it writes then
makes the file another upload, which is processed again.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import signal
import stat
import sys
import time
from collections.abc import Callable

RECENT_SECONDS = 300.0
QUIET_SECONDS = 2.0

# File systems whose writers are all on this machine (`f_type` of statfs). NFS and SMB refuse leases
# for reasons of their own, and FUSE grants them without knowing what other machines write.
LOCAL_FILE_SYSTEMS = {
    0xEF53: "ext2, ext3, ext4",
    0x58465342: "xfs",
    0x9123683E: "btrfs",
    0x01021994: "tmpfs",
    0x858458F6: "ramfs",
    0x794C7630: "overlay",
    0xF2F52010: "f2fs",
    0xCA451A4E: "bcachefs",
    0x2FC12FC1: "zfs",
}

# More files than that with a time in the future are looked at twice as long.
MOST_REMEMBERED = 100_000


class Writers:
    """Tells files that are still being written from whole ones."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """Remember nothing yet.

        Args:
            clock: seconds since the epoch; what files' times are compared with.
        """
        self._clock = clock
        self._is_local: dict[int, bool] = {}
        # Of files from the future: what they looked like, and since when (monotonic).
        self._first_seen: dict[bytes, tuple[tuple[int, ...], float]] = {}

    def recently(self) -> int:
        """Since when files count as recently changed, in nanoseconds of their times."""
        return int((self._clock() - RECENT_SECONDS) * 1e9)

    def settled(
        self, path: bytes, status: os.stat_result, open_file: Callable[[], int]
    ) -> os.stat_result | None:
        """Describe a regular file that is whole; None while it is being written.

        Args:
            path: of the file, by which it is remembered.
            status: as it was just now.
            open_file: opens it for reading without waiting, as a file server may hold it for a
                client of its own.

        Returns:
            Its status, taken again where it was recently changed.
        """
        if max(status.st_mtime_ns, status.st_ctime_ns) <= self.recently():
            return status
        try:
            descriptor = open_file()
        except BlockingIOError:
            return None
        except OSError:  # who may not read it cannot ask either; reading says why
            return status if self._is_quiet(path, status) else None
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return None
            is_written = self.is_written(descriptor, status)
            if is_written is None:
                return status if self._is_quiet(path, status) else None
            # Looked at once more: the last writer may have written in between.
            return None if is_written else os.fstat(descriptor)
        finally:
            os.close(descriptor)

    def is_written(self, descriptor: int, status: os.stat_result) -> bool | None:
        """Whether somebody has an open file open for writing; None where nobody can tell."""
        age = self._age(status)
        if age is not None and age > RECENT_SECONDS:
            return False
        if status.st_dev not in self._is_local:
            self._is_local[status.st_dev] = _file_system(descriptor) in LOCAL_FILE_SYSTEMS
        return has_writer(descriptor) if self._is_local[status.st_dev] else None

    def _age(self, status: os.stat_result) -> float | None:
        """Seconds since the file was last changed; None when that lies in the future.

        `cp -p` and rsync set the modification time of the original, which the time of the change
        tells. A camera whose clock is ahead sets one in the future, which says nothing.
        """
        now = self._clock()
        times = [moment for moment in (status.st_mtime, status.st_ctime) if moment <= now]
        return now - max(times) if times else None

    def _is_quiet(self, path: bytes, status: os.stat_result) -> bool:
        age = self._age(status)
        if age is not None:
            return age >= QUIET_SECONDS
        # The file's clock is ahead of ours, so that only watching it tells.
        looks = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        looked, since = self._first_seen.get(path, (None, 0.0))
        if looked == looks:
            return time.monotonic() - since >= QUIET_SECONDS
        if len(self._first_seen) >= MOST_REMEMBERED:
            self._first_seen.clear()
        self._first_seen[path] = (looks, time.monotonic())
        return QUIET_SECONDS <= 0


def has_writer(descriptor: int) -> bool | None:
    """Whether somebody has a file open for writing, or None where the kernel does not say.

    Args:
        descriptor: of the file, open for reading only, on a local file system.
    """
    if sys.platform != "linux":
        return None
    try:
        # A writer that comes while the lease is held waits the microseconds until it is given back,
        # and the kernel tells us so with a signal: SIGIO, which would end this process, unless
        # another is set. SIGURG is ignored.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as refusal:
        # Others: not our file and no CAP_LEASE, leases switched off, a kernel without them.
        return True if refusal.errno == errno.EAGAIN else None
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def _file_system(descriptor: int) -> int:
    """`f_type` of the file system of an open file; 0 when it cannot be told."""
    if sys.platform != "linux":
        return 0
    answer = ctypes.create_string_buffer(256)  # struct statfs has 120 bytes and may grow
    if ctypes.CDLL(None).fstatfs(descriptor, answer) != 0:
        return 0
    return ctypes.c_ulong.from_buffer(answer).value & 0xFFFFFFFF
