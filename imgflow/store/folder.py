"""A local folder as a source.

Files are read through the operating system rather than through `obstore`: it cannot represent names
with control characters, and one such name would stop its listing of all the others.

A file that somebody still writes is neither listed nor read until it is whole (see `whole`).
"""

from __future__ import annotations

import os
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import BinaryIO, overload

from imgflow.errors import BadKey, SourceChanged, Trouble, Unreadable
from imgflow.store.location import Location
from imgflow.store.objects import (
    CHUNK_BYTES,
    MOST_KEY_BYTES,
    Digest,
    Page,
    SourceObject,
    check_any_key,
    is_text,
)
from imgflow.store.whole import Writers

# Names of uploads that are not whole yet; the listing leaves them alone.
UNFINISHED = ".imgflow-upload-"
_UNFINISHED = UNFINISHED.encode()
SLASH = ord("/")
NUL = 0

# Of a file or folder, on every file system that Linux knows; one byte more for the slash.
MOST_NAME_BYTES = 255 + 1

# What a path is told where a file stands for a folder, or a folder for a file.
IN_THE_WAY = (FileExistsError, NotADirectoryError, IsADirectoryError)

# A page that follows another within this time goes on where that one ended. Reading the folder
# again for each page made a round over n files cost n² / 1,000.
CONTINUE_SECONDS = 10.0

CLOSED_SHOWN = 5


class FolderSource:
    """The files of a folder and its subfolders; the key is the path below the folder."""

    def __init__(self, location: Location, exclude: tuple[str, ...] = ()) -> None:
        """Take the folder of `location`.

        Args:
            location: of scheme `file`.
            exclude: prefixes of keys that are never listed, such as the outputs' folder.
        """
        self.location = location
        self._folder = location.folder
        self._root = os.fsencode(location.folder) + b"/"
        self._exclude = tuple(prefix.encode() for prefix in exclude)
        self._begun: _Begun | None = None
        self._writers = Writers()
        # Folders that the listing of the present page may not read.
        self._closed: list[str] = []

    def list_page(self, start_after: str | None, limit: int) -> Page:
        """List files in the order in which S3 lists keys; links to folders are not followed.

        Names that are no keys (not UTF-8, or longer than S3 allows) are ignored: they can neither
        be a partition nor stand in the table, and must not stop the others. Neither must folders
        that may not be read, which are warned of.
        """
        self.check()
        self._closed = []
        unfinished: list[str] = []
        files: list[str] = []
        ignored = 0
        walk = self._walk_after(start_after)
        recently = self._writers.recently()
        # What is done for every file of a tick stands here, without a call that need not be.
        for name in walk.names:
            if name[-1] == NUL:
                ignored += 1
                continue
            key = name.decode()
            path = self._root + name
            try:
                status = os.stat(path)  # noqa: PTH116 - making a `Path` takes longer than the call
            except OSError as error:
                self._leave_out(key, error)
                continue
            if not stat.S_ISREG(status.st_mode):
                continue
            if status.st_mtime_ns > recently or status.st_ctime_ns > recently:
                whole = self._writers.settled(path, status)
                if whole is None:
                    unfinished.append(key)
                    continue
                status = whole
            files.append(f"{key}\0{_etag(status)}")
            if len(files) == limit:
                walk.last = key
                self._begun = walk
                break
        last = walk.last if len(files) == limit else None
        digest = Digest.of("etag", files)
        return Page(_Files(files), digest, last, ignored, unfinished, self._warnings())

    def stat(self, key: str) -> SourceObject | None:
        """Describe the file, or None when there is none."""
        status = self._status(key, os.fsencode(self._path(key)))
        return status and _describe(key, _etag(status))

    def read(self, announced: SourceObject) -> bytes:
        """Read the whole file."""
        with self._open(announced) as file:
            body = file.read()
            _compare(announced, file)
        return body

    def stream(self, announced: SourceObject) -> Iterator[bytes]:
        """Read the file in pieces."""
        with self._open(announced) as file:
            while piece := file.read(CHUNK_BYTES):
                yield piece
            _compare(announced, file)

    def check_key(self, key: str) -> None:
        """Raise `BadKey` unless a listing would show a file of this name."""
        check_any_key(key, tuple(prefix.decode() for prefix in self._exclude))
        parts = key.split("/")
        if any(part in ("", ".", "..") for part in parts):
            raise BadKey(f"{key!r} is not the name of a file below {self._folder}.")
        if max(len(part.encode()) for part in parts) >= MOST_NAME_BYTES:
            raise BadKey(f"A part of {key[:80]!r}… is longer than file systems take.")
        if parts[-1].startswith(UNFINISHED):
            raise BadKey(f"{key!r} would never be listed: name it otherwise.")

    def upload(self, key: str, file: Path) -> None:
        """Copy a file to a hidden name beside its place, then rename it there."""
        self.check_key(key)
        target = self._path(key)
        try:
            self._copy(key, file, target)
        except Trouble as trouble:
            if isinstance(trouble.__cause__, IN_THE_WAY):
                raise BadKey(f"{key!r} and another file or folder exclude each other.") from trouble
            raise

    def _copy(self, key: str, file: Path, target: Path) -> None:
        with file.open("rb") as original, self._errors("written", key):
            target.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=UNFINISHED, dir=target.parent)
            staged = Path(name)
            try:
                with os.fdopen(handle, "wb") as copy:
                    while piece := original.read(CHUNK_BYTES):
                        copy.write(piece)
                staged.chmod(0o644)
                staged.replace(target)
            except BaseException:
                staged.unlink(missing_ok=True)
                raise

    def delete(self, key: str) -> None:
        """Delete the file."""
        with self._errors("deleted", key):
            try:
                self._path(key).unlink()
            except (FileNotFoundError, NotADirectoryError):
                return

    def check(self) -> None:
        """Raise `Trouble` unless the folder exists and can be read."""
        try:
            with os.scandir(self._folder):
                return
        except OSError as error:
            raise Trouble(
                f"The source folder {self._folder} cannot be read ({error.strerror}); create it or "
                "set IMGFLOW_SOURCE_URL."
            ) from error

    def _path(self, key: str) -> Path:
        """The file of a key; a key never leads out of the folder."""
        is_bad = any(part in ("", ".", "..") for part in key.split("/"))
        if is_bad or "\0" in key or not is_text(key):
            raise Trouble(f"{key!r} is not the name of a file below {self._folder}")
        return self._folder / key

    def _is_key(self, name: bytes) -> bool:
        """Whether a file name is a key, and not one that is never listed."""
        if _as_key(name) is None or name.startswith(self._exclude):
            return False
        return not name.rpartition(b"/")[2].startswith(_UNFINISHED)

    def _walk_after(self, start_after: str | None) -> _Begun:
        begun, self._begun = self._begun, None
        if begun is not None and begun.goes_on_after(start_after):
            return begun
        return _Begun(self._walk((start_after or "").encode()))

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
            self._closed.append(os.fsdecode(prefix))
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

    def _warnings(self) -> list[str]:
        if not self._closed:
            return []
        names = list(dict.fromkeys(self._closed))
        shown = ", ".join(map(repr, names[:CLOSED_SHOWN]))
        more = f" and {len(names) - CLOSED_SHOWN} more" if len(names) > CLOSED_SHOWN else ""
        return [
            f"Of {self._folder} these folders may not be read and are left out: {shown}{more}. "
            "Make them readable for this user, or move them away."
        ]

    def _leave_out(self, key: str, error: OSError) -> None:
        """Go on without a listed file that is gone, or whose folder shows names and nothing else.

        Raises:
            Trouble: it cannot be looked at for another reason.
        """
        if isinstance(error, PermissionError):
            self._closed.append(f"{key.rpartition('/')[0]}/")
        elif not isinstance(error, (FileNotFoundError, NotADirectoryError)):
            raise self._trouble("looked at", key, error) from error

    def _status(self, key: str, path: bytes) -> os.stat_result | None:
        """What the system says of a file; None where there is none."""
        try:
            status = os.stat(path)  # noqa: PTH116 - making a `Path` takes longer than the call
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._trouble("looked at", key, error) from error
        return status if stat.S_ISREG(status.st_mode) else None

    @contextmanager
    def _open(self, announced: SourceObject) -> Iterator[BinaryIO]:
        key = announced.key
        with self._errors("read", key):
            try:
                # Without waiting for a writer, should a pipe have taken the file's place.
                descriptor = os.open(self._path(key), os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except (FileNotFoundError, NotADirectoryError) as error:
                raise SourceChanged(f"{key!r} was deleted since it was listed") from error
        try:
            status = os.fstat(descriptor)
            if stat.S_ISREG(status.st_mode) and self._writers.is_written(descriptor, status):
                raise Trouble(f"{key!r} is still being written; it is processed when it is whole.")
            if _etag(status) != announced.etag:
                raise SourceChanged(f"{key!r} was overwritten since it was listed")
            with self._errors("read", key), os.fdopen(descriptor, "rb", closefd=False) as file:
                yield file
        finally:
            os.close(descriptor)

    @contextmanager
    def _errors(self, verb: str, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._trouble(verb, key, error) from error

    def _trouble(self, verb: str, key: str, error: OSError) -> Trouble:
        said = f"{key!r} could not be {verb} in {self._folder}: {error.strerror or error}"
        if isinstance(error, PermissionError):
            return Unreadable(f"{said}; allow this user to. It is tried again.")
        return Trouble(said)


class _Begun:
    """A walk through the folder that a following page may go on with."""

    def __init__(self, names: Iterator[bytes]) -> None:
        self.names = names
        self.last: str | None = None
        self._give_up = time.monotonic() + CONTINUE_SECONDS

    def goes_on_after(self, start_after: str | None) -> bool:
        return start_after == self.last and time.monotonic() < self._give_up


class _Files(Sequence[SourceObject]):
    """What a page found, described when somebody looks; a tick over known files does not.

    Keys and ETags, which hold size and time, with NUL between them: what the digest is made from.
    """

    def __init__(self, files: list[str]) -> None:
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    @overload
    def __getitem__(self, index: int) -> SourceObject: ...
    @overload
    def __getitem__(self, index: slice) -> list[SourceObject]: ...
    def __getitem__(self, index: int | slice) -> SourceObject | list[SourceObject]:
        if isinstance(index, slice):
            return [_describe(*file.split("\0")) for file in self._files[index]]
        return _describe(*self._files[index].split("\0"))


def _etag(status: os.stat_result) -> str:
    # An f-string takes half as long again, and a tick writes all of them.
    return "%x-%x-%x" % (status.st_ino, status.st_mtime_ns, status.st_size)  # noqa: UP031


def _describe(key: str, etag: str) -> SourceObject:
    # A time before 1970 has a minus sign of its own.
    nanoseconds, _, size = etag.partition("-")[2].rpartition("-")
    return SourceObject(
        key=key,
        etag=etag,
        version_id=None,
        size=int(size, 16),
        last_modified=datetime.fromtimestamp(int(nanoseconds, 16) // 10**9, tz=timezone.utc),
    )


def _compare(announced: SourceObject, file: BinaryIO) -> None:
    if _etag(os.fstat(file.fileno())) != announced.etag:
        raise SourceChanged(f"{announced.key!r} was written to while it was read")


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
