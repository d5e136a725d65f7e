"""Reach files below a folder and nothing else, whatever links appear there at any moment.

The kernel resolves each name below the folder's own descriptor and refuses links, so there is no
moment between a check and its use in which a folder could be swapped for a link. Callers get a
descriptor of the parent folder and use the last part of the name relative to it, again without
following links.

Some folders are off limits: imgflow's home with its tokens and database, and the outputs. They are
recognized by inode, since one folder can have several names (mounts, links, other spellings).

The order in which files are listed is in `walk`; whether one is complete, in `writers`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

# Enough to look up names, but not to read. Other systems than Linux open folders for reading.
if sys.platform == "linux":
    LOOK_UP = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
else:
    LOOK_UP = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
READ_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

# Number of the system call on every architecture that Linux has had since 2019.
OPENAT2 = 437
RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_BENEATH = 0x02, 0x04, 0x08
# An older kernel, a sandbox that forbids unknown calls, a rename at the same moment.
NO_OPENAT2 = {errno.ENOSYS, errno.EPERM, errno.EAGAIN}

# The home's files are listed again after this time, and only while hard links are met.
OWN_FILES_SECONDS = 1.0

# Loaded here: between fork and exec, a process with threads must not take a lock.
_libc = ctypes.CDLL(None, use_errno=True)

Inode = tuple[int, int]
"""Device number and inode number."""


class _How(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


class Beneath:
    """Looks up names below one folder.

    Methods raise `FileNotFoundError` or `NotADirectoryError` if a name does not lead to something
    below the folder: nothing exists, a link is on the way, or a folder is off limits.
    """

    def __init__(
        self,
        folder: Path,
        *,
        home: Path | None = None,
        apart: Sequence[Path] = (),
        follow_links: bool = False,
    ) -> None:
        """Take the folder, which may itself be reached through links.

        Args:
            folder: Top folder; need not exist yet.
            home: imgflow's home; it and hard links to its files are off limits.
            apart: Other folders below `folder` that are off limits.
            follow_links: Follow links to files below the folder. Links to folders are never
                entered: they could list the same files without end.
        """
        self._folder = os.fsencode(folder)
        self._home = home
        self._apart = [*apart, *([home] if home else [])]
        self._follow_links = follow_links
        self._own_files: tuple[float, frozenset[Inode]] = (0.0, frozenset())

    @contextmanager
    def root(self) -> Iterator[int]:
        """Open the folder itself."""
        root = os.open(self._folder, LOOK_UP)
        try:
            yield root
        finally:
            os.close(root)

    def open_folder(self, root: int, path: bytes, flags: int = LOOK_UP) -> int:
        """Open a folder below an open one, by a path without `..`; an empty path reopens `root`.

        Raises:
            NotADirectoryError: A part of the path is a file or a link.
        """
        try:
            return _open_beneath(root, path or b".", flags)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise NotADirectoryError(errno.ENOTDIR, "a part of it is a link") from error
            raise

    @contextmanager
    def parent(self, path: bytes) -> Iterator[tuple[int, bytes]]:
        """Open the folder that contains a name; yield it and the last part of the name."""
        above, _, name = path.rpartition(b"/")
        with self.root() as root:
            folder = self.open_folder(root, above)
        try:
            if self._is_within_apart(folder):
                raise FileNotFoundError(errno.ENOENT, "it lies in a folder that is set apart")
            yield folder, name
        finally:
            os.close(folder)

    def make_parent(self, path: bytes) -> None:
        """Create the folders above a name.

        Raises:
            NotADirectoryError: One of them is a file or a link.
        """
        here = os.open(self._folder, LOOK_UP)
        try:
            for part in path.split(b"/")[:-1]:
                try:
                    below = self.open_folder(here, part)
                except FileNotFoundError:
                    with suppress(FileExistsError):  # another upload was faster, or it is a link
                        os.mkdir(part, dir_fd=here)
                    below = self.open_folder(here, part)
                os.close(here)
                here = below
                if self.is_apart(os.fstat(here)):
                    raise NotADirectoryError(errno.ENOTDIR, "it lies in a folder that is set apart")
        finally:
            os.close(here)

    def status(self, path: bytes) -> os.stat_result | None:
        """Describe a regular file below the folder; None for anything else."""
        with self._target(path) as (folder, name):
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        return status if stat.S_ISREG(status.st_mode) and not self.is_own_file(status) else None

    def open_file(self, path: bytes) -> int:
        """Open a file for reading, without blocking if a pipe has taken its place.

        The caller checks what was opened before reading from it.
        """
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW | os.O_CLOEXEC
        with self._target(path) as (folder, name):
            try:
                descriptor = os.open(name, flags, dir_fd=folder)
            except OSError as error:
                if error.errno == errno.ELOOP:
                    raise FileNotFoundError(errno.ENOENT, "it is a link") from error
                raise
        if self.is_own_file(os.fstat(descriptor)):
            os.close(descriptor)
            raise FileNotFoundError(errno.ENOENT, "it is a file of imgflow's home")
        return descriptor

    @contextmanager
    def _target(self, path: bytes) -> Iterator[tuple[int, bytes]]:
        """Open the folder of a file or, where links are allowed, the folder of a link's target.

        Reading a link proves nothing about where it leads a moment later. So the target is then
        looked up from the top like any other name, without links.
        """
        with self.parent(path) as (folder, name):
            if not (self._follow_links and self._is_link(folder, name)):
                yield folder, name
                return
        top = os.path.realpath(self._folder) + b"/"
        end = os.path.realpath(os.path.join(self._folder, path))  # noqa: PTH118 - bytes
        if not end.startswith(top):
            raise FileNotFoundError(errno.ENOENT, "a link leads out of the folder")
        with self.parent(end[len(top) :]) as found:
            yield found

    @staticmethod
    def _is_link(folder: int, name: bytes) -> bool:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        return stat.S_ISLNK(status.st_mode)

    def is_apart(self, folder: os.stat_result) -> bool:
        """Whether exactly this folder is off limits."""
        return (folder.st_dev, folder.st_ino) in self._inodes_apart()

    def is_own_file(self, file: os.stat_result) -> bool:
        """Whether a file is a hard link to a file of the home.

        Other hard links are legitimate: backups and deduplication create them.
        """
        if file.st_nlink == 1 or self._home is None:
            return False
        counted, inodes = self._own_files
        if time.monotonic() - counted > OWN_FILES_SECONDS or not counted:
            inodes = frozenset(_files_of(self._home))
            self._own_files = (time.monotonic(), inodes)
        return (file.st_dev, file.st_ino) in inodes

    def is_in_home(self) -> bool:
        """Whether the folder is inside the home, but not inside its folder `source`."""
        if self._home is None:
            return False
        try:
            source = os.stat(self._home / "source")  # noqa: PTH116 - as everywhere here
        except OSError:
            source = None
        home = _inode(self._home)
        here = os.open(self._folder, LOOK_UP)
        try:
            while True:
                status = os.fstat(here)
                if source is not None and os.path.samestat(status, source):
                    return False
                if (status.st_dev, status.st_ino) == home:
                    return True
                here, below = _above(here), status
                if os.path.samestat(os.fstat(here), below):
                    return False
        finally:
            os.close(here)

    def _is_within_apart(self, folder: int) -> bool:
        """Whether an open folder is off limits, or inside one that is.

        Climbs from it to the top, so the answer is about where the folder is now.
        """
        apart = self._inodes_apart()
        if not apart:
            return False
        top = _inode(self._folder)
        here = os.dup(folder)
        try:
            while True:
                status = os.fstat(here)
                inode = (status.st_dev, status.st_ino)
                if inode == top:
                    return False
                if inode in apart:
                    return True
                here, below = _above(here), status
                if os.path.samestat(os.fstat(here), below):
                    return True  # it was moved out of the top folder
        finally:
            os.close(here)

    def _inodes_apart(self) -> set[Inode]:
        return {inode for folder in self._apart if (inode := _inode(folder)) is not None}


def _open_beneath(root: int, path: bytes, flags: int) -> int:
    """Open a folder by a path that contains no links."""
    if sys.platform == "linux":
        how = _How(flags, 0, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS)
        while True:
            found = _libc.syscall(
                OPENAT2, root, path, ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how))
            )
            if found >= 0:
                return int(found)
            number = ctypes.get_errno()
            if number == errno.EINTR:
                continue
            if number not in NO_OPENAT2:
                raise OSError(number, os.strerror(number))
            break
    return _walk_beneath(root, path, flags)


def _walk_beneath(root: int, path: bytes, flags: int) -> int:
    """Do the same part by part, for kernels without `openat2`."""
    here = os.dup(root)
    parts = path.split(b"/")
    try:
        for depth, part in enumerate(parts, 1):
            wanted = flags if depth == len(parts) else LOOK_UP
            below = os.open(part or b".", wanted | os.O_NOFOLLOW, dir_fd=here)
            os.close(here)
            here = below
    except BaseException:
        os.close(here)
        raise
    return here


def _above(folder: int) -> int:
    """Open the parent of an open folder, and close that folder."""
    above = os.open(b"..", LOOK_UP, dir_fd=folder)
    os.close(folder)
    return above


def _inode(path: Path | bytes) -> Inode | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - a `Path` or bytes
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _files_of(home: Path) -> Iterator[Inode]:
    """Inodes of the home's files, without its uploads and outputs, of which there may be many."""
    for place, folders, names, descriptor in os.fwalk(home):
        if place == str(home):
            folders[:] = [name for name in folders if name not in ("source", "outputs")]
        for name in names:
            with suppress(OSError):
                status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                yield status.st_dev, status.st_ino
