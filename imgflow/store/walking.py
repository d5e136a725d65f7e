"""A walk through a folder: the names of its files in the order in which S3 lists keys."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from imgflow.errors import Trouble
from imgflow.store.objects import MOST_KEY_BYTES

# Names of uploads that are not whole yet; the listing leaves them alone.
UNFINISHED = ".imgflow-upload-"
_UNFINISHED = UNFINISHED.encode()
SLASH = ord("/")
NUL = 0

# Of a file or folder, on every file system that Linux knows; one byte more for the slash.
MOST_NAME_BYTES = 255 + 1

# A page that follows another within this time goes on where that one ended. Reading the folder
# again for each page made a round over n files cost n² / 1,000.
CONTINUE_SECONDS = 10.0

CLOSED_SHOWN = 5


class Walker:
    """Walks through one folder and its subfolders, a page at a time.

    Attributes:
        closed: folders that the present page may not read.
    """

    def __init__(self, folder: Path, exclude: tuple[bytes, ...]) -> None:
        """Take a folder.

        Args:
            folder: its path.
            exclude: beginnings of names that are never listed.
        """
        self.closed: list[str] = []
        self._folder = folder
        self._root = os.fsencode(folder) + b"/"
        self._exclude = exclude
        self._paused: Walk | None = None

    def after(self, start_after: str | None) -> Walk:
        """Begin after a key, or go on where a page ended there a moment ago."""
        self.closed = []
        paused, self._paused = self._paused, None
        if paused is not None and paused.goes_on_after(start_after):
            return paused
        return Walk(self._walk((start_after or "").encode()))

    def pause(self, walk: Walk, last: str) -> None:
        """Keep a walk for the page that follows the one that ends with the key `last`."""
        walk.last = last
        self._paused = walk

    def warnings(self) -> list[str]:
        """What people should know of the folders that this page left out."""
        if not self.closed:
            return []
        names = list(dict.fromkeys(self.closed))
        shown = ", ".join(map(repr, names[:CLOSED_SHOWN]))
        more = f" and {len(names) - CLOSED_SHOWN} more" if len(names) > CLOSED_SHOWN else ""
        return [
            f"Of {self._folder} these folders may not be read and are left out: {shown}{more}. "
            "Make them readable for this user, or move them away."
        ]

    def _walk(self, start_after: bytes) -> Iterator[bytes]:
        """Yield names after `start_after` in the order of their bytes, with `/` between folders.

        What is never listed ends with NUL: a file, or a folder that need not be read.
        """
        waiting = self._entries(b"", start_after)
        while waiting:
            name = waiting.pop()
            if name[-1] == SLASH:
                waiting += self._entries(name, start_after)
            else:
                yield name

    def _entries(self, prefix: bytes, start_after: bytes) -> list[bytes]:
        """The names in one folder as `_walk` has them, last first, a folder counting as `name/`."""
        names: list[bytes] = []
        try:
            with os.scandir(self._root + prefix) as scan:
                for entry in scan:
                    if entry.is_file(follow_symlinks=False):
                        names.append(prefix + entry.name)
                    elif entry.is_dir(follow_symlinks=False):
                        names.append(prefix + entry.name + b"/")
                    elif _is_file(entry):  # a link to one; asking costs a call to the system
                        names.append(prefix + entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return []  # deleted since its parent was read
        except PermissionError:
            self.closed.append(os.fsdecode(prefix))
            return []
        except OSError as error:
            raise Trouble(
                f"The folder {os.fsdecode(prefix)!r} in {self._folder} cannot be read "
                f"({error.strerror}). It is tried again."
            ) from error
        if prefix <= start_after:  # else all of them come after it
            names = [
                name
                for name in names
                if name > start_after or (name[-1] == SLASH and start_after.startswith(name))
            ]
        names = self._marked(prefix, names)
        names.sort(reverse=True)
        return names

    def _marked(self, prefix: bytes, names: list[bytes]) -> list[bytes]:
        """Put NUL, which no name holds, behind the names in a folder that are never listed.

        Most folders have none, which looking at all names at once tells in no time.
        """
        joined = b"/".join(names)
        if (
            joined.isascii()
            and _UNFINISHED not in joined
            and len(prefix) + MOST_NAME_BYTES <= MOST_KEY_BYTES
            and not any(excluded.startswith(prefix) for excluded in self._exclude)
        ):
            return names
        return [name if self._is_key(name) else name + b"\0" for name in names]

    def _is_key(self, name: bytes) -> bool:
        """Whether a file name is a key, and not one that is never listed."""
        if _as_key(name) is None or name.startswith(self._exclude):
            return False
        return not name.rpartition(b"/")[2].startswith(_UNFINISHED)


class Walk:
    """A walk through the folder that a following page may go on with."""

    def __init__(self, names: Iterator[bytes]) -> None:
        self.names = names
        self.last: str | None = None
        self._give_up = time.monotonic() + CONTINUE_SECONDS

    def goes_on_after(self, start_after: str | None) -> bool:
        """Whether it stands there still, and not so long that the folder may have changed."""
        return start_after == self.last and time.monotonic() < self._give_up


def _is_file(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link that leads to itself, or into a folder that is closed
        return False


def _as_key(name: bytes) -> str | None:
    """The key of a file name, or None when it can be none."""
    if len(name) > MOST_KEY_BYTES:
        return None
    try:
        return name.decode()
    except UnicodeDecodeError:
        return None
