"""Walk through a folder: the names of its files in the order in which S3 lists keys.

Opening folders safely is in `beneath`; pages of objects are made in `source_folder`.
"""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Generator
from pathlib import Path

from imgflow.errors import Trouble
from imgflow.store.folder.beneath import LOOK_UP, READ_FOLDER, Beneath
from imgflow.store.objects import MOST_KEY_BYTES

# Prefix of the names of incomplete uploads, which listings skip.
UNFINISHED = ".imgflow-upload-"
_UNFINISHED = UNFINISHED.encode()
SLASH = ord("/")
NUL = 0
ENCODING = sys.getfilesystemencoding()

# Longest name of a file or folder on any file system that Linux supports, and one for the slash.
MOST_NAME_BYTES = 255 + 1

# A page requested within this time continues where the previous one ended. Reading the folder
# again for each page made listing n files cost n² / 1,000.
CONTINUE_SECONDS = 10.0

NAMES_SHOWN = 5


class Walker:
    """Walks through one folder and its subfolders, one page at a time.

    Attributes:
        closed: Folders that could not be read for the current page.
        links: Links that the current page leaves out.
    """

    def __init__(
        self, beneath: Beneath, folder: Path, exclude: tuple[bytes, ...], *, follow_links: bool
    ) -> None:
        """Prepare to walk through a folder.

        Args:
            beneath: Looks up names in the folder.
            folder: Path of the folder, for messages.
            exclude: Name prefixes that are never listed.
            follow_links: List links to files, if the files are below the folder.
        """
        self.closed: list[str] = []
        self.links: list[str] = []
        self._beneath = beneath
        self._folder = folder
        self._exclude = exclude
        self._follow_links = follow_links
        self._paused: Walk | None = None

    def after(self, start_after: str | None) -> Walk:
        """Start after a key, or continue where a page ended there a moment ago."""
        self.closed, self.links = [], []
        paused, self._paused = self._paused, None
        if paused is not None and paused.goes_on_after(start_after):
            return paused
        return Walk(self, (start_after or "").encode())

    def pause(self, walk: Walk, last: str) -> None:
        """Keep a walk for the page that follows the one ending with the key `last`."""
        walk.last = last
        self._paused = walk

    def warnings(self) -> list[str]:
        """Messages about what this page left out."""
        said = []
        if self.closed:
            said.append(
                f"Of {self._folder} these folders may not be read and are left out: "
                f"{_named(self.closed)}. Make them readable for this user, or move them away."
            )
        if self.links:
            links = list(dict.fromkeys(self.links))
            why = (
                "they do not end at a file below it"
                if self._follow_links
                else "links are not followed"
            )
            what = (
                "Let them end there, or put copies or hard links in their place."
                if self._follow_links
                else "Put copies or hard links in their place, or set IMGFLOW_FOLLOW_LINKS=true "
                "for links to files below the folder."
            )
            said.append(
                f"In {self._folder} {len(links)} symbolic links are left out, since {why}: "
                f"{_named(links)}. {what}"
            )
        return said

    def enter(self, root: int, prefix: bytes, start_after: bytes) -> tuple[int | None, list[bytes]]:
        """Open a folder and read its names.

        Returns:
            Its descriptor, None if it cannot be read, and the names after `start_after` in
            descending order. Names of folders end with `/`; names that are never listed end with
            NUL.
        """
        folder = self.open(root, prefix, READ_FOLDER)
        if folder is None:
            return None, []
        try:
            if prefix and self._beneath.is_apart(os.fstat(folder)):
                return folder, [b"\0"]
            return folder, self._names(folder, prefix, start_after)
        except BaseException as error:
            os.close(folder)
            if isinstance(error, OSError):
                raise self._trouble(prefix, error) from error
            raise

    def open(self, root: int, prefix: bytes, flags: int = LOOK_UP) -> int | None:
        """Open a folder; None if it was removed since its parent was read, or cannot be read."""
        try:
            return self._beneath.open_folder(root, prefix.rstrip(b"/"), flags)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except PermissionError:
            self.closed.append(os.fsdecode(prefix))
            return None
        except OSError as error:
            raise self._trouble(prefix, error) from error

    def status(self, folder: int, prefix: bytes, name: bytes) -> os.stat_result | None:
        """Describe an entry of an open folder; None if it is gone or cannot be looked at."""
        try:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if self._follow_links and stat.S_ISLNK(status.st_mode):
                return self._beneath.status(prefix + name)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except PermissionError:  # a folder that may be listed, but not entered
            self.closed.append(os.fsdecode(prefix))
            return None
        except OSError as error:
            raise self._trouble(prefix, error) from error
        return status

    def _names(self, folder: int, prefix: bytes, start_after: bytes) -> list[bytes]:
        names: list[bytes] = []
        with os.scandir(folder) as scan:
            for entry in scan:
                name = entry.name.encode(ENCODING, "surrogateescape")
                if entry.is_file(follow_symlinks=False):
                    names.append(name)
                elif entry.is_dir(follow_symlinks=False):
                    names.append(name + b"/")
                elif entry.is_symlink() and self._is_listed(prefix + name):
                    names.append(name)
        if prefix <= start_after:  # otherwise all of them come after it
            names = [
                name
                for name in names
                if prefix + name > start_after
                or (name[-1] == SLASH and start_after.startswith(prefix + name))
            ]
        names = self._marked(prefix, names)
        names.sort(reverse=True)
        return names

    def _is_listed(self, link: bytes) -> bool:
        """Whether a link is followed and leads to a file; links that do not are recorded."""
        if link.startswith(self._exclude):
            return False
        try:
            if self._follow_links and self._beneath.status(link) is not None:
                return True
        except OSError:
            pass  # dangling, a loop, out of the folder, or to a place that cannot be read
        self.links.append(os.fsdecode(link))
        return False

    def _trouble(self, prefix: bytes, error: OSError) -> Trouble:
        return Trouble(
            f"The folder {os.fsdecode(prefix)!r} in {self._folder} cannot be read "
            f"({error.strerror}). It is tried again."
        )

    def _marked(self, prefix: bytes, names: list[bytes]) -> list[bytes]:
        """Append NUL, which no name contains, to the names in a folder that are never listed.

        Most folders have none, and one check of all names together shows that in no time.
        """
        joined = b"/".join(names)
        if (
            joined.isascii()
            and prefix.isascii()
            and _UNFINISHED not in joined
            and len(prefix) + MOST_NAME_BYTES <= MOST_KEY_BYTES
            and not any(excluded.startswith(prefix) for excluded in self._exclude)
        ):
            return names
        return [name if self._is_key(prefix + name) else name + b"\0" for name in names]

    def _is_key(self, name: bytes) -> bool:
        """Whether a file name is a key that may be listed."""
        if _as_key(name) is None or name.startswith(self._exclude):
            return False
        return not name.rpartition(b"/")[2].startswith(_UNFINISHED)


class Walk:
    """A walk that the next page can continue.

    Attributes:
        last: Key with which the page ended; None before the end of the first page.
    """

    def __init__(self, walker: Walker, start_after: bytes) -> None:
        self.last: str | None = None
        self._walker = walker
        self._start_after = start_after
        # Folders that are not finished, from the top to the current one, each with its remaining
        # names. The first entry is a placeholder that leads to the top.
        self._way: list[tuple[bytes, list[bytes]]] = [(b"", [b"/"])]
        self._give_up = time.monotonic() + CONTINUE_SECONDS

    def goes_on_after(self, start_after: str | None) -> bool:
        """Whether it paused at this key, and not so long ago that the folder may have changed."""
        return start_after == self.last and time.monotonic() < self._give_up

    def files(self, root: int) -> Generator[tuple[bytes, os.stat_result | None], None, None]:
        """Yield names in byte order, each with its status.

        The status is None for what is never listed: a file, or a folder that need not be read.

        Args:
            root: Descriptor of the top folder. At most one more is open at a time, however deep the
                folders are, and none once the caller stops midway.
        """
        walker, way = self._walker, self._way
        folder: int | None = None
        try:
            while way:
                prefix, names = way[-1]
                while names:
                    name = names.pop()
                    if name[-1] == NUL:
                        yield prefix + name, None
                    elif name[-1] == SLASH:
                        _close(folder)
                        folder = None
                        below = prefix + name if name != b"/" else b""
                        folder, inside = walker.enter(root, below, self._start_after)
                        way.append((below, inside))
                        break
                    elif folder is None and (folder := walker.open(root, prefix)) is None:
                        names.clear()
                    elif status := walker.status(folder, prefix, name):
                        yield prefix + name, status
                else:
                    way.pop()
                    _close(folder)
                    folder = None
        finally:
            _close(folder)


def _close(folder: int | None) -> None:
    if folder is not None:
        os.close(folder)


def _named(names: list[str]) -> str:
    """The first few of these names, without duplicates."""
    names = list(dict.fromkeys(names))
    shown = ", ".join(map(repr, names[:NAMES_SHOWN]))
    return f"{shown} and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else shown


def _as_key(name: bytes) -> str | None:
    """The key of a file name; None if the name cannot be a key."""
    if len(name) > MOST_KEY_BYTES:
        return None
    try:
        return name.decode()
    except UnicodeDecodeError:
        return None
