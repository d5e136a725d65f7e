"""Whether a file in a folder is complete, or someone is still writing it.

The kernel knows: on a local file system it grants a read lease only while nobody has the file open
for writing. Elsewhere (network and FUSE file systems, files of other users, other systems than
Linux) a file counts as complete after `QUIET_SECONDS` without a change.

Asking for a lease takes twice as long as a stat, so only files that changed in the last
`RECENT_SECONDS` are asked about. A writer that pauses for longer is taken to be done; if it writes
again, the file becomes another upload and is processed again.
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
# for other reasons, and FUSE grants them without knowing what other machines write.
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

# If more files than this have a time in the future, they have to stay quiet for twice as long.
MOST_REMEMBERED = 100_000


class Writers:
    """Tells complete files from those that are still being written."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """Start without any known files.

        Args:
            clock: Returns the Unix time in seconds to which the files' times are compared.
        """
        self._clock = clock
        self._is_local: dict[int, bool] = {}
        # For files from the future: their last status, and since when it is known (monotonic).
        self._first_seen: dict[bytes, tuple[tuple[int, ...], float]] = {}

    def recently(self) -> int:
        """Time after which files count as recently changed, in nanoseconds of Unix time."""
        return int((self._clock() - RECENT_SECONDS) * 1e9)

    def settled(
        self, path: bytes, status: os.stat_result, open_file: Callable[[], int]
    ) -> os.stat_result | None:
        """Describe a regular file that is complete; None while it is being written.

        Args:
            path: Path that identifies the file between calls.
            status: Status of the file as of just now.
            open_file: Opens the file for reading without blocking: a file server may hold it for
                one of its clients.

        Returns:
            The status, taken again if the file changed recently.
        """
        if max(status.st_mtime_ns, status.st_ctime_ns) <= self.recently():
            return status
        try:
            descriptor = open_file()
        except BlockingIOError:
            return None
        except OSError:  # without read access there is no lease; reading reports the reason
            return status if self._is_quiet(path, status) else None
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return None
            is_written = self.is_written(descriptor, status)
            if is_written is None:
                return status if self._is_quiet(path, status) else None
            # Stat again: the last writer may have written in between.
            return None if is_written else os.fstat(descriptor)
        finally:
            os.close(descriptor)

    def is_written(self, descriptor: int, status: os.stat_result) -> bool | None:
        """Whether someone has an open file open for writing; None if that cannot be known."""
        age = self._age(status)
        if age is not None and age > RECENT_SECONDS:
            return False
        if status.st_dev not in self._is_local:
            self._is_local[status.st_dev] = _file_system(descriptor) in LOCAL_FILE_SYSTEMS
        return has_writer(descriptor) if self._is_local[status.st_dev] else None

    def _age(self, status: os.stat_result) -> float | None:
        """Seconds since the file last changed; None if all its times are in the future.

        `cp -p` and rsync copy the modification time of the original, so the change time counts too.
        A camera whose clock is ahead sets a modification time in the future, which says nothing.
        """
        now = self._clock()
        times = [moment for moment in (status.st_mtime, status.st_ctime) if moment <= now]
        return now - max(times) if times else None

    def _is_quiet(self, path: bytes, status: os.stat_result) -> bool:
        age = self._age(status)
        if age is not None:
            return age >= QUIET_SECONDS
        # The file's clock is ahead of ours, so only watching the file helps.
        looks = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        looked, since = self._first_seen.get(path, (None, 0.0))
        if looked == looks:
            return time.monotonic() - since >= QUIET_SECONDS
        if len(self._first_seen) >= MOST_REMEMBERED:
            self._first_seen.clear()
        self._first_seen[path] = (looks, time.monotonic())
        return QUIET_SECONDS <= 0


def has_writer(descriptor: int) -> bool | None:
    """Whether someone has a file open for writing; None if the kernel does not say.

    Args:
        descriptor: The file, opened for reading only, on a local file system.
    """
    if sys.platform != "linux":
        return None
    try:
        # A writer that arrives while the lease is held waits the microseconds until it is given
        # back, and the kernel signals that to us. The default signal, SIGIO, would end this
        # process; SIGURG is ignored.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as refusal:
        # Other errors: not our file and no CAP_LEASE, leases switched off, or not supported.
        return True if refusal.errno == errno.EAGAIN else None
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def _file_system(descriptor: int) -> int:
    """`f_type` of the file system of an open file; 0 if it is unknown."""
    if sys.platform != "linux":
        return 0
    answer = ctypes.create_string_buffer(256)  # struct statfs has 120 bytes and may grow
    if ctypes.CDLL(None).fstatfs(descriptor, answer) != 0:
        return 0
    return ctypes.c_ulong.from_buffer(answer).value & 0xFFFFFFFF
